"""What every benchmark shares: fair timing, the table, the JSON file, and the yardstick of a bare matrix product."""

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

WIDTH = 140
"""Columns that a table may take where nobody looks, as in a log."""

Quick = Annotated[bool, typer.Option(help="A small model and few rounds: shows that the benchmark runs.")]
Json = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the rows to this file as JSON as well.")]


def interleaved(contestants: Mapping[str, Callable[[], Any]], rounds: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each contestant; they take turns, so that a busy moment of the machine meets all alike.

    On one CPU thread it is the processor's time, which neighbours cannot stretch; else the clock on the wall.
    Each contestant runs once before it is timed.
    """
    one_thread = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if one_thread else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, run in contestants.items():
            wait(device)
            start = clock()
            run()
            wait(device)
            if turn:
                times[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def wait(device: torch.device) -> None:
    """Until a GPU has done what it was asked to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul_peak(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """FLOP/s of `torch.mm` on two square matrices: what this machine, this torch and this dtype come to at best."""
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    seconds = interleaved({"mm": lambda: torch.mm(a, b)}, rounds=5, device=device)["mm"]
    return 2 * side**3 / seconds


def machine(device: torch.device) -> str:
    """In words, for the head of a table."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"CPU, {torch.get_num_threads()} threads, torch {torch.__version__}"


def show(title: str, rows: Sequence[Mapping[str, Any]], file: Path | None) -> None:
    """Print rows of equal keys as a table; with `file`, write {"title", "rows"} there too."""
    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(column, justify="right" if isinstance(rows[0][column], float) else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    console = Console()
    console.width = max(console.width, WIDTH)
    console.print(table)
    if file is not None:
        file.write_text(json.dumps({"title": title, "rows": list(rows)}, indent=2) + "\n", encoding="utf-8")
