"""The rubric judge: renders the questions, looks into the store, asks the backend, writes store and ledger.

It owns one event loop in a thread of its own, so judging goes on while pictures are being made.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from tenacity import AsyncRetrying, retry_if_result, stop_after_attempt

from lens_core.records import Criterion, Prompt, Verdict
from lens_rl.judges.backend import Backend, JudgeProblem, Question
from lens_rl.judges.ledger import Ledger
from lens_rl.judges.prices import price_of, refuse_unpriced
from lens_rl.judges.sending import Sender
from lens_rl.judges.store import Asked, VerdictStore, image_sha
from lens_rl.recipe import Price
from rubrics.rubric import Rubric

ATTEMPTS = 3
"""Tries in all where answers come that cannot be used: where one in seven is such, two would leave 2 % errors."""
WORTH_ASKING_AGAIN = ("invalid", "refusal")
GRACE_SECONDS = 10.0
"""For requests in flight when the judge is closed: they are paid for already."""
PROMPTS_REMEMBERED = 512

Pending = tuple[Prompt, "Future[tuple[Verdict, ...]]"]
_T = TypeVar("_T")


@dataclass(slots=True)
class _Subject:
    """A picture and those of its questions that share a request: what is open, and what has come back."""

    prompt_id: str
    image_sha: str
    step: int | None
    picture: Any
    open: list[Asked]
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    """By the question's key in the store."""


