"""A run folder: one owner at a time, files that are whole or absent, metrics that never run ahead.

Everything a run writes goes through here, so that a process killed at any moment leaves a folder
from which the same command goes on.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

_CHECKPOINT = re.compile(r"^step-(\d{6})$")


class RunProblem(RuntimeError):
    """A run folder that cannot be used or written: says which, why, and what to do."""


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yields a folder to fill; it appears as `path` when the block ends, whole, or not at all.

    A full disk or lost permission raises RunProblem and leaves an older `path` as it was.
    """
    draft = path.with_name(f".{path.name}.draft")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        yield draft
        for file in draft.rglob("*"):
            _sync(file)
        retired = path.with_name(f".{path.name}.retired")
        shutil.rmtree(retired, ignore_errors=True)
        if path.exists():
            path.rename(retired)
        draft.rename(path)
        _sync(path.parent)
        shutil.rmtree(retired, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise _cannot_write(path, error) from error
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a file name to write to; the file appears as `path` when the block ends, whole, or not at all."""
    draft = path.with_name(f".{path.name}.draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        _sync(draft)
        draft.replace(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """A full disk or lost permission inside the block raises RunProblem, which names `path` and the remedy."""
    try:
        yield
    except OSError as error:
        raise _cannot_write(path, error) from error


def write_whole(path: Path, text: str) -> None:
    """Write a text file that is never seen half written."""
    with whole_file(path) as draft:
        draft.write_text(text, encoding="utf-8")


class RunFolder:
    """`runs/NAME/`: the resolved recipe, metrics, checkpoints; locked while a process works in it."""

    def __init__(self, path: Path):
        self.path = path
        self.metrics_file = path / "metrics.jsonl"
        self.checkpoint_folder = path / "checkpoints"
        self._lock: int | None = None

    def __enter__(self) -> "RunFolder":
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise _cannot_write(self.path, error) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(self._lock, 32, 0).decode() or "unknown"
            os.close(self._lock)
            self._lock = None
            raise RunProblem(
                f"{self.path} is in use by process {owner}: wait for it, stop it, or choose another folder"
            ) from error
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def keep_config(self, text: str, *, may_change: Sequence[str] = ()) -> None:
        """Write the resolved recipe, or refuse a folder that belongs to another one.

        Fields in `may_change`, `a.b` with all that is below, may differ; the file then holds the newer values.
        """
        file = self.path / "config.yaml"
        if not file.exists():
            write_whole(file, text)
            return
        before = file.read_text(encoding="utf-8")
        differing = _differing_lines(before, text, may_change)
        if not differing and before != text:
            write_whole(file, text)
        if differing:
            raise RunProblem(
                f"{self.path} belongs to a run of another recipe; it differs in:\n  "
                + "\n  ".join(differing)
                + "\nChoose another folder, or give the recipe and --set values of that run."
            )

    def log(self, row: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        with writing(self.metrics_file), self.metrics_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        if not self.metrics_file.exists():
            return []
        lines = self.metrics_file.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def forget_after(self, step: int) -> None:
        """Drop metrics of steps that the checkpoint at `step` has not seen: they will be made again."""
        kept = [row for row in self.metrics() if row["step"] <= step]
        write_whole(self.metrics_file, "".join(json.dumps(row) + "\n" for row in kept))

    def checkpoint(self, step: int) -> Path:
        return self.checkpoint_folder / f"step-{step:06d}"

    def checkpoints(self) -> list[int]:
        """Steps of the whole checkpoints, ascending."""
        found = (_CHECKPOINT.match(path.name) for path in self.checkpoint_folder.glob("*"))
        return sorted(int(match[1]) for match in found if match)

    def prune(self, keep: set[int]) -> None:
        """Delete the checkpoints of all other steps."""
        for step in set(self.checkpoints()) - keep:
            shutil.rmtree(self.checkpoint(step), ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _cannot_write(path: Path, error: OSError) -> RunProblem:
    fix = {
        errno.ENOSPC: "free some space",
        errno.EDQUOT: "free some of your quota",
        errno.EFBIG: "raise the file size limit (ulimit -f)",
        errno.EACCES: "give yourself write permission",
        errno.EROFS: "choose a folder on a writable disk",
    }.get(error.errno or 0, "look at the disk")
    return RunProblem(
        f"cannot write {path}: {error.strerror or error}. What was saved before is intact: {fix}, "
        "then start the same command again."
    )


def _differing_lines(old: str, new: str, may_change: Sequence[str]) -> list[str]:
    before, after = _flat(old), _flat(new)
    return [
        f"{key}: {before.get(key, 'absent')} there, {after.get(key, 'absent')} here"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
        and not any(key == free or key.startswith(f"{free}.") for free in may_change)
    ]


def _flat(text: str) -> dict[str, str]:
    import yaml

    def walk(value: Any, name: str) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                yield from walk(inner, f"{name}.{key}" if name else str(key))
        else:
            yield name, json.dumps(value)

    return dict(walk(yaml.safe_load(text), ""))
