"""Where images come from: folders, WebDataset tars and Parquet files, on a disk or in an object store.

A source is listed once, in an order that depends on names alone. Each image becomes a `Reference`: enough to read its
bytes on any machine, without the listing. What cannot become an image is a reference too, with the reason.
"""

import functools
import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from lens_core.recipes import RecipeProblem, nearest

PICTURES = (
    *(".avif", ".bmp", ".gif", ".heic", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
    *(".pgm", ".png", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
)
TABLES = TAR, PARQUET = ".tar", ".parquet"
COLUMNS = (
    *("image", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes"),
    *("url", "URL", "image_url", "path", "image_path", "file_name", "filename"),
)
"""Names of a Parquet column that holds images, their URLs or their paths, in order of preference."""
FOLLOWED = ("http", "https", "file", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hf")
"""How a URL in a table may begin. fsspec knows more, also chains that unpack or cache: a stranger's table gets none."""
WHICH_COLUMN = "which column holds the images?"
WHOLE = -1
"""`length` of an image that is a file of its own."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One image of a source: `length` bytes from `offset` of the file `where`, or row `offset` of its `column`."""

    key: str
    """Name within the source, unique, in any script."""
    where: str
    """Path or URL; empty for a folder that is not entered."""
    column: str = ""
    offset: int = 0
    length: int = WHOLE
    problem: str = ""
    """Why there is nothing to read."""


@dataclass(slots=True)
class Listing:
    """The references of a source, and by suffix the number of files that were left alone."""

    source: str
    column: str | None = None
    others: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[Reference]:
        """In order of names. Raises RecipeProblem for a source that is not there or holds no images."""
        self.others.clear()
        none, unclear = True, ""
        for file in _files(self.source):
            suffix = PurePosixPath(file.key).suffix.lower()
            if suffix in PICTURES or (file.problem and (suffix in TABLES or not file.where)):
                found: Iterator[Reference] = iter((file,))
            elif suffix == TAR:
                found = _members(file)
            elif suffix == PARQUET:
                found = _rows(file, self.column)
            else:
                self.others[suffix or "no suffix"] += 1
                continue
            for reference in found:
                if reference.problem.startswith(WHICH_COLUMN):
                    unclear = unclear or f"{reference.key}: {reference.problem}"
                else:
                    none = False
                yield reference
        if none and unclear:
            raise RecipeProblem(unclear)
        if none:
            raise RecipeProblem(
                f"SOURCE {self.source}: there is no image, tar or Parquet file in it"
                + (f", only {_counted(self.others)}" if self.others else "")
            )


def is_url(text: str) -> bool:
    return "://" in text


def place_of(source: str) -> str:
    """By which a source is known from any folder: its URL, or its absolute path."""
    return source if is_url(source) else str(Path(source).resolve())


def refuse_out_inside(source: str, out: Path) -> None:
    """A folder inside the source would be listed as part of it by the next run. Raises RecipeProblem."""
    if not is_url(source) and out.resolve().is_relative_to(Path(source).resolve()):
        raise RecipeProblem(f"--out {out} lies in the source: choose a folder outside of {source}")


def open_file(where: str) -> IO[bytes]:
    """A local file, or one in an object store that fsspec knows."""
    if not is_url(where):
        return open(where, "rb")
    import fsspec

    files, path = fsspec.core.url_to_fs(where)
    return files.open(path, "rb")


def _files(source: str) -> Iterator[Reference]:
    if is_url(source):
        yield from _remote_files(source)
        return
    root = Path(source)
    if root.is_file():
        yield Reference(root.name, str(root.resolve()))
    elif root.is_dir():
        yield from _walk(root.resolve(), root.resolve())
    else:
        raise RecipeProblem(
            f"SOURCE {source}: there is no such file or folder; give a folder, a .tar or .parquet file, "
            "or the same in an object store (s3://bucket/folder)"
        )


def _walk(root: Path, folder: Path) -> Iterator[Reference]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        yield Reference(_printable(folder.relative_to(root)), "", problem=f"cannot be listed: {error.strerror}")
        return
    for entry in entries:
        path = Path(entry.path)
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(root, path)
        else:
            yield _file(root, path, entry)


def _file(root: Path, path: Path, entry: os.DirEntry[str]) -> Reference:
    key = _printable(path.relative_to(root))
    if key != str(path.relative_to(root)):
        return Reference(key, "", problem="its name is not UTF-8: rename it")
    if not entry.is_symlink():
        return Reference(key, str(path), problem="" if entry.is_file() else "not a regular file")
    target, problem = Path(os.path.realpath(path)), ""
    if not target.is_relative_to(root):
        problem = "a link that leads out of the folder"
    elif target.is_dir():
        problem = "a link to a folder, whose files have rows of their own"
    elif not target.exists():
        problem = "a link that leads nowhere"
    return Reference(key, "" if target.is_dir() else str(path), problem=problem)


def _printable(path: Path) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _remote_files(source: str) -> Iterator[Reference]:
    import fsspec

    if source.startswith(("http://", "https://")):
        raise RecipeProblem(f"SOURCE {source}: a web page cannot be listed; give a Parquet file with a column of URLs")
    try:
        files, root = fsspec.core.url_to_fs(source)
        names = sorted(files.find(root))
    except (ImportError, ValueError, OSError) as error:
        raise RecipeProblem(f"SOURCE {source}: {error}") from error
    if not names:
        raise RecipeProblem(f"SOURCE {source}: there is nothing at this place")
    for name in names:
        key = name.removeprefix(root).strip("/") or PurePosixPath(name).name
        yield Reference(key, files.unstrip_protocol(name))


def _members(file: Reference) -> Iterator[Reference]:
    """The images in a tar, found by its headers alone."""
    seen: Counter[str] = Counter()
    try:
        with open_file(file.where) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                if not member.isfile() or PurePosixPath(member.name).suffix.lower() not in PICTURES:
                    continue
                name = member.name.encode("utf-8", "backslashreplace").decode()
                seen[name] += 1
                again = f"#{seen[name]}" if seen[name] > 1 else ""
                yield Reference(
                    f"{file.key}/{name}{again}",
                    file.where,
                    offset=member.offset_data,
                    length=member.size,
                    problem="a second member of this name" if again else "",
                )
    except (tarfile.TarError, OSError, EOFError) as error:
        yield Reference(
            f"{file.key}/#broken", file.where, problem=f"the tar ends early after {seen.total()} images: {error}"
        )


def _rows(file: Reference, column: str | None) -> Iterator[Reference]:
    """The images of a Parquet file: bytes in its cells, or paths and URLs."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_file(file.where) as stream:
            parquet = pq.ParquetFile(stream)
            names = parquet.schema_arrow.names
            column = _column(names, column, file.key)
            if column is None:  # A table beside the images, perhaps; alone it is an error.
                problem = f"{WHICH_COLUMN} Give --column, one of: {', '.join(names)}"
                yield Reference(f"{file.key}/#table", file.where, problem=problem)
                return
            kind = parquet.schema_arrow.field(column).type
            folder = file.where.rpartition("/")[0]
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                for row in range(parquet.metadata.num_rows):
                    yield Reference(f"{file.key}/{row:09d}", file.where, column=column, offset=row)
                return
            row = 0
            for batch in parquet.iter_batches(columns=[column]):
                for text in batch.column(0).to_pylist():
                    where = text if is_url(text or "") else os.path.join(folder, text or "")
                    yield Reference(f"{file.key}/{row:09d}", where, problem=_refused(text))
                    row += 1
    except (pa.ArrowException, OSError) as error:
        yield Reference(f"{file.key}/#broken", file.where, problem=f"the Parquet file cannot be read: {error}")


def _refused(text: str | None) -> str:
    """Why a path or URL of a table is not followed; empty if it is."""
    if not text:
        return "no path or URL in this row"
    kind = text.partition("://")[0].lower()
    if is_url(text) and (kind not in FOLLOWED or ("::" in text and not kind.startswith("http"))):
        return f"a URL that is not followed: {kind}://"
    return ""


def _column(names: list[str], wanted: str | None, key: str) -> str | None:
    """The column that holds images; None where no name tells. Raises RecipeProblem if `wanted` is not there."""
    if wanted is None:
        return next((name for name in COLUMNS if name in names), None)
    if wanted in names:
        return wanted
    raise RecipeProblem(f"--column {wanted}: {key} has no such column{nearest(wanted, names)}: {', '.join(names)}")


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} x {suffix}" for suffix, count in sorted(counts.items()))


@functools.lru_cache(maxsize=4)
def _cells(where: str, column: str, group: int) -> list[Any]:
    """The cells of one row group: neighbours are read one after the other, and a group is read once."""
    import pyarrow.parquet as pq

    with open_file(where) as stream:
        return pq.ParquetFile(stream).read_row_group(group, columns=[column]).column(0).to_pylist()


@functools.lru_cache(maxsize=64)
def _group_starts(where: str) -> tuple[int, ...]:
    import pyarrow.parquet as pq

    with open_file(where) as stream:
        metadata = pq.ParquetFile(stream).metadata
    starts = [0]
    for group in range(metadata.num_row_groups):
        starts.append(starts[-1] + metadata.row_group(group).num_rows)
    return tuple(starts)


def cell(where: str, column: str, row: int) -> bytes | None:
    """The bytes in a Parquet cell; Hugging Face's image columns hold a struct with `bytes`."""
    import bisect

    starts = _group_starts(where)
    group = bisect.bisect_right(starts, row) - 1
    value = _cells(where, column, group)[row - starts[group]]
    return value.get("bytes") if isinstance(value, dict) else value
