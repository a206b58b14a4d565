"""The nine steps as decisions about scores, in the paper's order. No image is read here.

Where a scorer could not score an image, its step drops it: nobody has said that it is safe.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipelines.data.cleaning.recipe import Thresholds

Decision = Callable[[pd.DataFrame, Thresholds], pd.Series]
Reason = Callable[[Any, Thresholds], str]
CORRUPT, NEAR_DUPLICATE = "corrupt", "near-duplicate"
SCORED = ("nsfw", "aesthetics", "watermark")
"""Steps that need a model; their scores stand in columns of the same names, reasons for none in NAME_problem."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step: which images it drops, as a function of their scores."""

    name: str
    title: str
    drops: Decision
    reason: Reason
    limits: tuple[str, ...] = ()
    """The thresholds it reads."""


def ill_lit(rows: pd.DataFrame, limits: Thresholds) -> pd.Series:
    """Underexposed or overexposed."""
    return (rows.brightest < limits.underexposed) | (rows.darkest > limits.overexposed)


def _scored(name: str, title: str, drops: Decision, reason: Reason) -> Step:
    """A step of a model. An image without a score is dropped for that."""

    def all_drops(rows: pd.DataFrame, limits: Thresholds) -> pd.Series:
        failed: Any = rows[f"{name}_problem"] != ""
        return failed | drops(rows, limits)

    def all_reasons(row: Any, limits: Thresholds) -> str:
        return row[f"{name}_problem"] or reason(row, limits)

    return Step(name, title, all_drops, all_reasons, (name,))


STEPS = (
    Step(CORRUPT, "Cannot be read", lambda rows, _: rows.problem != "", lambda row, _: row.problem),
    Step(
        "area",
        "Too small",
        lambda rows, limits: rows.height * rows.width < limits.min_area,
        lambda row, limits: f"{row.height:.0f} x {row.width:.0f} is under {limits.min_area:,} pixels",
        ("min_area",),
    ),
    _scored(
        "nsfw",
        "Not safe for work",
        lambda rows, limits: rows.nsfw > limits.nsfw,
        lambda row, limits: f"nsfw {row.nsfw:.3f} is over {limits.nsfw:g}",
    ),
    _scored(
        "aesthetics",
        "Low aesthetics",
        lambda rows, limits: rows.aesthetics < limits.aesthetics,
        lambda row, limits: f"aesthetics {row.aesthetics:.2f} is under {limits.aesthetics:g}",
    ),
    _scored(
        "watermark",
        "Watermark",
        lambda rows, limits: rows.watermark > limits.watermark,
        lambda row, limits: f"watermark {row.watermark:.3f} is over {limits.watermark:g}",
    ),
    Step(
        "sharpness",
        "Blurred",
        lambda rows, limits: rows.sharpness < limits.sharpness,
        lambda row, limits: f"sharpness {row.sharpness:.4f} is under {limits.sharpness:g}",
        ("sharpness",),
    ),
    Step(
        "entropy",
        "Little in it",
        # What is ill lit has few grey levels for that reason, and the next step says so.
        lambda rows, limits: (rows.entropy < limits.entropy) & ~ill_lit(rows, limits),
        lambda row, limits: f"entropy {row.entropy:.2f} bits is under {limits.entropy:g}",
        ("entropy",),
    ),
    Step(
        "luminance",
        "Underexposed or overexposed",
        ill_lit,
        lambda row, limits: (
            f"underexposed: brightest {row.brightest:.3f} is under {limits.underexposed:g}"
            if row.brightest < limits.underexposed
            else f"overexposed: darkest {row.darkest:.3f} is over {limits.overexposed:g}"
        ),
        ("underexposed", "overexposed"),
    ),
)
"""All but near-duplicates, which need more than one image."""
NAMES = (*(step.name for step in STEPS), NEAR_DUPLICATE)


def runs(step: Step, measured: set[str] | dict[str, str]) -> bool:
    """Whether a step can be run: its model is there, or it needs none."""
    return step.name not in SCORED or step.name in measured


def decide(rows: pd.DataFrame, limits: Thresholds, measured: set[str] | dict[str, str]) -> pd.DataFrame:
    """Adds `dropped_by`, the first step that drops a row or an empty text, and `reason`.

    An image that the embedder failed on can be compared with none, and falls at the last step.
    """
    dropped_by = np.full(len(rows), "", dtype=object)
    reasons = np.full(len(rows), "", dtype=object)
    for step in STEPS:
        if not runs(step, measured):
            continue
        for place in np.flatnonzero(step.drops(rows, limits).to_numpy() & (dropped_by == "")):
            dropped_by[place], reasons[place] = step.name, step.reason(rows.iloc[place], limits)
    if "embedding" in measured:
        for place in np.flatnonzero((rows.embedding_problem != "").to_numpy() & (dropped_by == "")):
            dropped_by[place], reasons[place] = NEAR_DUPLICATE, rows.embedding_problem.iloc[place]
    return rows.assign(dropped_by=dropped_by, reason=reasons)
