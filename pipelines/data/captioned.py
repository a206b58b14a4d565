"""A captioned set: `captions.jsonl` with a row a picture. `caption` and `render-text` write it, `pack` reads it.

    {"key": "dogs/one.jpg", "where": "/data/dogs/one.jpg", "sha256": "...",
     "captions": {"dense": ["..."], "brief": ["..."]}, "facts": {...}}

`where` is a path, absolute or relative to the rows' folder, or a URL; `column`, `offset` and `length` are there for
pictures inside of tars and Parquet files. `sha256` is of the bytes that were captioned.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from lens_core.recipes import RecipeProblem
from lens_core.runs import writing
from pipelines.data.cleaning.sources import WHOLE, Reference, is_url

ROWS = "captions.jsonl"
LEFT_OUT = "left-out.jsonl"
"""Pictures without a caption: rows of `key` and `reason`."""


@dataclass(frozen=True, slots=True)
class Captioned:
    """One row."""

    key: str
    where: str
    sha256: str
    captions: Mapping[str, Sequence[str]]
    facts: Mapping[str, Any] = field(default_factory=dict)
    column: str = ""
    offset: int = 0
    length: int = WHOLE

    def line(self) -> str:
        """As JSON; what is as usual is left out."""
        usual = {"facts": {}, "column": "", "offset": 0, "length": WHOLE}
        row = {name: value for name, value in asdict(self).items() if name not in usual or value != usual[name]}
        return json.dumps(row, ensure_ascii=False)

    def reference(self, folder: Path) -> Reference:
        """Where its bytes are."""
        where = self.where if is_url(self.where) else str(folder / self.where)
        return Reference(self.key, where, self.column, self.offset, self.length)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def decode_whole(data: bytes) -> np.ndarray:
    """All of a picture at its full size, uint8 RGB (H, W, 3). Raises Unreadable."""
    from pipelines.data.cleaning.pixels import MOST_PIXELS, decode  # OpenCV waits until there is a picture

    return decode(data, MOST_PIXELS).rgb


def read_captioned(source: Path) -> Iterator[Captioned]:
    """The rows of a captioned set, or of a file of such rows. Raises RecipeProblem with the line and what is wrong."""
    path = rows_file(source)
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            yield _row(line, f"{path}:{number}")


def rows_file(source: Path) -> Path:
    """The file of a captioned set's rows. Raises RecipeProblem where there is none."""
    path = source / ROWS if source.is_dir() else source
    if path.is_file():
        return path
    raise RecipeProblem(
        f"{source}: there is no {ROWS}. Make one with `lens-rl data caption` or `lens-rl data render-text`, or write "
        '{"key": ..., "where": ..., "sha256": ..., "captions": {"dense": [...]}} a line'
    )


def _row(line: str, where: str) -> Captioned:
    try:
        row = Captioned(**json.loads(line))
    except (ValueError, TypeError) as error:
        reason = str(error).removeprefix("Captioned.__init__() ")
        known = ", ".join(one.name for one in fields(Captioned))
        raise RecipeProblem(f"{where} is no row of a captioned set: {reason}; its fields are {known}") from error
    texts = [text for kind in row.captions.values() for text in kind] if _is_captions(row.captions) else [""]
    if not all(isinstance(text, str) and text for text in (row.key, row.where, row.sha256, *texts)):
        raise RecipeProblem(f"{where}: key, where, sha256 and every caption must be text that is not empty")
    return row


def _is_captions(value: Any) -> bool:
    """A mapping of kinds to lists, at least one of which has something in it."""
    return isinstance(value, Mapping) and all(isinstance(kind, list) for kind in value.values()) and any(value.values())


class RowFile:
    """JSON rows that are appended one by one; a line that a killed process left half written is forgotten."""

    def __init__(self, path: Path):
        self.path = path
        with writing(path):
            *whole, torn = (path.read_bytes() if path.exists() else b"").split(b"\n")
            if torn:
                with path.open("r+b") as file:
                    file.truncate(sum(len(line) + 1 for line in whole))
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in whole]

    def append(self, line: str) -> None:
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
