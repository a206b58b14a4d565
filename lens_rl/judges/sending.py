"""One request on its way: a free slot, a row in the ledger, the reply and what it took."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lens_core.runs import RunProblem
from lens_rl.judges.backend import Backend, JudgeProblem, Question, Reply, Usage
from lens_rl.judges.ledger import Ledger
from lens_rl.judges.slots import Slots
from lens_rl.judges.store import Settled, VerdictStore

CHECKS = 3
"""Requests, each with its retries, that a `Backend.check` may make."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A reply, its seconds, and its settled row of the ledger, None where the judge is free."""

    reply: Reply
    latency: float
    settled: Settled | None

    @property
    def cost(self) -> float | None:
        """US dollars; None where the price is unknown."""
        return self.settled.cost if self.settled else 0.0


class Sender:
    """At most `concurrency` requests at once; none after a problem that no later request can survive."""

    def __init__(self, backend: Backend, store: VerdictStore, ledger: Ledger | None, *, concurrency: int):
        self._backend, self._store, self._ledger = backend, store, ledger
        self._slots = Slots(concurrency)
        self._problem: RunProblem | None = None

    async def send(self, picture: Any, questions: Sequence[Question], step: int | None) -> Sent:
        """One request. What `Sent.settled` holds is still to be stored, together with the verdicts."""
        ticket, throttled = await self._slots.take(), False
        try:
            if self._problem is not None:
                raise self._problem
            sent = await self._send(picture, questions, step)
            throttled = sent.reply.usage.throttled > 0
            if len(sent.reply.answers) != len(questions):
                raise JudgeProblem(
                    f"judge.backend {self._backend.identity!r} gave {len(sent.reply.answers)} answers to "
                    f"{len(questions)} questions: `answer` must return one for each, in their order"
                )
            return sent
        except RunProblem as problem:
            self._problem = problem
            raise
        finally:
            self._slots.give_back(ticket, throttled=throttled)

    def stop(self) -> None:
        """Send nothing more; what is out already may come back."""
        self._problem = self._problem or JudgeProblem("the judge is closed")

    async def check(self, picture: Any, question: Question) -> Usage:
        """`Backend.check`, with its row in the ledger; where it raises, that row stays charged at its worst case."""
        ledger = self._ledger
        if ledger is None:
            return await self._backend.check(picture, question)
        worst = self._backend.worst_case(picture, [question])
        entry = await ledger.open(sum([worst] * CHECKS, Usage()), step=None, questions=1)
        try:
            usage = await self._backend.check(picture, question)
        except BaseException:
            self._store.settle(ledger.lose(entry))
            raise
        self._store.settle(ledger.close(entry, "ok", usage))
        return usage

    async def _send(self, picture: Any, questions: Sequence[Question], step: int | None) -> Sent:
        ledger = self._ledger
        if ledger is None:
            started = time.perf_counter()
            return Sent(await self._backend.answer(picture, questions), time.perf_counter() - started, None)
        worst = self._backend.worst_case(picture, questions)
        entry = await ledger.open(worst, step=step, questions=len(questions))
        try:
            reply = await self._backend.answer(picture, questions)
        except JudgeProblem:
            # Turned away (a bad key, no such model, no quota left): nothing was answered and nothing is charged.
            self._store.settle(ledger.close(entry, "error", Usage(requests=1)))
            raise
        except BaseException:
            self._store.settle(ledger.lose(entry))
            raise
        status = next((answer.status for answer in reply.answers if answer.status != "ok"), "ok")
        settled = ledger.close(entry, status, reply.usage)
        return Sent(reply, settled.latency, settled)
