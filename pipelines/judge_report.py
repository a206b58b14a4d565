"""`lens-rl judge report`: what the judges of a run did and cost, as tables."""

from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lens_rl.judges.accounts import TOKENS, accounts, stores_of

STEPS_SHOWN = 40
"""Of the latest, in the table; `--json` has them all."""

Account = dict[str, Any]


def read_accounts(run: Path) -> list[Account]:
    """See `lens_rl.judges.accounts.accounts`."""
    return accounts(stores_of(run))


def print_accounts(found: list[Account], console: Console) -> None:
    if not found:
        console.print("Nothing has been judged yet.")
    for account in found:
        console.print(Text(account["judge"], style="bold"), soft_wrap=True)
        console.print(_in_all(account["in_all"]), _by_kind(account["kinds"]), _by_step(account["steps"]))


def _in_all(row: Account) -> Table:
    table = Table(title="In all", title_justify="left", show_header=False, box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_row("verdicts", f"{row['verdicts']:,}")
    table.add_row("of them yes", _share(row["yes_share"]))
    table.add_row("errors", _kinds_of(row["errors"]))
    if row["requests"]:
        table.add_row("requests", _kinds_of(row["requests"]))
        uncertain = {"open", "lost"} & row["requests"].keys()
        table.add_row("tries sent", f"{row['tries']:,}" + (" at most" if uncertain else ""))
        table.add_row("of them told 429", f"{row['throttled_tries']:,}")
        table.add_row("charged at their worst", f"{row['unreported_tries']:,}")
        for name in TOKENS:
            table.add_row(name.replace("_", " "), f"{row[name]:,}")
    table.add_row("cost", _dollars(row["cost_usd"]))
    table.add_row("latency", ", ".join(f"{name} {_number(value)} s" for name, value in row["latency_seconds"].items()))
    return table


def _by_kind(rows: list[Account]) -> Table:
    table = _table("By kind of criterion", "kind", "verdicts", "yes", "errors")
    for row in rows:
        table.add_row(row["kind"], f"{row['verdicts']:,}", _share(row["yes_share"]), _kinds_of(row["errors"]))
    return table


def _by_step(rows: list[Account]) -> Table:
    names = ("step", "verdicts", "errors", "requests", "tries", "tokens", "cost", "p50 s", "p95 s")
    table = _table("By step", *names)
    if len(rows) > STEPS_SHOWN:
        table.caption = f"the last {STEPS_SHOWN} of {len(rows)}; --json has all"
    for row in rows[-STEPS_SHOWN:]:
        table.add_row(
            "other" if row["step"] is None else f"{row['step']}",
            f"{row['verdicts']:,}",
            f"{sum(row['errors'].values()):,}",
            f"{sum(row['requests'].values()):,}",
            f"{row['tries']:,}",
            _thousands(sum(row[name] for name in TOKENS)),
            _dollars(row["cost_usd"]),
            _number(row["latency_seconds"]["p50"]),
            _number(row["latency_seconds"]["p95"]),
        )
    return table


def _table(title: str, first: str, *names: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(first)
    for name in names:
        table.add_column(name, justify="right")
    return table


def _kinds_of(counts: dict[str, int]) -> str:
    """For example `12 timeout, 3 refusal`."""
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{number:,} {status}" for status, number in ranked) or "0"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _dollars(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"${value:,.2f}" if value >= 1 or value == 0 else f"${value:.2g}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _thousands(value: int) -> str:
    return f"{value:,}" if value < 100_000 else f"{value / 1000:,.0f}k"
