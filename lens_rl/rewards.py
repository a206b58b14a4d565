"""From verdicts to a number: a weighted list of rewards, each in [0, 1] or nothing."""

from collections.abc import Sequence
from typing import Protocol

from lens_core.doors import PREFIX, own_class
from lens_core.recipes import RecipeProblem, nearest
from lens_core.records import Prompt, Sample, Verdict
from lens_rl.recipe import RewardChoice


class Reward(Protocol):
    """A number in [0, 1] for one image, or None where there is none to be had."""

    def __call__(self, prompt: Prompt, sample: Sample, verdicts: Sequence[Verdict]) -> float | None: ...


class RubricReward:
    """The mean of an image's valid verdicts; None below a stated coverage.

    The plain mean over criteria is RubricRL's (arXiv 2511.20651); Lens does not state its own.
    """

    def __init__(self, choice: RewardChoice):
        self._min_coverage = choice.min_coverage

    def __call__(self, prompt: Prompt, sample: Sample, verdicts: Sequence[Verdict]) -> float | None:
        values = [verdict.value for verdict in verdicts if verdict.value is not None]
        if not values or len(values) < self._min_coverage * len(verdicts):
            return None
        return sum(values) / len(values)


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
