"""Who watches the judge while it rewards: a held-out judge on some of the pictures, and canaries now and then.

Neither ever enters the reward. What they see is logged, and may stop the run (`guards.py`).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lens_core.records import Prompt, Sample, Verdict
from lens_core.seeds import seed_of
from lens_rl.guards import gap_growth
from lens_rl.judges import agreement as stats
from lens_rl.judges.agreement import estimate
from lens_rl.judges.backend import JudgeProblem
from lens_rl.judges.canaries import PASSES, granted, make_canaries
from lens_rl.judges.judge import Pending, RubricJudge
from lens_rl.recipe import HeldOutJudge
from lens_rl.rollout import Order

Place = tuple[int, int]
"""Group and index of an image in its step."""
Judged = tuple[Order, Sample, tuple[Verdict, ...]]
PREFIX = "held_out_judge"


class Watch:
    """Watches one run's judge. Without a held-out judge only the canaries are left."""

    def __init__(self, judge: RubricJudge, held_out: RubricJudge | None, recipe: HeldOutJudge | None, *, seed: int):
        self._judge, self._held_out, self._recipe, self._seed = judge, held_out, recipe, seed
        self._places: frozenset[Place] = frozenset()
        self._pending: dict[Place, Pending] = {}

    def choose(self, orders: Sequence[Order], step: int) -> None:
        """Decide which of a step's pictures the held-out judge will see: named by the seed, so a resumed run agrees."""
        self._pending = {}
        if self._held_out is None or self._recipe is None:
            return
        self._held_out.step = step
        count = math.ceil(self._recipe.share * len(orders))
        random = np.random.default_rng(seed_of(self._seed, PREFIX, step))
        chosen = random.choice(len(orders), count, replace=False)
        self._places = frozenset((orders[number].group, orders[number].index) for number in chosen)

    def ask(self, order: Order, sample: Sample) -> None:
        """Show the held-out judge a picture, if it is one of those chosen."""
        place = (order.group, order.index)
        if self._held_out is not None and place in self._places:
            self._pending[place] = order.prompt, self._held_out.submit(order.prompt, sample.image)

    def compare(self, judged: Sequence[Judged], history: Sequence[dict[str, Any]]) -> dict[str, float]:
        """What both judges said of the chosen pictures of a step, as columns of its metrics.

        `gap` is the mean over images of the judge's reward less the held-out judge's, on the criteria that both
        answered, with a 95 % interval; `gap_growth` is what it has grown since the first rows of `history`.
        Raises JudgeProblem past the errors or the budget of the held-out judge's section.
        """
        said = self._collect()
        if not said:
            return {}
        errors = sum(verdict.value is None for verdicts in said.values() for verdict in verdicts)
        columns: dict[str, float | None] = {"images": len(said), "errors": errors}
        if pairs := _pairs(judged, said):
            found = _columns(*np.array(pairs).T)
            gaps = [row[f"{PREFIX}/gap"] for row in history if f"{PREFIX}/gap" in row]
            columns |= {**found, "gap_growth": gap_growth([*gaps, found["gap"]])}
        known = {name: value for name, value in columns.items() if value is not None and not math.isnan(value)}
        return {f"{PREFIX}/{name}": value for name, value in known.items()}

    def show_canaries(self, made: Sequence[tuple[Prompt, np.ndarray]], step: int) -> tuple[dict[str, float], list[str]]:
        """Ask every judge about canaries of the prompts of `made`.

        Returns columns of metrics, and a line for each judge and kind of canary that it passes.
        """
        canaries = make_canaries(made, seed=seed_of(self._seed, "canaries", step))
        columns, lines = {}, []
        for field, judge in (("judge", self._judge), (PREFIX, self._held_out)):
            if judge is None:
                continue
            judge.step = step
            pending = [(canary, judge.submit(canary.prompt, canary.image)) for canary in canaries]
            shares = granted((canary, future.result()) for canary, future in pending)
            columns |= {f"canary/{field}/{kind}": share for kind, share in shares.items()}
            lines += [
                f"{field} {judge.judge_id} passes the canary {kind!r}: it grants {share:.0%} of the criteria "
                "on pictures that do not show what was asked for"
                for kind, share in shares.items()
                if share > PASSES
            ]
        return columns, lines

    def _collect(self) -> dict[Place, tuple[Verdict, ...]]:
        """Wait for what the held-out judge says of the pictures it was shown."""
        if self._held_out is None or not self._pending:
            return {}
        shown, pending = list(self._pending), list(self._pending.values())
        try:
            return dict(zip(shown, self._held_out.collect(pending, "the pictures shown to it"), strict=True))
        except JudgeProblem as problem:
            raise JudgeProblem(f"{PREFIX}, read for judge here: {problem}") from problem


def _pairs(judged: Sequence[Judged], said: Mapping[Place, Sequence[Verdict]]) -> list[tuple[int, int, int]]:
    """(image, the judge's value, the held-out judge's) of every criterion that both answered."""
    return [
        (number, one.value, other.value)
        for number, (order, _, verdicts) in enumerate(judged)
        if (order.group, order.index) in said
        for one, other in zip(verdicts, said[order.group, order.index], strict=True)
        if one.value is not None and other.value is not None
    ]


def _columns(image_M: np.ndarray, judge_M: np.ndarray, held_out_M: np.ndarray) -> dict[str, float]:
    """Means over images of the mean over criteria; kappa over verdicts."""
    sums_I3 = stats.sums_by_image(image_M, np.stack([judge_M, held_out_M, np.ones(len(judge_M))], axis=1))
    reward_I, other_I = sums_I3[:, 0] / sums_I3[:, 2], sums_I3[:, 1] / sums_I3[:, 2]
    gap = estimate(stats.ratio, np.stack([reward_I - other_I, np.ones(len(reward_I))], axis=1))
    table_I22 = stats.sums_by_image(image_M, stats.tables(judge_M, held_out_M))
    return {
        "reward": float(other_I.mean()),
        "gap": gap.value,
        "gap_low": gap.low,
        "gap_high": gap.high,
        "kappa": float(stats.kappa(table_I22.sum(axis=0))),
    }
