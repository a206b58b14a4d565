"""Questions whose answers say something about the judge and not about the picture.

A probe is either another question (a prompt that belongs to another picture, a criterion turned into its negation) or
the same question asked in another way. The latter are backends around a backend, with an identity of their own: so
they go through the same `RubricJudge`, are kept in the same store, charged to the same budget, and never mistaken for
an answer that counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lens_core.records import Criterion, Prompt
from lens_rl.judges.backend import Backend, Question, Reply, Usage


def shuffled(prompts: Sequence[Prompt]) -> list[Prompt]:
    """For each picture the prompt of another one, as far away in the list as can be, with another text if there is one.

    What is said to hold on them is what a judge says yes to anyway, besides what pictures have in common.
    """
    count = len(prompts)
    return [
        next(
            (
                other
                for step in range(count)
                if (other := prompts[(place + count // 2 + step) % count]).text != prompts[place].text
            ),
            prompts[place],
        )
        for place in range(count)
    ]


def negated(prompt: Prompt) -> Prompt:
    """The same prompt with every criterion turned into its contrary."""
    return replace(prompt, criteria=tuple(negation(criterion) for criterion in prompt.criteria))


def negation(criterion: Criterion) -> Criterion:
    """A criterion that holds exactly where the given one does not."""
    return Criterion(
        name=f"not {criterion.name}",
        text=f"The following statement is false: {criterion.text}",
        kind=criterion.kind,
        check=None if criterion.check is None else {"kind": "not", "check": dict(criterion.check)},
    )


class Probe(Backend):
    """A judge asked the same once more, under another name: what differs is noise."""

    name = "repeat"

    def __init__(self, backend: Backend):
        self._backend = backend
        self.identity = f"{backend.identity}:{self.name}"
        self.model, self.capabilities = backend.model, backend.capabilities

    def cannot_read(self, criterion: Criterion) -> str | None:
        return self._backend.cannot_read(criterion)

    async def check(self, picture: Any, question: Question) -> Usage:
        return await self._backend.check(picture, question)

    def prepare(self, image: np.ndarray) -> Any:
        return self._backend.prepare(image)

    async def answer(self, picture: Any, questions: Sequence[Question]) -> Reply:
        return await self._backend.answer(picture, questions)

    def request(self, picture: Any, questions: Sequence[Question]) -> Mapping[str, Any] | None:
        return self._backend.request(picture, questions)

    def worst_case(self, picture: Any, questions: Sequence[Question]) -> Usage:
        return self._backend.worst_case(picture, questions)

    async def close(self) -> None:
        await self._backend.close()


class Reversed(Probe):
    """The criteria of a request in the opposite order."""

    name = "reversed"

    async def answer(self, picture: Any, questions: Sequence[Question]) -> Reply:
        reply = await self._backend.answer(picture, questions[::-1])
        return Reply(reply.answers[::-1], reply.usage)


class OneByOne(Probe):
    """A request for each criterion, so that no answer can colour another."""

    name = "one by one"

    def __init__(self, backend: Backend):
        super().__init__(backend)
        self.capabilities = replace(backend.capabilities, questions_per_request=1)
