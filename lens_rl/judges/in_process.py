"""Judges that run in this process: one worker thread, and whatever is asked while it works goes into its next batch."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lens_core.recipes import RecipeProblem
from lens_core.records import Criterion
from lens_rl.judges import labels
from lens_rl.judges.backend import Answer, Backend, Capabilities, JudgeProblem, Question, Reply, Usage
from lens_rl.judges.profiles import model_name, profile_of
from lens_rl.recipe import Judge

Job = tuple[Any, Question]
"""A prepared picture, and a question about it."""


class InProcessBackend(Backend):
    """Subclasses load a model and answer batches of jobs, in the worker thread.

    Raises RecipeProblem for what the recipe asks and such a judge does not have.
    """

    model = None  # answers cost nothing

    def __init__(self, judge: Judge, *, batch_size: int, questions_per_request: int):
        for field, value in (("base_url", judge.base_url), ("reasoning_effort", judge.reasoning_effort)):
            if value is not None:
                raise RecipeProblem(f"judge.{field}: {judge.backend} runs in this process and has none; leave it out")
        if judge.request == "per_image":
            raise RecipeProblem(
                f"judge.request: {judge.backend} reads one label a question; leave it at per_criterion, which costs a "
                "judge in process no more"
            )
        self.profile = profile_of(judge)
        self.name = model_name(judge)
        side = judge.longest_side or self.profile.image.longest_side
        self.capabilities = Capabilities(
            questions_per_request=questions_per_request, probabilities=True, label_mass=True, longest_side=side
        )
        self.identity = f"{judge.backend}:{self.name}:side{side}"
        self._batcher = Batcher(self.answer_batch, batch_size)

    def answer_batch(self, jobs: Sequence[Job]) -> Sequence[tuple[Answer, int]]:
        """An answer a job, and the tokens it took."""
        raise NotImplementedError

    def cannot_read(self, criterion: Criterion) -> str | None:
        return None if criterion.text.strip() else "its text is empty"

    async def answer(self, picture: Any, questions: Sequence[Question]) -> Reply:
        answered = await asyncio.gather(*(self._batcher.put((picture, question)) for question in questions))
        return Reply(
            tuple(answer for answer, _ in answered), Usage(1, input_tokens=sum(tokens for _, tokens in answered))
        )

    async def check(self, picture: Any, question: Question) -> Usage:
        ((answer, tokens),) = await asyncio.gather(self._batcher.put((picture, question)))
        if answer.value is None:
            raise JudgeProblem(
                f"judge.model: {self.name} puts {answer.mass or 0:.1%} of its probability on 1 and 0 together, less "
                f"than {labels.MIN_LABEL_MASS:.0%}: it does not answer as it was asked; take another model or template"
            )
        return Usage(1, input_tokens=tokens)

    async def close(self) -> None:
        self._batcher.close()


class Batcher:
    """Gathers jobs from an event loop into batches for one thread, in the order in which they came."""

    def __init__(self, answer: Callable[[Sequence[Job]], Sequence[Any]], batch_size: int):
        self._answer, self._size = answer, batch_size
        self._waiting: list[tuple[Job, asyncio.Future[Any]]] = []
        self._busy = False
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="judge-model")

    async def put(self, job: Job) -> Any:
        """The job's result, or what its batch raised."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        with self._lock:
            self._waiting.append((job, future))
            if not self._busy:
                self._busy = True
                self._thread.submit(self._work)
        return await future

    def close(self) -> None:
        """Forget what waits; what runs is waited for."""
        with self._lock:
            self._waiting.clear()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _work(self) -> None:
        while True:
            with self._lock:
                batch, self._waiting = self._waiting[: self._size], self._waiting[self._size :]
                if not batch:
                    self._busy = False
                    return
            try:
                outcomes: Sequence[Any] = self._answer([job for job, _ in batch])
            except Exception as error:
                outcomes = [error] * len(batch)
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                future.get_loop().call_soon_threadsafe(_settle, future, outcome)


def _settle(future: "asyncio.Future[Any]", outcome: Any) -> None:
    if future.done():
        return  # nobody waits any more
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
