"""The rubric judge: renders the questions, looks into the store, asks the backend, writes the store.

It owns one event loop in a thread of its own, so judging goes on while pictures are being made.
"""

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
from tenacity import AsyncRetrying, retry_if_result, stop_after_attempt

from lens_core.records import Criterion, Prompt, Verdict
from lens_rl.judges.backend import Backend, JudgeProblem, Question, Reply
from lens_rl.judges.store import VerdictStore, image_sha
from rubrics.rubric import Rubric

ATTEMPTS = 2
"""Tries in all where answers come that cannot be used."""


class RubricJudge:
    """`submit` an image of a prompt, get a future of one verdict a criterion, in their order."""

    def __init__(self, backend: Backend, rubric: Rubric, store: VerdictStore, *, concurrency: int):
        self.backend, self._rubric, self._store = backend, rubric, store
        self.judge_id = f"{backend.identity}+{rubric.template_hash[:12]}"
        self._slots = asyncio.Semaphore(concurrency)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="judge", daemon=True)
        self._thread.start()

    def submit(self, prompt: Prompt, image: np.ndarray) -> "Future[tuple[Verdict, ...]]":
        return asyncio.run_coroutine_threadsafe(self._judge(prompt, image), self._loop)

    def cost(self) -> float | None:
        """US dollars spent in this run so far, restarts included; None where a price is unknown."""
        return asyncio.run_coroutine_threadsafe(self._cost(), self._loop).result()

    def close(self) -> None:
        """Drop what is in flight and end the thread."""

        async def wind_up() -> None:
            others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await self.backend.close()

        asyncio.run_coroutine_threadsafe(wind_up(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._store.close()

    async def _cost(self) -> float | None:
        return self._store.cost()

    async def _judge(self, prompt: Prompt, image: np.ndarray) -> tuple[Verdict, ...]:
        sha = image_sha(image)
        questions = [self._question(prompt, criterion) for criterion in prompt.criteria]
        known = self._store.find(sha, self.judge_id, questions)
        open_questions = [question for question, verdict in zip(questions, known, strict=True) if verdict is None]
        if open_questions:
            picture = self.backend.prepare(image)
            size = self.backend.capabilities.questions_per_request
            requests = [open_questions[start : start + size] for start in range(0, len(open_questions), size)]
            answered = await asyncio.gather(*(self._ask(prompt, sha, picture, some) for some in requests))
            fresh = iter(verdict for verdicts in answered for verdict in verdicts)
            known = [verdict or next(fresh) for verdict in known]
        return tuple(verdict for verdict in known if verdict is not None)

    async def _ask(self, prompt: Prompt, sha: str, picture: Any, questions: Sequence[Question]) -> list[Verdict]:
        """One request, tried again where an answer came that cannot be used; its verdicts are stored."""
        async with self._slots:
            started = time.perf_counter()
            reply = await self._usable(picture, questions)
            latency = time.perf_counter() - started
        cost = None if self.backend.model else 0.0
        verdicts = [
            Verdict(
                criterion=question.criterion.name,
                image_sha=sha,
                judge_id=self.judge_id,
                value=answer.value,
                status=answer.status,
                p=answer.p,
                mass=answer.mass,
                latency=latency,
                tokens=reply.usage.tokens // len(questions),
                cost=cost,
            )
            for question, answer in zip(questions, reply.answers, strict=True)
        ]
        self._store.add(prompt.id, zip(questions, verdicts, strict=True))
        return verdicts

    async def _usable(self, picture: Any, questions: Sequence[Question]) -> Reply:
        retrying = AsyncRetrying(
            stop=stop_after_attempt(ATTEMPTS),
            retry=retry_if_result(lambda reply: any(a.status in ("invalid", "refusal") for a in reply.answers)),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )
        return await retrying(self.backend.answer, picture, questions)

    def _question(self, prompt: Prompt, criterion: Criterion) -> Question:
        system, user = self._rubric.messages(prompt.text, criterion)
        return Question(criterion, system, user)


def refuse_unreadable(backend: Backend, prompts: Sequence[Prompt]) -> None:
    """Raise JudgeProblem for prompts that this backend could never answer, before any work is done."""
    for prompt in prompts:
        if not prompt.criteria:
            raise JudgeProblem(f"prompt {prompt.id!r} has no criteria: {prompt.text!r}")
        for criterion in prompt.criteria:
            if reason := backend.cannot_read(criterion):
                raise JudgeProblem(
                    f"judge.backend cannot read criterion {criterion.name!r} of prompt {prompt.id!r}: {reason}"
                )
