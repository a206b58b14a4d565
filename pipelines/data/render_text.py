"""`lens-rl data render-text`: pictures of text with exact captions and the place of every line.

OUT/
  pictures/000/text-000000.jpg ...
  captions.jsonl     a row a picture: captions, and under `facts` every text with its font, colour and corners
  left-out.jsonl     pictures that were not kept, with the reason
  config.yaml        the settings that the pictures depend on

A picture is a function of the settings, the seed and its number, so a command that was stopped goes on where it was,
and any number of workers makes the same files.
"""

import io
import json
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from lens_core.progress import ProgressDisplay
from lens_core.runs import RunFolder, writing
from pipelines.data.captioned import LEFT_OUT, ROWS, Captioned, RowFile, sha256
from pipelines.data.text.drawing import Drawn, NothingFits
from pipelines.data.text.order import SIZES, Order, Stock, draw, facts_of, prepare, settings_of
from pipelines.data.text.reading import Reader
from pipelines.data.text.scripts import shipped
from pipelines.data.text.wording import captions

__all__ = ["SIZES", "Order", "print_summary", "render_text"]

QUALITY = 95
"""Of the JPEG files, with full chroma, which thin coloured letters need."""
AHEAD = 8
"""Pictures a worker that may wait for an earlier one to be written."""


@dataclass(frozen=True, slots=True)
class Made:
    """A picture and its row; or, without them, the reason why there is none."""

    key: str
    file: bytes = b""
    row: str = ""
    left_out: dict[str, Any] = field(default_factory=dict)


def render_text(order: Order) -> dict[str, Any]:
    """Make the pictures that are not there yet; returns the counts of all.

    Raises RecipeProblem for fonts, scripts and files that are not there, before anything is drawn.
    """
    stock = prepare(order)
    if order.check:
        Reader()  # its absence is to be known now
    with RunFolder(order.out) as folder:
        folder.keep_config(settings_of(stock))
        kept, left_out = RowFile(order.out / ROWS), RowFile(order.out / LEFT_OUT)
        done = len(kept.rows) + len(left_out.rows)
        with ProgressDisplay("pictures of text", order.count, done=done) as bar:
            for made in _in_order(stock, range(done, order.count)):
                if made.row:
                    _save(order.out, made, kept)
                else:
                    left_out.append(json.dumps({"key": made.key, **made.left_out}, ensure_ascii=False))
                done += 1
                bar.update(done, "")
    return summary_of(order.out) | {"missing": dict(stock.missing)}


class Painter:
    """Makes pictures by number, and reads them where the order says so."""

    def __init__(self, stock: Stock):
        self._stock = stock
        self._reader = Reader() if stock.order.check else None

    def make(self, number: int) -> Made:
        key = f"text-{number:06d}"
        try:
            script, drawn, random = draw(self._stock, number)
        except NothingFits as error:
            return Made(key, left_out={"reason": str(error)})
        facts = facts_of(drawn, script)
        if self._reader is not None:
            facts["read"] = _read(self._reader, drawn, script)
            if reason := _misread(facts["read"]):
                return Made(key, left_out={"reason": reason, "facts": facts})
        buffer = io.BytesIO()
        drawn.picture.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
        data = buffer.getvalue()
        row = Captioned(key, _place(key), sha256(data), captions(drawn, random), facts)
        return Made(key, data, row.line())


def summary_of(out: Path) -> dict[str, Any]:
    """What a folder of pictures of text holds, script by script; `read` is the share of words read back, if checked."""
    kept, left_out = (RowFile(out / name).rows for name in (ROWS, LEFT_OUT))
    scripts: dict[str, dict[str, Any]] = {}
    for column, rows in (("pictures", kept), ("left_out", left_out)):
        for facts in (row.get("facts", {}) for row in rows):
            found = scripts.setdefault(facts.get("script", ""), {"pictures": 0, "left_out": 0, "asked": 0, "found": 0})
            found[column] += 1
            if (read := facts.get("read", {})).get("checked"):
                found["asked"] += read["asked"]
                found["found"] += read["found"]
    for found in scripts.values():
        found["read"] = found["found"] / found["asked"] if found["asked"] else None
    return {"pictures": len(kept), "left_out": len(left_out), "scripts": dict(sorted(scripts.items()))}


def print_summary(summary: Mapping[str, Any], out: Path, console: Console) -> None:
    table = Table("script", "pictures", "left out", "read back")
    for script, row in summary["scripts"].items():
        share = "not checked" if row["read"] is None else f"{row['read']:.1%}"
        table.add_row(script or "too small for text", f"{row['pictures']:,}", f"{row['left_out']:,}", share)
    console.print(table)
    for script, reason in summary["missing"].items():
        console.print(f"without {script}: {reason}", highlight=False, soft_wrap=True)
    console.print(f"{summary['pictures']:,} pictures in {out}", highlight=False, soft_wrap=True)


_painter: Callable[[int], Made] | None = None
"""Of a worker process."""


def _in_order(stock: Stock, numbers: range) -> Iterator[Made]:
    """Each number's picture, in order, made by as many processes as were asked for."""
    workers = min(stock.order.workers, len(numbers))
    if workers <= 1:
        painter = Painter(stock) if numbers else None
        for number in numbers:
            assert painter is not None
            yield painter.make(number)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, initializer=_start, initargs=(stock,)) as pool:
        waiting: deque[Future[Made]] = deque()
        for number in numbers:
            waiting.append(pool.submit(_make, number))
            if len(waiting) >= AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _start(stock: Stock) -> None:
    global _painter
    _painter = Painter(stock).make


def _make(number: int) -> Made:
    assert _painter is not None
    return _painter(number)


def _place(key: str) -> str:
    """A thousand files a folder."""
    return f"pictures/{key[5:-3]}/{key}.jpg"


def _save(out: Path, made: Made, kept: RowFile) -> None:
    """The picture, then its row: a picture without a row is made again."""
    file = out / _place(made.key)
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(made.file)
    kept.append(made.row)


def _read(reader: Reader, drawn: Drawn, script: str) -> dict[str, Any]:
    """What the reader found of the texts; not checked where they hold letters that it does not know."""
    texts = [block.text for block in drawn.blocks]
    if unknown := reader.unknown("".join(texts)):
        return {"checked": False, "why": f"the reader does not know {unknown[:8]}"}
    spaced = shipped()[script].spaced if script in shipped() else True
    found = reader.check(np.asarray(drawn.picture), texts, spaced=spaced)
    return {"checked": True, "asked": found.asked, "found": found.found, "seen": list(found.texts)}


def _misread(read: Mapping[str, Any]) -> str:
    if not read["checked"] or read["found"] == read["asked"]:
        return ""
    return f"{read['found']} of {read['asked']} words are read back; seen: {' / '.join(read['seen'])}"
