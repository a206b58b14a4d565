"""Pictures of held-out prompts with fixed seeds, judged; and honest intervals on what came out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from base_model.generator import Generator
from lens_core.records import Prompt, Sample, Size, Verdict
from lens_core.seeds import seed_of
from lens_rl.judges.judge import RubricJudge
from lens_rl.recipe import Evaluation
from lens_rl.rewards import WeightedRewards
from lens_rl.rollout import FeatureBank, Order, diversity, plan, roll_out

RESAMPLES = 2000


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What one set of weights got on one set of prompts; equal prompts and seeds, so it pairs up."""

    reward_PG: np.ndarray
    """NaN where the judge gave none."""
    by_kind: dict[str, tuple[int, int]]
    """criterion kind -> (verdicts of 1, valid verdicts)"""
    diversity: float
    errors: int
    verdicts: int
    made: list[tuple[Order, Sample, tuple[Verdict, ...]]]

    @property
    def mean(self) -> float:
        return float(np.nanmean(self.reward_PG))


def evaluate(
    generator: Generator,
    features: FeatureBank,
    judge: RubricJudge,
    rewards: WeightedRewards,
    prompts: Sequence[Prompt],
    *,
    recipe: Evaluation,
    images_per_prompt: int,
    sizes: Sequence[Size],
    batch_size: int,
    seed: int,
    split: str,
) -> Scores:
    """Generate with the role in place, judge, and score. The seeds depend on `seed` and `split` only.

    Raises JudgeProblem when more verdicts are errors than the recipe allows, or the budget is spent.
    """
    orders = plan(
        prompts,
        images_per_prompt=images_per_prompt,
        sizes=sizes,
        size_mode="per_group",
        seed=seed_of(seed, "evaluation", split),
    )
    rolled = roll_out(
        generator,
        features,
        orders,
        num_steps=recipe.num_steps,
        sampler=recipe.sampler,
        batch_size=batch_size,
        guidance=recipe.guidance,
    )
    pending = [(order, one, judge.submit(order.prompt, one.image)) for order, one in rolled]
    answered = judge.collect([(order.prompt, future) for order, _, future in pending], f"the {split} pictures")
    made = [(order, one, verdicts) for (order, one, _), verdicts in zip(pending, answered, strict=True)]
    made.sort(key=lambda item: (item[0].group, item[0].index))

    reward_PG = np.full((len(prompts), images_per_prompt), np.nan)
    by_kind: dict[str, tuple[int, int]] = {}
    for order, one, verdicts in made:
        value = rewards(order.prompt, one, verdicts)
        reward_PG[order.group, order.index] = np.nan if value is None else value
        for criterion, verdict in zip(order.prompt.criteria, verdicts, strict=True):
            if verdict.value is not None:
                yes, valid = by_kind.get(criterion.kind, (0, 0))
                by_kind[criterion.kind] = (yes + verdict.value, valid + 1)
    all_verdicts = [verdict for _, _, verdicts in made for verdict in verdicts]
    return Scores(
        reward_PG=reward_PG,
        by_kind=dict(sorted(by_kind.items())),
        diversity=diversity((order, one) for order, one, _ in made),
        errors=sum(verdict.value is None for verdict in all_verdicts),
        verdicts=len(all_verdicts),
        made=made,
    )


def interval(values_P: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over prompts: prompts, not images, are what was drawn."""
    values_P = values_P[~np.isnan(values_P)]
    if not len(values_P):
        return float("nan"), float("nan")
    draws = np.random.default_rng(seed).integers(0, len(values_P), (RESAMPLES, len(values_P)))
    low, high = np.quantile(values_P[draws].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def compare(base: Scores, trained: Scores) -> dict[str, Any]:
    """The held-out numbers of a run: both means, the paired gain and its interval, kind by kind."""
    both_PG = ~np.isnan(base.reward_PG) & ~np.isnan(trained.reward_PG)
    base_P = _means(np.where(both_PG, base.reward_PG, np.nan))
    trained_P = _means(np.where(both_PG, trained.reward_PG, np.nan))
    return {
        "n": int(both_PG.sum()),
        "prompts": int((~np.isnan(base_P)).sum()),
        "base": float(np.nanmean(base_P)),
        "base_interval": list(interval(base_P)),
        "trained": float(np.nanmean(trained_P)),
        "trained_interval": list(interval(trained_P)),
        "gain": float(np.nanmean(trained_P - base_P)),
        "gain_interval": list(interval(trained_P - base_P)),
        "by_kind": {
            kind: {
                "base": base.by_kind[kind][0] / base.by_kind[kind][1],
                "trained": trained.by_kind[kind][0] / trained.by_kind[kind][1],
            }
            for kind in base.by_kind
            if kind in trained.by_kind
        },
    }


def _means(reward_PG: np.ndarray) -> np.ndarray:
    """Mean over the images of each prompt; NaN where it has none."""
    count_P = (~np.isnan(reward_PG)).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.where(count_P > 0, np.nansum(reward_PG, axis=1) / count_P, np.nan)
