"""Pictures of held-out prompts with fixed seeds, judged; and honest intervals on what came out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from base_model.generator import Generator
from lens_core.records import Prompt, Sample, Size, Verdict
from lens_core.seeds import seed_of
from lens_rl.intervals import gains_by_kind, interval, means_P
from lens_rl.judges.judge import RubricJudge
from lens_rl.recipe import Evaluation
from lens_rl.rewards import WeightedRewards
from lens_rl.rollout import FeatureBank, Order, diversity, plan, roll_out


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What one set of weights got on one set of prompts; equal prompts and seeds, so it pairs up."""

    reward_PG: np.ndarray
    """NaN where the judge gave none."""
    by_kind: dict[str, np.ndarray]
    """criterion kind -> counts_P2: verdicts of 1, and valid verdicts, of each prompt"""
    diversity: float
    errors: int
    verdicts: int
    made: list[tuple[Order, Sample, tuple[Verdict, ...]]]

    @property
    def mean(self) -> float:
        return float(np.nanmean(self.reward_PG))

    @property
    def shares(self) -> dict[str, float]:
        """Share of the valid verdicts of each criterion kind that are 1."""
        return {kind: float(counts_P2[:, 0].sum() / counts_P2[:, 1].sum()) for kind, counts_P2 in self.by_kind.items()}


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
    by_kind: dict[str, np.ndarray] = {}
    for order, one, verdicts in made:
        value = rewards(order.prompt, one, verdicts)
        reward_PG[order.group, order.index] = np.nan if value is None else value
        for criterion, verdict in zip(order.prompt.criteria, verdicts, strict=True):
            if verdict.value is not None:
                counts_P2 = by_kind.setdefault(criterion.kind, np.zeros((len(prompts), 2), dtype=int))
                counts_P2[order.group] += (verdict.value, 1)
    all_verdicts = [verdict for _, _, verdicts in made for verdict in verdicts]
    return Scores(
        reward_PG=reward_PG,
        by_kind=dict(sorted(by_kind.items())),
        diversity=diversity((order, one) for order, one, _ in made),
        errors=sum(verdict.value is None for verdict in all_verdicts),
        verdicts=len(all_verdicts),
        made=made,
    )


def compare(base: Scores, trained: Scores) -> dict[str, Any]:
    """The held-out numbers of a run: both means, the paired gain and its interval, kind by kind."""
    both_PG = ~np.isnan(base.reward_PG) & ~np.isnan(trained.reward_PG)
    base_P = means_P(np.where(both_PG, base.reward_PG, np.nan))
    trained_P = means_P(np.where(both_PG, trained.reward_PG, np.nan))
    return {
        "n": int(both_PG.sum()),
        "prompts": int((~np.isnan(base_P)).sum()),
        "base": float(np.nanmean(base_P)),
        "base_interval": list(interval(base_P)),
        "trained": float(np.nanmean(trained_P)),
        "trained_interval": list(interval(trained_P)),
        "gain": float(np.nanmean(trained_P - base_P)),
        "gain_interval": list(interval(trained_P - base_P)),
        "by_kind": gains_by_kind(base.by_kind, trained.by_kind),
    }
