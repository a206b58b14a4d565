"""A run in the terminal: its closing table, its validations, and several runs beside each other.

Brackets are escaped: to a terminal table, `[red]` is a colour.
"""

from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from lens_rl.report.compare import Comparison
from lens_rl.report.record import RunRecord
from lens_rl.report.words import NOTHING, duration, plain, share, signed


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
        share(held_out["base"]),
        share(held_out["trained"]),
        f"[bold]{signed(held_out['gain'])}[/] {_between(held_out['gain_interval'])}",
    )
    table.add_section()
    for kind, found in held_out["by_kind"].items():
        gain = f"{signed(found['gain'])} {_between(found['gain_interval'])}"
        table.add_row(escape(kind), share(found["base"]), share(found["trained"]), gain)
    table.add_section()
    spread = summary["diversity"]
    table.add_row("diversity", share(spread["base"]), share(spread["trained"]), "")
    return table


def learning_table(run: RunRecord) -> Table:
    """The validations of a run, step by step: reward and each criterion kind."""
    table = Table(title=f"Validation of {escape(run.name)}", caption=f"Best after step {run.best_step}.")
    for name in ("step", "reward", *map(escape, run.kinds)):
        table.add_column(name, justify="right")
    names = ["validation/reward", *(f"validation/{kind}" for kind in run.kinds)]
    for row in run.validations:
        table.add_row(str(row["step"]), *(share(row.get(name)) for name in names))
    return table


def comparison_table(comparison: Comparison) -> Table:
    """A column a run: what it reached, what it took, and where its recipe differs."""
    table = Table(title="Runs", caption="95 % intervals: bootstrap over prompts.")
    table.add_column("")
    for one in comparison.runs:
        table.add_column(escape(one.name), justify="right")
    for name, values in (
        ("[bold]test gain[/]", [_gain(one.test) for one in comparison.runs]),
        ("base", [share(one.test["base"]) if one.test else NOTHING for one in comparison.runs]),
        ("trained", [share(one.test["trained"]) if one.test else NOTHING for one in comparison.runs]),
        ("best validation", [share(one.best_validation) for one in comparison.runs]),
        ("best step", [str(one.best_step) for one in comparison.runs]),
        ("steps", [str(one.steps) for one in comparison.runs]),
        ("time", [duration(one.seconds) for one in comparison.runs]),
        ("ended", [escape(one.state) for one in comparison.runs]),
    ):
        table.add_row(name, *values)
    table.add_section()
    for kind, found in comparison.kinds.items():
        table.add_row(escape(kind), *(_gain(one) for one in found))
    table.add_section()
    for name, values in comparison.differences.items():
        table.add_row(escape(name), *(escape(plain(value)) for value in values))
    return table


def _gain(found: dict[str, Any] | None) -> str:
    return f"{signed(found['gain'])} {_between(found['gain_interval'])}" if found else NOTHING


def _between(edges: Sequence[float]) -> str:
    return f"\\[{signed(edges[0])}, {signed(edges[1])}]"
