"""Captions on disk, beside the ledger of what they cost: what is paid for is never asked again.

A caption is known by the picture's bytes, the model with its template, and the kind. It is written in one transaction
with what its request took. Failures are stored too, to be counted, and are asked again by the next command.
"""

from dataclasses import dataclass
from pathlib import Path

from lens_rl.judges.store import Settled, VerdictStore

_CAPTIONS = """
CREATE TABLE IF NOT EXISTS captions (
    picture_sha TEXT NOT NULL, model_id TEXT NOT NULL, kind TEXT NOT NULL,
    text TEXT NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (picture_sha, model_id, kind)
) WITHOUT ROWID
"""


@dataclass(frozen=True, slots=True)
class Stored:
    """`text` is empty exactly when `status` is not "ok"."""

    text: str
    status: str
    reason: str


class CaptionStore(VerdictStore):
    """The requests of a `VerdictStore`, and captions in the place of verdicts."""

    def __init__(self, path: Path):
        super().__init__(path)
        with self._transaction():
            self._db.execute(_CAPTIONS)

    def caption(self, picture_sha: str, model_id: str, kind: str) -> Stored | None:
        rows = self.rows(
            "SELECT text, status, reason FROM captions WHERE picture_sha=? AND model_id=? AND kind=?",
            picture_sha,
            model_id,
            kind,
        )
        return Stored(*rows[0]) if rows else None

    def add_caption(self, picture_sha: str, model_id: str, kind: str, caption: Stored, settled: Settled) -> None:
        """Write a caption and what its request took."""
        row = (picture_sha, model_id, kind, caption.text, caption.status, caption.reason)
        with self._transaction():
            self._settle(settled)
            self._db.execute(f"INSERT OR REPLACE INTO captions VALUES ({','.join('?' * len(row))})", row)
