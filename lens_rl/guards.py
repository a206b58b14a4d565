"""When a run should stop by itself, read off the metrics it has already written.

The rules look at validation prompts and at the distance to the frozen start, never at test
prompts. They are functions of the history alone, so a resumed run decides as an unbroken one.
"""

import math
from collections.abc import Sequence
from typing import Any

from lens_rl.recipe import Guards

DIVERSITY_WINDOW = 5
"""Steps averaged before the spread of rollouts is compared: prompts differ from step to step."""
GAP_WINDOW = 10
"""Steps averaged before two judges are compared: a few pictures of a step say little."""

History = Sequence[dict[str, Any]]


def best_step(history: History) -> int:
    """The step with the highest validation reward; the earliest of equals.

    What a held-out judge does not confirm of it is taken off: else a run that was stopped because its judge is being
    fooled would hand back the weights that fool it best.
    """
    validated = [row for row in history if "validation/reward" in row]
    return max(validated, key=lambda row: (row["validation/reward"] - _unconfirmed(row), -row["step"]))["step"]


def gap_growth(gaps: Sequence[float]) -> float | None:
    """How much the gap of two judges has grown, from the mean of the first steps to that of the last; None too early.

    Judges differ in severity from the start; it is the growth that says that a policy learns to please one of them.
    """
    if len(gaps) < 2 * GAP_WINDOW:
        return None
    return (sum(gaps[-GAP_WINDOW:]) - sum(gaps[:GAP_WINDOW])) / GAP_WINDOW


def reason_to_stop(history: History, guards: Guards) -> str | None:
    """Why the run should stop after the last row of `history`, or None."""
    rules = (_collapse, _drift, _sameness, _fooled)
    return next((reason for rule in rules if (reason := rule(history, guards))), None)


def _collapse(history: History, guards: Guards) -> str | None:
    rewards = [row["validation/reward"] for row in history if "validation/reward" in row]
    recent = rewards[-guards.patience :]
    if len(rewards) <= guards.patience or "validation/reward" not in history[-1]:
        return None
    best = max(rewards)
    if all(reward < best - guards.max_drop for reward in recent):
        return (
            f"collapse: validation reward {recent[-1]:.3f} is more than {guards.max_drop} below its best "
            f"{best:.3f} for {guards.patience} validations in a row"
        )
    return None


def _drift(history: History, guards: Guards) -> str | None:
    ratio = history[-1].get("guard/norm_ratio", 1.0)
    if 1 / guards.max_norm_ratio <= ratio <= guards.max_norm_ratio:
        return None
    return f"drift: |v| / |v_ref| is {ratio:.3f}, outside 1/{guards.max_norm_ratio} to {guards.max_norm_ratio}"


def _sameness(history: History, guards: Guards) -> str | None:
    spread = [row["guard/diversity"] for row in history if not math.isnan(row.get("guard/diversity", math.nan))]
    if len(spread) < 2 * DIVERSITY_WINDOW:
        return None
    first = sum(spread[:DIVERSITY_WINDOW]) / DIVERSITY_WINDOW
    last = sum(spread[-DIVERSITY_WINDOW:]) / DIVERSITY_WINDOW
    if last >= guards.min_diversity * first:
        return None
    return f"sameness: pictures of one prompt spread {last / first:.2f} of what they did at the start"


def _fooled(history: History, guards: Guards) -> str | None:
    growth = _unconfirmed(history[-1])
    if growth <= guards.max_gap:
        return None
    return (
        f"fooled judge: its reward has risen {growth:.3f} more than the held-out judge's on the same pictures, "
        f"over guards.max_gap {guards.max_gap}"
    )


def _unconfirmed(row: dict[str, Any]) -> float:
    return max(row.get("held_out_judge/gap_growth", 0.0), 0.0)