class RubricJudge:
    """`submit` an image of a prompt, get a future of one verdict a criterion, in their order.

    `step` is written beside whatever is submitted from then on: the training step, None outside of all steps. A judge
    whose backend names no model is free and has no ledger. Raises RecipeProblem for a budget without a known price.
    """

    def __init__(
        self,
        backend: Backend,
        rubric: Rubric,
        store: VerdictStore,
        *,
        concurrency: int,
        max_error_share: float = 1.0,
        budget_usd: float | None = None,
        price: Price | None = None,
    ):
        refuse_unpriced(backend.model, price, budget_usd)
        self.backend, self._rubric, self._store = backend, rubric, store
        self.judge_id = f"{backend.identity}+{rubric.template_hash[:12]}"
        self.step: int | None = None
        self._max_error_share = max_error_share
        price = price_of(backend.model, price)
        self._ledger = Ledger(store, self.judge_id, price, budget_usd) if backend.model else None
        self._sender = Sender(backend, store, self._ledger, concurrency=concurrency)
        self._rendered: dict[int, tuple[Prompt, list[Asked]]] = {}
        # Hashing and encoding take milliseconds a picture, in which the event loop would answer to nobody. One thread:
        # more would take the processor from whoever makes the next pictures.
        self._pictures = ThreadPoolExecutor(1, thread_name_prefix="pictures")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="judge", daemon=True)
        self._thread.start()

    def submit(self, prompt: Prompt, image: np.ndarray) -> "Future[tuple[Verdict, ...]]":
        """Its future raises RunProblem where this or an earlier question found out that no later one can succeed."""
        return self._later(self._judge(prompt, image, self.step))

    def collect(self, pending: Sequence[Pending], what: str) -> list[tuple[Verdict, ...]]:
        """Wait for the verdicts of each image; in the order given, whatever order they come in.

        Raises JudgeProblem as soon as more of them are errors than the recipe allows; `what` says there whose.
        """
        total = sum(len(prompt.criteria) for prompt, _ in pending)
        errors: Counter[str] = Counter()
        for future in as_completed([future for _, future in pending]):
            errors.update(verdict.status for verdict in future.result() if verdict.value is None)
            if errors.total() > self._max_error_share * total:
                kinds = ", ".join(f"{count} {status}" for status, count in errors.most_common())
                raise JudgeProblem(
                    f"paused: {errors.total()} of the {total} verdicts of {what} are errors so far ({kinds}), more "
                    f"than judge.max_error_share {self._max_error_share}. See to the judge, then start the same "
                    "command again: stored verdicts are not asked again"
                )
        return [future.result() for _, future in pending]

    def rehearse(self, prompt: Prompt, image: np.ndarray, *, images: int) -> None:
        """Let the backend look before the work: a bad key or model is found out here.

        Only its row in the ledger is kept. Raises JudgeProblem for what it finds, and, where nothing has been judged
        yet, for a budget that cannot pay for the `images` of one step.
        """
        self._later(self._rehearse(prompt, image, images)).result()

    def cost(self) -> float | None:
        """US dollars of every request in the store's file, so of the whole run; None where a price is unknown."""

        async def read() -> float | None:
            return self._store.cost()

        return self._later(read()).result()

    def close(self) -> None:
        """Keep what comes back within a few seconds, charge the rest at its worst case, and end the thread."""

        async def wind_up() -> None:
            self._sender.stop()
            others = asyncio.all_tasks() - {asyncio.current_task(), self._store.soon.task}
            late = (await asyncio.wait(others, timeout=GRACE_SECONDS))[1] if others else ()
            for task in late:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await self._store.soon(lambda: None)  # after all that was waiting to be written
            await self.backend.close()

        self._later(wind_up()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._pictures.shutdown(cancel_futures=True)
        self._store.close()

    def _later(self, work: Coroutine[Any, Any, _T]) -> "Future[_T]":
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _judge(self, prompt: Prompt, image: np.ndarray, step: int | None) -> tuple[Verdict, ...]:
        asked, in_thread = self._asked(prompt), asyncio.get_running_loop().run_in_executor
        sha = await in_thread(self._pictures, image_sha, image)
        known = self._store.find(sha, self.judge_id, asked)
        missing = [one for one, verdict in zip(asked, known, strict=True) if verdict is None]
        if missing:
            picture = await in_thread(self._pictures, self.backend.prepare, image)
            size = self.backend.capabilities.questions_per_request
            parts = [missing[start : start + size] for start in range(0, len(missing), size)]
            subjects = [_Subject(prompt.id, sha, step, picture, part) for part in parts]
            await asyncio.gather(*(self._ask(subject) for subject in subjects))
            fresh = {key: verdict for subject in subjects for key, verdict in subject.verdicts.items()}
            known = [verdict or fresh[one.sha] for one, verdict in zip(asked, known, strict=True)]
        return tuple(verdict for verdict in known if verdict is not None)

    def _asked(self, prompt: Prompt) -> list[Asked]:
        """The prompt's questions, rendered once for all the images of its group."""
        if id(prompt) not in self._rendered:
            if len(self._rendered) >= PROMPTS_REMEMBERED:
                self._rendered.clear()
            asked = [Asked.of(self._question(prompt, criterion)) for criterion in prompt.criteria]
            self._rendered[id(prompt)] = prompt, asked  # the prompt too: while it lives, no other one has its id
        return self._rendered[id(prompt)][1]

    def _question(self, prompt: Prompt, criterion: Criterion) -> Question:
        system, user = self._rubric.messages(prompt.text, criterion)
        return Question(criterion, system, user)

    async def _ask(self, subject: _Subject) -> None:
        """Ask until each question has an answer that can be used, or the tries are spent."""
        retrying = AsyncRetrying(
            stop=stop_after_attempt(ATTEMPTS), retry=retry_if_result(bool), retry_error_callback=lambda _: None
        )
        await retrying(self._request, subject)

    async def _request(self, subject: _Subject) -> list[Asked]:
        """One request for what is open; what comes of it is stored. Gives what is worth asking again."""
        asked = subject.open
        sent = await self._sender.send(subject.picture, [one.question for one in asked], subject.step)
        verdicts = [
            Verdict(
                criterion=one.question.criterion.name,
                image_sha=subject.image_sha,
                judge_id=self.judge_id,
                value=answer.value,
                status=answer.status,
                p=answer.p,
                mass=answer.mass,
                latency=sent.latency,
                tokens=sent.reply.usage.tokens // len(asked),
                cost=None if sent.cost is None else sent.cost / len(asked),
            )
            for one, answer in zip(asked, sent.reply.answers, strict=True)
        ]
        judged = list(zip(asked, verdicts, strict=True))
        await self._store.soon(
            lambda: self._store.add(subject.prompt_id, judged, step=subject.step, settled=sent.settled)
        )
        subject.verdicts |= {one.sha: verdict for one, verdict in judged}
        subject.open = [one for one, verdict in judged if verdict.status in WORTH_ASKING_AGAIN]
        return subject.open

    async def _rehearse(self, prompt: Prompt, image: np.ndarray, images: int) -> None:
        asked = self._asked(prompt)
        usage = await self._sender.check(self.backend.prepare(image), asked[0].question)
        if self._ledger is not None and not self._store.has_verdicts(self.judge_id):
            requests = images * -(-len(asked) // self.backend.capabilities.questions_per_request)
            self._ledger.refuse_short(usage, times=requests, what=f"one step of {images} images in {requests} requests")


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
