"""What people look at after a run: the table, and the same prompts and seeds side by side."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas
from rich.table import Table

from lens_core.runs import RunProblem, whole_folder
from lens_rl.evaluation import Scores
from lens_rl.sheet import draw_sheet

NOT_KINDS = {f"validation/{name}" for name in ("reward", "diversity", "images", "verdicts", "errors")}

SHEET_PROMPTS = 12
CELL = 144
"""Pixels of the longest side of a picture on the sheet; small pictures are enlarged."""


def held_out_table(summary: dict[str, Any]) -> Table:
    """The closing table: reward on prompts never trained on, before and after."""
    held_out = summary["held_out"]
    table = Table(
        title=f"Reward on {held_out['n']} test pictures of {held_out['prompts']} prompts never trained on",
        caption="95 % intervals: bootstrap over prompts. Same prompts and seeds on both sides.",
    )
    for name in ("", "base", "trained", "gain"):
        table.add_column(name, justify="left" if not name else "right")
    table.add_row(
        "[bold]reward[/]",
        _with_interval(held_out["base"], held_out["base_interval"]),
        _with_interval(held_out["trained"], held_out["trained_interval"]),
        f"[bold]{held_out['gain']:+.3f}[/] [{held_out['gain_interval'][0]:+.3f}, {held_out['gain_interval'][1]:+.3f}]",
    )
    table.add_section()
    for kind, values in held_out["by_kind"].items():
        gain = values["trained"] - values["base"]
        table.add_row(kind, f"{values['base']:.3f}", f"{values['trained']:.3f}", f"{gain:+.3f}")
    table.add_section()
    spread = summary["diversity"]
    table.add_row("diversity", f"{spread['base']:.3f}", f"{spread['trained']:.3f}", "")
    return table


def learning_table(run: Path) -> Table:
    """The validations of a run, step by step: reward and each criterion kind."""
    rows = pandas.read_json(run / "metrics.jsonl", lines=True)
    kinds = [name for name in rows.columns if name.startswith("validation/") and name not in NOT_KINDS]
    table = Table(title="Validation")
    for name in ("step", "reward", *(name.removeprefix("validation/") for name in kinds)):
        table.add_column(name, justify="right")
    for row in rows.dropna(subset="validation/reward").to_dict("records"):
        table.add_row(f"{row['step']:.0f}", *(f"{row[name]:.3f}" for name in ("validation/reward", *kinds)))
    return table


def read_summary(run: Path) -> dict[str, Any]:
    """The summary of a finished run. Raises RunProblem where there is none."""
    file = run / "summary.json"
    if not file.is_file():
        raise RunProblem(f"{run} has no summary.json: it is no run folder, or the run has not finished")
    return json.loads(file.read_text(encoding="utf-8"))


def contact_sheet(folder: Path, base: Scores, trained: Scores) -> Path:
    """Base and trained pictures of the first test prompts, as `contact-sheet.png` in `folder`."""
    columns = 2 if base.reward_PG.shape[1] > 1 else 1
    left, right = _first_pictures(base, columns), _first_pictures(trained, columns)
    rows = [
        (left[group][0][0], [[image for _, image in side[group]] for side in (left, right)])
        for group in range(min(SHEET_PROMPTS, len(base.reward_PG)))
    ]
    with whole_folder(folder) as draft:
        draw_sheet(rows, ("base", "trained"), cell=CELL).save(draft / "contact-sheet.png", optimize=True)
    return folder / "contact-sheet.png"


def _first_pictures(scores: Scores, columns: int) -> dict[int, list[tuple[str, np.ndarray]]]:
    pictures: dict[int, list[tuple[str, np.ndarray]]] = {}
    for order, sample, _ in scores.made:
        if order.index < columns:
            pictures.setdefault(order.group, []).append((order.prompt.text, sample.image))
    return pictures


def _with_interval(mean: float, interval: list[float]) -> str:
    return f"{mean:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"
