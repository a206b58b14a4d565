"""The tables of a cleaning folder: what their columns are, and files that are whole or absent.

OUT/
  config.yaml                 the resolved recipe
  index/part-000000.parquet   the images of the source, `ROWS` a part, in order of names; listed.json once complete
  scores/pixels-1/part-000000.parquet         a row an image, in the order of the index
  scores/aesthetics-HASH/part-000000.parquet  the same of a scorer; HASH names the model and how it is asked
  manifest.parquet            every image with every score and the step that dropped it
  funnel.json, report.html    the counts; the same as a page
"""

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lens_core.runs import whole_file, write_whole
from pipelines.data.cleaning.recipe import CleanRecipe
from pipelines.data.cleaning.scorers import identity
from pipelines.data.cleaning.sources import Listing

ROWS = 1024
"""Images of a part, the unit that is written whole: a kill costs the parts that were in work."""
PIXELS = "pixels"
PIXELS_REVISION = "1"
"""Counts on when `pixels.measure` gives other numbers: stored ones are then not used."""
LISTED = "listed.json"

INDEX = pa.schema(
    [
        ("key", pa.string()),
        ("where", pa.string()),
        ("column", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("problem", pa.string()),
    ]
)
PIXEL_SCORES = pa.schema(
    [
        ("problem", pa.string()),
        ("sha256", pa.binary(32)),
        ("bytes", pa.int64()),
        ("format", pa.string()),
        ("notes", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("sharpness", pa.float32()),
        ("entropy", pa.float32()),
        ("luminance", pa.float32()),
        ("darkest", pa.float32()),
        ("brightest", pa.float32()),
        ("hash", pa.binary(32)),
    ]
)
"""`problem` is empty for what could be decoded, and the rest is null where it is not."""
SCORE = pa.schema([("problem", pa.string()), ("score", pa.float32())])
EMBEDDING = pa.schema([("problem", pa.string()), ("vector", pa.list_(pa.float16()))])


def schema_of(measure: str) -> pa.Schema:
    """Columns of what is measured under this name."""
    return {PIXELS: PIXEL_SCORES, "embedding": EMBEDDING}.get(measure, SCORE)


class Tables:
    """The tables of one folder, part by part."""

    def __init__(self, folder: Path, recipe: CleanRecipe):
        self.folder = folder
        self.manifest = folder / "manifest.parquet"
        self.measures = {PIXELS: f"{PIXELS}-{PIXELS_REVISION}"}
        """Folder under `scores/` of each thing that this recipe measures."""
        for name, scorer in recipe.scorers().items():
            self.measures[name] = f"{name}-{identity(scorer)}"
        self.images = 0
        self.others: dict[str, int] = {}
        """Files of the source that are no images, by suffix."""

    @property
    def parts(self) -> range:
        return range(-(-self.images // ROWS))

    def rows(self, part: int) -> int:
        return min(ROWS, self.images - part * ROWS)

    def list_source(self, source: str, column: str | None) -> None:
        """List the source, once: a listing that was interrupted is made again, a complete one is kept."""
        done = self.folder / "index" / LISTED
        if not done.is_file():
            listing = Listing(source, column)
            images = 0
            for part, rows in enumerate(_chunks(listing, ROWS)):
                _write(self._index(part), pa.Table.from_pylist([asdict(row) for row in rows], INDEX))
                images += len(rows)
            write_whole(done, json.dumps({"images": images, "others": dict(sorted(listing.others.items()))}) + "\n")
        found = json.loads(done.read_text(encoding="utf-8"))
        self.images, self.others = found["images"], found["others"]

    def index(self, part: int) -> pa.Table:
        return pq.read_table(self._index(part))

    def missing(self, part: int) -> tuple[str, ...]:
        """What has not been measured of a part."""
        return tuple(measure for measure in self.measures if not self._scores(measure, part).is_file())

    def write(self, measure: str, part: int, table: pa.Table) -> None:
        _write(self._scores(measure, part), table)

    def scores(self, measure: str, part: int) -> pa.Table:
        return pq.read_table(self._scores(measure, part))

    def _index(self, part: int) -> Path:
        return self.folder / "index" / f"part-{part:06d}.parquet"

    def _scores(self, measure: str, part: int) -> Path:
        return self.folder / "scores" / self.measures[measure] / f"part-{part:06d}.parquet"


def _write(file: Path, table: pa.Table) -> None:
    with whole_file(file) as draft:
        pq.write_table(table, draft, compression="zstd")


def _chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    stream = iter(items)
    while chunk := list(itertools.islice(stream, size)):
        yield chunk
