"""`lens-rl report`: the page and the tables of one run, or of several beside each other."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from lens_core.runs import RunProblem
from lens_rl.report import REPORT, write_comparison, write_report
from lens_rl.report.compare import as_json, compare_runs
from lens_rl.report.record import read_run
from lens_rl.report.tables import comparison_table, held_out_table, learning_table

COMPARISON = "compare.html"


def report(runs: Sequence[Path], *, compare: bool, out: Path | None, console: Console) -> tuple[dict[str, Any], Path]:
    """Write the page, print the tables to `console`, and return the same for programs with the page's file.

    The page of one run is `report.html` in its folder, of several `compare.html` beside the first. Raises RunProblem
    for a folder that is no run, and before anything is written.
    """
    if not compare and len(runs) > 1:
        raise RunProblem(f"{len(runs)} run folders: add --compare to see them beside each other")
    return _compare(runs, out, console) if compare else _one(runs[0], out, console)


def _one(path: Path, out: Path | None, console: Console) -> tuple[dict[str, Any], Path]:
    run = read_run(path)
    file = write_report(path, out or path / REPORT)
    console.print(learning_table(run))
    if run.summary is None:
        console.print(f"{run.name}: {run.state}. The test prompts are touched when it ends.", highlight=False)
        return {
            "state": run.state,
            "steps": run.steps,
            "best_step": run.best_step,
            "validations": run.validations,
        }, file
    console.print(held_out_table(run.summary))
    return run.summary, file


def _compare(paths: Sequence[Path], out: Path | None, console: Console) -> tuple[dict[str, Any], Path]:
    records = [read_run(path) for path in paths]
    comparison = compare_runs(records)
    file = write_comparison(records, comparison, out or paths[0].resolve().parent / COMPARISON)
    console.print(comparison_table(comparison))
    return as_json(comparison), file
