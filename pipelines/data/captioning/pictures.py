"""The pictures to be captioned: those that cleaning kept, or all of a source."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lens_core.recipes import RecipeProblem
from pipelines.data.captioned import sha256
from pipelines.data.cleaning.reading import read
from pipelines.data.cleaning.sources import Listing, Reference

MANIFEST = "manifest.parquet"
"""By which a folder is known as one that `lens-rl data clean` wrote."""


@dataclass(frozen=True, slots=True)
class Picture:
    """`sha256` of its bytes, where it is known without reading them."""

    reference: Reference
    sha256: str = ""

    def bytes(self) -> tuple[str, bytes]:
        """Its bytes, and their hash. Raises Unreadable."""
        content = read(self.reference)
        return sha256(content), content


def is_cleaned(source: str) -> bool:
    return (Path(source) / MANIFEST).is_file()


def pictures_of(source: str) -> Iterator[Picture]:
    """In the order of the source. Raises RecipeProblem where there are none."""
    if is_cleaned(source):
        yield from _kept(Path(source) / MANIFEST)
    else:
        yield from map(Picture, Listing(source))


def _kept(manifest: Path) -> Iterator[Picture]:
    import pyarrow.parquet as pq

    columns = ["key", "where", "column", "offset", "length", "sha256", "kept"]
    none = True
    for batch in pq.ParquetFile(manifest).iter_batches(columns=columns):
        for row in batch.to_pylist():
            if row.pop("kept"):
                none = False
                known = row.pop("sha256")
                yield Picture(Reference(**row), known.hex() if known else "")
    if none:
        raise RecipeProblem(f"SOURCE {manifest.parent}: cleaning has kept no picture; look at its report")
