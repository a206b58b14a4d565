"""A captioned set: `captions.jsonl` with a row a picture. `caption` and `render-text` write it, `pack` reads it.

    {"key": "dogs/one.jpg", "file": "/data/dogs/one.jpg", "sha256": "...",
     "captions": {"dense": ["..."], "brief": ["..."]}, "facts": {...}}

`file` is relative to the folder of the row's file, or absolute; `sha256` is of the bytes that were captioned.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lens_core.recipes import RecipeProblem
from lens_core.runs import writing

ROWS = "captions.jsonl"
LEFT_OUT = "left-out.jsonl"
"""Pictures without a caption: rows of `key` and `reason`."""


@dataclass(frozen=True, slots=True)
class Captioned:
    """One row."""

    key: str
    file: str
    sha256: str
    captions: Mapping[str, Sequence[str]]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read_captioned(source: Path) -> Iterator[tuple[Path, Captioned]]:
    """The rows of a captioned set, or of a file of such rows, each with the path of its picture.

    Raises RecipeProblem that names the line, and what is wrong with it.
    """
    path = source / ROWS if source.is_dir() else source
    if not path.is_file():
        raise RecipeProblem(
            f"{source} has no {ROWS}: make it with `lens-rl data caption` or `lens-rl data render-text`, or write one "
            'yourself, a row {"key": ..., "file": ..., "sha256": ..., "captions": {"dense": [...]}} a picture'
        )
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            row = _row(line, f"{path}:{number}")
            yield path.parent / row.file, row


def _row(line: str, where: str) -> Captioned:
    try:
        row = Captioned(**json.loads(line))
    except (ValueError, TypeError) as error:
        raise RecipeProblem(f"{where} is no row of a captioned set: {error}") from error
    texts = [text for kind in row.captions.values() for text in kind] if _is_captions(row.captions) else [""]
    if not all(isinstance(text, str) and text for text in (row.key, row.file, row.sha256, *texts)):
        raise RecipeProblem(f"{where}: key, file, sha256 and every caption must be text that is not empty")
    return row


def _is_captions(value: Any) -> bool:
    """A mapping of kinds to lists, at least one of which has something in it."""
    return isinstance(value, Mapping) and all(isinstance(kind, list) for kind in value.values()) and any(value.values())


class RowFile:
    """JSON rows that are appended one by one; a line that a killed process left half written is forgotten."""

    def __init__(self, path: Path):
        self.path = path
        with writing(path):
            *whole, torn = (path.read_text(encoding="utf-8") if path.exists() else "").split("\n")
            if torn:
                with path.open("r+b") as file:
                    file.truncate(sum(len(line.encode()) + 1 for line in whole))
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in whole]

    def append(self, line: str) -> None:
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
