"""The embedded judge: a program that decides each criterion's `check` from the pixels alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lens_core.records import Criterion
from lens_rl.judges.backend import Answer, Backend, Question, Reply
from lens_rl.shapes import judge as eyes


class ShapesBackend(Backend):
    identity = "shapes-2"
    """Raise the number whenever `lens_rl/shapes/judge.py` answers differently: old verdicts are then not reused."""

    def cannot_read(self, criterion: Criterion) -> str | None:
        if criterion.check is None:
            return "it has no `check`, and the shapes judge reads nothing else"
        return eyes.can_read(_without_not(criterion.check)[0])

    def prepare(self, image: np.ndarray) -> eyes.Seen:
        return eyes.look(image)

    async def answer(self, picture: eyes.Seen, questions: Sequence[Question]) -> Reply:
        return Reply(tuple(_decide(question.criterion.check or {}, picture) for question in questions))


def _decide(check: Mapping[str, Any], picture: eyes.Seen) -> Answer:
    inner, holds = _without_not(check)
    return Answer(int(eyes.holds(inner, picture) == holds))


def _without_not(check: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    """The check inside a `{kind: not, check: ...}`, and whether it must hold or fail."""
    inner = check.get("check")
    return (inner, False) if check.get("kind") == "not" and isinstance(inner, Mapping) else (check, True)
