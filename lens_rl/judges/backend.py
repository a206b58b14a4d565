"""What stands between the rubric judge and whoever answers: an image and questions in, answers out.

A backend renders no template and keeps nothing; `RubricJudge` does both for all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from lens_core.records import Criterion
from lens_core.runs import RunProblem

Status = Literal["ok", "refusal", "invalid", "timeout", "error"]


class JudgeProblem(RunProblem):
    """The judge cannot be used at all: says which recipe field to change. Never a verdict."""


@dataclass(frozen=True, slots=True)
class Question:
    """One criterion, with the texts to send to a language model."""

    criterion: Criterion
    system: str
    user: str


@dataclass(frozen=True, slots=True)
class Answer:
    """1, 0 or None; None exactly when `status` is not "ok". Fields as in `lens_core.records.Verdict`."""

    value: int | None
    status: Status = "ok"
    p: float | None = None
    mass: float | None = None
    tokens: int = 0
    cost: float | None = None


class Backend(Protocol):
    """One way to ask. Built by `lens_rl.judges.open_backend` from the recipe's `judge` section."""

    identity: str
    """Model and everything else, apart from the templates, that an answer depends on."""

    def cannot_read(self, criterion: Criterion) -> str | None:
        """Why this backend could never answer that criterion, or None."""
        ...

    async def answer(self, image: np.ndarray, questions: Sequence[Question]) -> list[Answer]:
        """An answer a question, in order. `image` is uint8 RGB, (height, width, 3).

        A question that could not be answered is an `Answer` with its status; JudgeProblem is for
        what no later question will survive either, such as a rejected key.
        """
        ...

    async def close(self) -> None: ...
