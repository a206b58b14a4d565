"""The embedded judge: a program that decides each criterion's `check` from the pixels alone."""

from collections.abc import Sequence

import numpy as np

from lens_core.records import Criterion
from lens_rl.judges.backend import Answer, Question
from lens_rl.shapes import judge as eyes


class ShapesBackend:
    identity = "shapes-1"
    """Raise the number whenever `lens_rl/shapes/judge.py` answers differently: old verdicts are then not reused."""

    def cannot_read(self, criterion: Criterion) -> str | None:
        if criterion.check is None:
            return "it has no `check`, and the shapes judge reads nothing else"
        return eyes.can_read(criterion.check)

    async def answer(self, image: np.ndarray, questions: Sequence[Question]) -> list[Answer]:
        seen = eyes.look(image)
        return [Answer(int(eyes.holds(question.criterion.check or {}, seen)), cost=0.0) for question in questions]

    async def close(self) -> None:
        """Nothing is open."""
