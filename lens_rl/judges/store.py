"""Verdicts on disk: one SQLite file in WAL mode, so that nothing paid for is asked twice.

A verdict is known by the pixels judged, the judge, and the exact question. It is written before
it is used: a process killed at any moment has lost at most what was in flight.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lens_core.records import Verdict
from lens_core.runs import RunProblem
from lens_rl.judges.backend import Question

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS verdicts (
    image_sha TEXT NOT NULL, judge_id TEXT NOT NULL, question_sha TEXT NOT NULL,
    prompt_id TEXT NOT NULL, criterion TEXT NOT NULL, kind TEXT NOT NULL,
    value INTEGER, status TEXT NOT NULL, p REAL, mass REAL,
    latency REAL NOT NULL, tokens INTEGER NOT NULL, cost REAL,
    PRIMARY KEY (image_sha, judge_id, question_sha)
) WITHOUT ROWID
"""
_COLUMNS = "criterion, image_sha, judge_id, value, status, p, mass, latency, tokens, cost"


class VerdictStore:
    """Used by one thread. Errors are stored too, for the count, but are asked again."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self._db = sqlite3.connect(path, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            # A killed process loses nothing with NORMAL; only a power cut can lose the last moments.
            self._db.execute("PRAGMA synchronous=NORMAL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, SCHEMA_VERSION):
                raise RunProblem(f"{path} was written by schema version {version}; this program reads {SCHEMA_VERSION}")
            self._db.execute(_SCHEMA)
            self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            self._db.commit()
        except sqlite3.Error as error:
            raise RunProblem(
                f"verdict store {path} cannot be used: {error}; move it away to start a new one"
            ) from error

    def find(self, image_sha: str, judge_id: str, questions: Sequence[Question]) -> list[Verdict | None]:
        """The stored verdict of each question, or None where there is no valid one."""
        rows = self._db.execute(
            f"SELECT question_sha, {_COLUMNS} FROM verdicts WHERE image_sha=? AND judge_id=? AND status='ok'",
            (image_sha, judge_id),
        )
        known = {row[0]: replace(Verdict(*row[1:]), cached=True) for row in rows}
        return [known.get(question_sha(question)) for question in questions]

    def add(self, prompt_id: str, judged: Iterable[tuple[Question, Verdict]]) -> None:
        """Write verdicts in one transaction. Raises RunProblem where the disk says no."""
        rows = [
            (v.image_sha, v.judge_id, question_sha(q), prompt_id, v.criterion, q.criterion.kind,
             v.value, v.status, v.p, v.mass, v.latency, v.tokens, v.cost)
            for q, v in judged
        ]  # fmt: skip
        try:
            with self._db:
                self._db.executemany(f"INSERT OR REPLACE INTO verdicts VALUES ({','.join('?' * 13)})", rows)
        except sqlite3.Error as error:
            raise RunProblem(f"verdict store {self.path} cannot be written: {error}") from error

    def cost(self) -> float | None:
        """Dollars of all verdicts; None as soon as one has no known price."""
        total, unknown = self._db.execute("SELECT total(cost), sum(cost IS NULL) FROM verdicts").fetchone()
        return None if unknown else total

    def close(self) -> None:
        self._db.close()


def image_sha(image: np.ndarray) -> str:
    """Hash of an image's size and RGB pixels."""
    return hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).hexdigest()


def question_sha(question: Question) -> str:
    """Hash of what is asked: the rendered messages and the machine-readable check."""
    check = question.criterion.check
    content = [question.criterion.name, question.system, question.user, dict(check) if check else None]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
