"""Verdicts and requests on disk: one SQLite file in WAL mode, so that nothing paid for is asked twice or forgotten.

A verdict is known by the pixels judged, the judge, and the exact question. It is written before it is used, in one
transaction with what its request took: a process killed at any moment has lost at most what was in flight, and the rows
of that are there, still open, with their worst case.
"""

import hashlib
import json
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lens_core.records import Verdict
from lens_core.runs import RunProblem
from lens_rl.judges.backend import Question, Usage
from lens_rl.judges.commits import Commits

if TYPE_CHECKING:
    import pandas

SCHEMA_VERSION = 2
BUSY_SECONDS = 10.0
"""How long a writer waits for another one of the same file."""

_VERDICTS = """
CREATE TABLE IF NOT EXISTS verdicts (
    image_sha TEXT NOT NULL, judge_id TEXT NOT NULL, question_sha TEXT NOT NULL,
    prompt_id TEXT NOT NULL, criterion TEXT NOT NULL, kind TEXT NOT NULL,
    value INTEGER, status TEXT NOT NULL, p REAL, mass REAL,
    latency REAL NOT NULL, tokens INTEGER NOT NULL, cost REAL, step INTEGER,
    PRIMARY KEY (image_sha, judge_id, question_sha)
) WITHOUT ROWID
"""
_REQUESTS = """
CREATE TABLE IF NOT EXISTS requests (
    id INTEGER PRIMARY KEY, judge_id TEXT NOT NULL, step INTEGER, questions INTEGER NOT NULL,
    status TEXT NOT NULL, latency REAL, cost REAL,
    tries INTEGER NOT NULL, input_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
    unreported INTEGER NOT NULL, throttled INTEGER NOT NULL
)
"""
_FROM_1 = "ALTER TABLE verdicts ADD COLUMN step INTEGER"
_COLUMNS = "criterion, image_sha, judge_id, value, status, p, mass, latency, tokens, cost"


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with what it is known by in the store."""

    question: Question
    sha: str

    @classmethod
    def of(cls, question: Question) -> "Asked":
        return cls(question, question_sha(question))


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a request that the ledger has open. `cost` in US dollars, None where the price is unknown."""

    row: int
    status: str
    usage: Usage
    latency: float
    cost: float | None


