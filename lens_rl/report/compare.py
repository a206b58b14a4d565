"""Several runs beside each other: curves, gains, kinds of criteria, and what differs between their recipes."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lens_core.runs import RunProblem
from lens_rl.report.charts import Chart, Series, line_chart
from lens_rl.report.curves import points, validation_bands
from lens_rl.report.record import RunRecord
from lens_rl.report.words import share

LOOKS = 6
"""Colours that can be told apart; further runs begin again with the first, dashed."""
BANDED = 3
"""With more runs than this, their bands would hide each other and are left out."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One run among others. `test` is its summary's `held_out`, None until it has ended."""

    name: str
    look: str
    state: str
    steps: int
    seconds: float
    best_step: int
    best_validation: float
    test: dict[str, Any] | None
    diversity: dict[str, float] | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """`kinds` maps a criterion kind to what it gained in each run, `differences` a field to its value in each."""

    runs: list[Compared]
    kinds: dict[str, list[dict[str, Any] | None]]
    differences: dict[str, list[Any]]
    same_test: bool
    """Whether all runs started from the same reward on the test prompts: then what they reached can be ranked too."""


def compare_runs(records: Sequence[RunRecord]) -> Comparison:
    """Put runs side by side. Raises RunProblem for fewer than two, or for one that is given twice."""
    if len(records) < 2:
        raise RunProblem("--compare: give at least two run folders")
    paths = [record.path.resolve() for record in records]
    if doubled := next((path for path in paths if paths.count(path) > 1), None):
        raise RunProblem(f"--compare: {doubled.name} is given twice")
    names = _names(records)
    runs = [_compared(record, names[place], place) for place, record in enumerate(records)]
    kinds = sorted({kind for run in runs if run.test for kind in run.test["by_kind"]})
    bases = {round(run.test["base"], 6) for run in runs if run.test}
    return Comparison(
        runs=runs,
        kinds={kind: [run.test["by_kind"].get(kind) if run.test else None for run in runs] for kind in kinds},
        differences=_differences(records),
        same_test=len(bases) <= 1,
    )


def curves(records: Sequence[RunRecord], comparison: Comparison) -> tuple[Chart, Chart]:
    """Validation reward of all runs against steps, and against minutes at work."""
    by_step, by_minutes = [], []
    # The first run is drawn last, on top.
    for record, run in reversed(list(zip(records, comparison.runs, strict=True))):
        found = points(record.validations, "validation/reward")
        bands = validation_bands(record) if len(records) <= BANDED else []
        minutes = record.minutes
        by_step.append(Series(run.name, found, bands, run.look, dots=True))
        by_minutes.append(
            Series(
                run.name,
                [(minutes[int(step)], reward) for step, reward in found],
                [(minutes[int(step)], low, high) for step, low, high in bands],
                run.look,
                dots=True,
            )
        )
    label = "; ".join(f"{run.name}: best validation reward {share(run.best_validation)}" for run in comparison.runs)
    return (
        line_chart(by_step, label=f"Against steps. {label}.", text=share, x_title="step"),
        line_chart(
            by_minutes, label=f"Against minutes. {label}.", text=share, x_text="{:,.3g}".format, x_title="minute"
        ),
    )


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison for programs."""
    return {
        "runs": [{name: value for name, value in asdict(run).items() if name != "look"} for run in comparison.runs],
        "differences": comparison.differences,
    }


def _compared(record: RunRecord, name: str, place: int) -> Compared:
    summary = record.summary
    return Compared(
        name=name,
        look=f"run{place % LOOKS + 1}" + (" dashed" if place >= LOOKS else ""),
        state=record.state,
        steps=record.steps,
        seconds=round(sum(record.seconds.values()), 1),
        best_step=record.best_step,
        best_validation=max(row["validation/reward"] for row in record.validations),
        test=summary["held_out"] if summary else None,
        diversity=summary["diversity"] if summary else None,
    )


def _names(records: Sequence[RunRecord]) -> list[str]:
    """Folder names; with the folder above where two are called the same."""
    names = [record.name for record in records]
    paths = [record.path.resolve() for record in records]
    return [
        name if names.count(name) == 1 else f"{path.parent.name}/{name}"
        for name, path in zip(names, paths, strict=True)
    ]


def _differences(records: Sequence[RunRecord]) -> dict[str, list[Any]]:
    """Fields of the recipes that are not the same in all runs; None where a recipe has no such field."""
    fields = sorted({field for record in records for field in record.settings})
    found = {field: [record.settings.get(field) for record in records] for field in fields}
    return {field: values for field, values in found.items() if any(value != values[0] for value in values)}
