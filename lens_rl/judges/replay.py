"""A judge that has spoken already: answers from a verdict store, and nothing else."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lens_core.recipes import RecipeProblem, nearest
from lens_rl.judges.backend import Answer, Backend, Question, Reply
from lens_rl.judges.store import Asked, VerdictStore, image_sha


class ReplayBackend(Backend):
    """Costs nothing. What is not in the store is an error, never a guess.

    `judge_id` chooses among the judges of a store that holds several. Raises RecipeProblem or RunProblem.
    """

    def __init__(self, store: str | None, judge_id: str | None):
        if not store:
            raise RecipeProblem("judge.answers_from is missing: name the verdict store that `replay` answers from")
        self._store = VerdictStore.read(Path(store))
        judges = [name for (name,) in self._store.rows("SELECT DISTINCT judge_id FROM verdicts ORDER BY 1")]
        if judge_id is None and len(judges) == 1:
            judge_id = judges[0]
        if judge_id is None or judge_id not in judges:
            asked = "several judges" if judge_id is None else f"no {judge_id!r}{nearest(judge_id, judges)}"
            raise RecipeProblem(
                f"judge.model: the store {store} holds {asked if judges else 'no verdicts'}; "
                f"there are: {', '.join(judges) or 'none'}"
            )
        self._judge_id = judge_id
        self.identity = f"replay:{judge_id}"

    def prepare(self, image: np.ndarray) -> str:
        return image_sha(image)

    async def answer(self, picture: str, questions: Sequence[Question]) -> Reply:
        found = self._store.find(picture, self._judge_id, [Asked.of(question) for question in questions])
        return Reply(
            tuple(Answer(v.value, "ok", v.p, v.mass) if v is not None else Answer(None, "error") for v in found)
        )

    async def close(self) -> None:
        self._store.close()