class VerdictStore:
    """Of one process, whose threads may share it. Several may be open on one file; their writers wait for each other.

    Errors are stored too, for the count, but are asked again. `step` is the training step that a verdict or request
    belongs to, None outside of all steps.
    """

    def __init__(self, path: Path):
        self.path = path
        with _explained(path):
            self._db = sqlite3.connect(path, timeout=BUSY_SECONDS, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            # A killed process loses nothing with NORMAL; only a power cut can lose the last moments.
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._upgrade()
            # Looking something up never waits for a commit, and sees nothing that is not on disk.
            reader = sqlite3.connect(path, timeout=BUSY_SECONDS, check_same_thread=False)
        self._share(reader)

    @classmethod
    def read(cls, path: Path) -> "VerdictStore":
        """Open an existing store to look into it, also while a run writes. Raises RunProblem where there is none."""
        store = cls.__new__(cls)
        store.path = path
        if not path.is_file():
            raise RunProblem(f"there is no verdict store {path}")
        with _explained(path):
            store._db = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS, check_same_thread=False
            )
            if (version := store._version()) != SCHEMA_VERSION:
                raise _of_another_version(path, version)
        store._share(reader=store._db)
        return store

    def find(self, image_sha: str, judge_id: str, asked: Sequence[Asked]) -> list[Verdict | None]:
        """The stored verdict of each question, or None where there is no valid one."""
        rows = self._reader.execute(
            f"SELECT question_sha, {_COLUMNS} FROM verdicts WHERE image_sha=? AND judge_id=? AND status='ok'",
            (image_sha, judge_id),
        )
        known = {row[0]: replace(Verdict(*row[1:]), cached=True) for row in rows}
        return [known.get(one.sha) for one in asked]

    def add(
        self,
        prompt_id: str,
        judged: Iterable[tuple[Asked, Verdict]],
        *,
        step: int | None = None,
        settled: Settled | None = None,
    ) -> None:
        """Write verdicts, and what their request took, in one transaction. Raises RunProblem where the disk says no."""
        rows = [
            (v.image_sha, v.judge_id, asked.sha, prompt_id, v.criterion, asked.question.criterion.kind,
             v.value, v.status, v.p, v.mass, v.latency, v.tokens, v.cost, step)
            for asked, v in judged
        ]  # fmt: skip
        with self._transaction():
            if settled is not None:
                self._settle(settled)
            self._db.executemany(f"INSERT OR REPLACE INTO verdicts VALUES ({','.join('?' * 14)})", rows)

    def open_request(self, judge_id: str, *, step: int | None, questions: int, tries: int, cost: float | None) -> int:
        """Write down, before it is sent, a request with the most it can take: `tries`, none of them reported yet.

        Gives its row.
        """
        with self._transaction():
            row = self._db.execute(
                "INSERT INTO requests (judge_id, step, questions, status, cost, tries, input_tokens, cached_tokens, "
                "cache_write_tokens, output_tokens, unreported, throttled) "
                "VALUES (?, ?, ?, 'open', ?, ?, 0, 0, 0, 0, ?, 0)",
                (judge_id, step, questions, cost, tries, tries),
            ).lastrowid
        assert row is not None
        return row

    def settle(self, settled: Settled) -> None:
        """Write down what became of a request."""
        with self._transaction():
            self._settle(settled)

    def together(self, writes: Sequence[Callable[[], Any]]) -> list[Any]:
        """Several calls of the methods above in one transaction, and what each gives."""
        with self._transaction():
            self._db.execute("BEGIN")
            return [write() for write in writes]

    def take_over(self, other: Path, *, step: int) -> None:
        """Copy the valid verdicts of a training step from another store; those that are here already stay."""
        VerdictStore.read(other).close()  # says what is wrong with it
        with self._writing, _explained(other):
            self._db.execute("ATTACH ? AS other", (str(other),))
            try:
                with self._db:
                    self._db.execute(
                        "INSERT OR IGNORE INTO verdicts SELECT * FROM other.verdicts WHERE step=? AND status='ok'",
                        (step,),
                    )
            finally:
                self._db.execute("DETACH other")

    def give_up_open(self, judge_id: str) -> int:
        """Requests that a process left open when it ended: they stay charged at their worst case, as lost."""
        with self._transaction():
            return self._db.execute(
                "UPDATE requests SET status='lost' WHERE status='open' AND judge_id=?", (judge_id,)
            ).rowcount

    def cost(self, judge_id: str | None = None) -> float | None:
        """US dollars of all requests, or of one judge's; None as soon as one has no known price."""
        total, unknown = self._reader.execute(
            "SELECT total(cost), total(cost IS NULL) FROM requests WHERE judge_id=coalesce(?, judge_id)", (judge_id,)
        ).fetchone()
        return None if unknown else total

    def has_verdicts(self, judge_id: str) -> bool:
        """Whether anything was ever judged by it."""
        return bool(self.rows("SELECT 1 FROM verdicts WHERE judge_id=? LIMIT 1", judge_id))

    def rows(self, query: str, *values: object) -> list[tuple]:
        """What a SELECT says of `verdicts` and `requests`."""
        with _explained(self.path):
            return self._reader.execute(query, values).fetchall()

    def frame(self, query: str) -> "pandas.DataFrame":
        """The same as a table with named columns."""
        import pandas

        with _explained(self.path):
            cursor = self._db.execute(query)
            return pandas.DataFrame(cursor.fetchall(), columns=[column[0] for column in cursor.description])

    def close(self) -> None:
        self.soon.close()
        self._reader.close()
        self._db.close()

    def _share(self, reader: sqlite3.Connection) -> None:
        self._reader, self._writing = reader, threading.RLock()
        self.soon = Commits(self.together)
        """`await store.soon(lambda: store.add(...))`: the same call, committed together with others that wait."""

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """One thread at a time; inside of `together` all are part of its one."""
        with self._writing, _explained(self.path):
            if self._db.in_transaction:
                yield
            else:
                with self._db:
                    yield

    def _settle(self, settled: Settled) -> None:
        self._db.execute(
            "UPDATE requests SET status=?, latency=?, cost=?, tries=?, input_tokens=?, cached_tokens=?, "
            "cache_write_tokens=?, output_tokens=?, unreported=?, throttled=? WHERE id=?",
            (settled.status, settled.latency, settled.cost, *_taken(settled.usage), settled.row),
        )

    def _version(self) -> int:
        return self._db.execute("PRAGMA user_version").fetchone()[0]

    def _upgrade(self) -> None:
        version = self._version()
        if version not in (0, 1, SCHEMA_VERSION):
            raise _of_another_version(self.path, version)
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            if version == 1:
                self._db.execute(_FROM_1)
            self._db.execute(_VERDICTS)
            self._db.execute(_REQUESTS)
            self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def _taken(usage: Usage) -> tuple[int, ...]:
    """A usage in the order of the columns from `tries` on."""
    return (
        usage.requests,
        usage.input_tokens,
        usage.cached_tokens,
        usage.cache_write_tokens,
        usage.output_tokens,
        usage.unreported,
        usage.throttled,
    )


def image_sha(image: np.ndarray) -> str:
    """Hash of an image's size and RGB pixels."""
    return hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).hexdigest()


def question_sha(question: Question) -> str:
    """Hash of what is asked: the rendered messages and the machine-readable check."""
    check = question.criterion.check
    content = [question.criterion.name, question.system, question.user, dict(check) if check else None]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """SQLite's errors as RunProblems with the file and the remedy."""
    try:
        yield
    except sqlite3.Error as error:
        reason = str(error)
        remedy = next((fix for sign, fix in _REMEDIES.items() if sign in reason), "look at the disk")
        raise RunProblem(f"verdict store {path} cannot be used: {reason}; {remedy}") from error


_REMEDIES = {
    "locked": "another process holds it: end that one, then start the same command again",
    "readonly": "give yourself write permission to the file and its folder",
    "unable to open": "see that its folder exists and that you may write there",
    "not a database": "move it away to start a new one; its verdicts will be asked again",
    "malformed": "move it away to start a new one; its verdicts will be asked again",
    "disk is full": "free some space, then start the same command again; what was stored before is intact",
}


def _of_another_version(path: Path, version: int) -> RunProblem:
    remedy = (
        "start its run's command once more, which brings it up to date"
        if version < SCHEMA_VERSION
        else "use the newer lens-rl that wrote it, or move it away to start a new one"
    )
    return RunProblem(
        f"verdict store {path} has schema version {version}; this program reads {SCHEMA_VERSION}: {remedy}"
    )
