"""From verdicts to a number: a weighted list of rewards, each in [0, 1] or nothing."""

from collections.abc import Sequence
from typing import Protocol

from lens_core.doors import PREFIX, own_class
from lens_core.recipes import RecipeProblem, nearest
from lens_core.records import Criterion, Prompt, Sample, Verdict
from lens_rl.recipe import RewardChoice


class Reward(Protocol):
    """A number in [0, 1] for one image, or None where there is none to be had."""

    def __call__(self, prompt: Prompt, sample: Sample, verdicts: Sequence[Verdict]) -> float | None: ...


class RubricReward:
    """The weighted mean of an image's valid verdicts; None below a stated coverage."""

    def __init__(self, choice: RewardChoice):
        self._min_coverage = choice.min_coverage

    def __call__(self, prompt: Prompt, sample: Sample, verdicts: Sequence[Verdict]) -> float | None:
        values = settled(prompt.criteria, [verdict.value for verdict in verdicts])
        return mean_of_valid(values, [criterion.weight for criterion in prompt.criteria], self._min_coverage)


def settled(criteria: Sequence[Criterion], values: Sequence[int | None]) -> list[int | None]:
    """Verdicts with `requires` obeyed: a criterion's value *and* its parent's, where None is an error.

    A 0 on either side decides, as no answer on the other could change it; else an error on either side leaves an
    error: whether the child counts is not known. Leaving a child out where its parent fails would pay for not
    drawing a thing at all: nothing could then be wrong with it.
    """
    by_name = {criterion.name: (criterion.requires, value) for criterion, value in zip(criteria, values, strict=True)}

    def value_of(name: str) -> int | None:
        parent, own = by_name[name]
        if parent is None or own == 0:
            return own
        above = value_of(parent)
        return 0 if above == 0 else None if above is None else own

    return [value_of(criterion.name) for criterion in criteria]


def mean_of_valid(values: Sequence[int | None], weights: Sequence[float], min_coverage: float) -> float | None:
    """The weighted mean of the values that are there; None where they hold less than this share of the weight.

    The plain mean over criteria is RubricRL's (arXiv 2511.20651); Lens does not state its own.
    """
    valid = [(weight, value) for weight, value in zip(weights, values, strict=True) if value is not None]
    total = sum(weight for weight, _ in valid)
    if not valid or total < min_coverage * sum(weights):
        return None
    return sum(weight * value for weight, value in valid) / total


REWARDS = {"rubric": RubricReward}


class WeightedRewards:
    """The weighted mean of several rewards; None as soon as one of them has nothing to say.

    A missing part cannot be left out of the mean: the images of a group would then be measured by
    different yardsticks.
    """

    def __init__(self, choices: Sequence[RewardChoice]):
        self._parts: list[tuple[Reward, float]] = [(_open(choice), choice.weight) for choice in choices]
        self._total = sum(weight for _, weight in self._parts)

    def __call__(self, prompt: Prompt, sample: Sample, verdicts: Sequence[Verdict]) -> float | None:
        total = 0.0
        for reward, weight in self._parts:
            value = reward(prompt, sample, verdicts)
            if value is None:
                return None
            if not 0.0 <= value <= 1.0:
                raise RecipeProblem(f"rewards: {type(reward).__name__} gave {value}; a reward lies in [0, 1]")
            total += weight * value
        return total / self._total


def _open(choice: RewardChoice) -> Reward:
    if choice.kind.startswith(PREFIX):
        return own_class(choice.kind, field="rewards.kind")(choice)
    if choice.kind not in REWARDS:
        raise RecipeProblem(
            f"rewards.kind: unknown reward {choice.kind!r}{nearest(choice.kind, REWARDS)}; "
            f"there are: {', '.join(REWARDS)}, or `python: path/to/file.py:Class`"
        )
    return REWARDS[choice.kind](choice)
