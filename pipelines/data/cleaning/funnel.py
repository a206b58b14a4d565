"""The funnel: how many images each step dropped, why, and which were near the edge. Gathered part by part."""

from __future__ import annotations

import heapq
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from pipelines.data.cleaning.recipe import CleanRecipe
from pipelines.data.cleaning.steps import CORRUPT, NEAR_DUPLICATE, STEPS, runs
from pipelines.data.cleaning.tables import Tables

EXAMPLES = 8
"""Images of a step that a page shows of what was dropped, and as many of what nearly was."""
BINS = 48
Example = tuple[float, int, Any]
"""An image to be shown: what it was chosen for, the least first; its number in the source; its row of the manifest."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One score as the page draws it."""

    step: str
    title: str
    column: str
    low: float
    high: float
    limit: str
    keeps_above: bool
    """Whether the step keeps what lies above its limit."""
    log: bool = False
    unit: str = ""

    def values(self, rows: pd.DataFrame) -> np.ndarray:
        values = rows.height * rows.width if self.column == "area" else rows[self.column]
        return values.to_numpy(np.float64)

    def place(self, values: np.ndarray) -> np.ndarray:
        """Where on the axis, in [0, 1], values lie; those beyond its ends lie at them."""
        values = np.maximum(np.asarray(values, np.float64), self.low)
        ends = np.array([self.low, self.high])
        if self.log:
            values, ends = np.log(values), np.log(ends)
        return np.clip((values - ends[0]) / (ends[1] - ends[0]), 0, 1)


MEASURED = (
    Measured("area", "Area", "area", 1e3, 1e8, "min_area", True, log=True, unit="pixels"),
    Measured("nsfw", "Not safe for work", "nsfw", 0, 1, "nsfw", False, unit="probability"),
    Measured("aesthetics", "Aesthetics", "aesthetics", 0, 10, "aesthetics", True),
    Measured("watermark", "Watermark", "watermark", 0, 1, "watermark", False, unit="probability"),
    Measured("sharpness", "Sharpness", "sharpness", 1e-4, 10, "sharpness", True, log=True),
    Measured("entropy", "Entropy", "entropy", 0, 8, "entropy", True, unit="bits"),
    Measured("luminance", "Brightest parts", "brightest", 0, 1, "underexposed", True, unit="99th percentile of V"),
    Measured("luminance", "Darkest parts", "darkest", 0, 1, "overexposed", False, unit="1st percentile of V"),
)


@dataclass(slots=True, eq=False)
class Funnel:
    """What the manifest says, summed up: `take` each of its parts."""

    tables: Tables
    recipe: CleanRecipe
    images: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    """Of what could not be read or scored, with numbers left out."""
    notes: Counter[str] = field(default_factory=Counter)
    components: set[int] = field(default_factory=set)
    largest: int = 1
    histograms: dict[str, np.ndarray] = field(default_factory=dict)
    fell: dict[str, list[Example]] = field(default_factory=dict)
    nearly: dict[str, list[Example]] = field(default_factory=dict)

    def take(self, rows: pd.DataFrame) -> None:
        """Count one part: the rows of the manifest in their order."""
        first, self.images = self.images, self.images + len(rows)
        numbers = np.arange(first, self.images)
        self.dropped.update(rows.dropped_by[rows.dropped_by != ""])
        failed = (rows.dropped_by == CORRUPT) | rows.reason.str.startswith("the scorer")
        self.reasons.update(re.sub(r"\d[\d,]*", "n", reason) for reason in rows.reason[failed])
        self.notes.update(note for notes in rows.notes.dropna() for note in notes.split(",") if note)
        twins = (rows.copies > 1).to_numpy()
        self.components.update(rows.instead[twins])
        self.largest = max(self.largest, int(rows.copies.max()))
        for one in MEASURED:
            self._take_score(one, rows, numbers)
        for step in (CORRUPT, NEAR_DUPLICATE):
            fallen = (rows.dropped_by == step).to_numpy()
            order = rows.similarity.to_numpy() if step == NEAR_DUPLICATE else numbers * 1.0
            self._keep(self.fell, step, np.nan_to_num(order), fallen, rows, numbers)

    def steps(self) -> list[dict[str, Any]]:
        """A row a step, as plain data: whether it was run and how, how many entered, fell and were left."""
        left, found = self.images, []
        for step in STEPS:
            limits = {name: getattr(self.recipe.thresholds, name) for name in step.limits}
            state = "run" if runs(step, self.tables.measures) else "not run"
            scorer = getattr(self.recipe, step.name, None)
            how = scorer.model if scorer else "" if state == "run" else f"no model: --set {step.name}.model=PATH"
            found.append({"step": step.name, "title": step.title, "state": state, "how": how, "limits": limits})
        limit = "cosine" if self.recipe.embedding else "hash_bits"
        how = self.recipe.embedding.model if self.recipe.embedding else "perceptual hash, no embedder"
        limits = {limit: getattr(self.recipe.thresholds, limit)}
        last = {"step": NEAR_DUPLICATE, "title": "Near-duplicates", "state": "run", "how": how, "limits": limits}
        for row in (*found, last):
            row |= {"entered": left, "dropped": self.dropped[row["step"]]}
            left -= row["dropped"]
            row["left"] = left
        return [*found, last]

    def plain(self) -> dict[str, Any]:
        """All counts, for programs."""
        steps = self.steps()
        return {
            "images": self.images,
            "kept": steps[-1]["left"],
            "steps": steps,
            "reasons": dict(self.reasons.most_common()),
            "changed": dict(sorted(self.notes.items())),
            "duplicates": {"groups": len(self.components), "largest": self.largest},
            "other_files": self.tables.others,
        }

    def _take_score(self, one: Measured, rows: pd.DataFrame, numbers: np.ndarray) -> None:
        """The histogram of what reached the step, and the images on both sides of its limit that lie nearest."""
        order = [step.name for step in STEPS]
        before = order[: order.index(one.step)]
        reached = ~rows.dropped_by.isin(before).to_numpy()
        values = one.values(rows)
        reached &= np.isfinite(values)
        places = one.place(values)
        counts = np.histogram(places[reached], BINS, (0, 1))[0]
        self.histograms[one.title] = self.histograms.get(one.title, 0) + counts
        margin = np.abs(places - one.place(np.array(getattr(self.recipe.thresholds, one.limit))))
        beyond = (values < getattr(self.recipe.thresholds, one.limit)) == one.keeps_above
        fell = reached & (rows.dropped_by == one.step).to_numpy() & beyond
        self._keep(self.fell, one.title, margin, fell, rows, numbers)
        self._keep(self.nearly, one.title, margin, reached & ~beyond, rows, numbers)

    def _keep(
        self,
        store: dict[str, list[Example]],
        name: str,
        order: np.ndarray,
        chosen: np.ndarray,
        rows: pd.DataFrame,
        numbers: np.ndarray,
    ) -> None:
        """Keep the EXAMPLES of the least `order` among those chosen so far."""
        places = np.flatnonzero(chosen)
        few = places[np.argsort(order[places], kind="stable")[:EXAMPLES]]
        more: list[Example] = [(float(order[place]), int(numbers[place]), rows.iloc[place]) for place in few]
        kept = store.get(name, []) + more
        store[name] = heapq.nsmallest(EXAMPLES, kept, key=lambda item: item[:2])
