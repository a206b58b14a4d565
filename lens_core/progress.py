"""One way to show work in progress: a bar on a terminal, a line now and then in a log."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LOG_SECONDS = 20.0
"""Seconds between lines where there is no terminal to draw on."""


class ProgressDisplay:
    """`with ProgressDisplay("RL", total) as bar: bar.update(step, "reward 0.7")`."""

    def __init__(self, title: str, total: int, *, done: int = 0, console: Console | None = None):
        self.console = console or Console(file=sys.stderr, emoji=False)  # a judge may be named `model:m:1`
        self._title, self._total, self._last_line = title, total, 0.0
        self._bar: Progress | None = None
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=self.console,
            )
            self._task = self._bar.add_task(title, total=total, completed=done, note="")

    def __enter__(self) -> "ProgressDisplay":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, done: int, note: str) -> None:
        """`done` of the total is done; `note` is what to know about it."""
        if self._bar:
            self._bar.update(self._task, completed=done, note=note)
        elif done >= self._total or time.monotonic() - self._last_line >= LOG_SECONDS:
            self._last_line = time.monotonic()
            self.console.print(f"{self._title} {done}/{self._total}  {note}", highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)
