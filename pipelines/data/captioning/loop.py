"""Many captions at once: pictures are read as they are asked about, each answer is stored before it counts."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from lens_core.runs import RunProblem
from lens_rl.judges.backend import JudgeProblem, Usage
from lens_rl.judges.judge import ATTEMPTS, WORTH_ASKING_AGAIN
from lens_rl.judges.ledger import Ledger
from lens_rl.judges.picture import Picture as Encoded
from lens_rl.judges.slots import Slots
from pipelines.data.captioned import decode_whole
from pipelines.data.captioning.captioner import CaptionModel, Said
from pipelines.data.captioning.pictures import Picture
from pipelines.data.captioning.store import CaptionStore, Stored
from pipelines.data.cleaning.reading import Unreadable
from rubrics.captions import Kind

ERRORS_AT_LEAST = 20
"""Failures before their share is looked at: one of three says nothing yet."""
READERS = 2
"""Threads that read, decode and encode pictures."""
_T = TypeVar("_T")


@dataclass(slots=True)
class Tally:
    """What has become of the pictures so far."""

    pictures: int = 0
    asked: int = 0
    """Captions asked for in this process; those that were stored before are not."""
    failed: Counter[str] = field(default_factory=Counter)
    """Captions that could not be had, by status."""
    last_reason: str = ""
    """Why the last of those could not."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Reason by key."""
    shas: dict[str, str] = field(default_factory=dict)
    """Hash of a picture's bytes by key."""


class CaptionLedger(Ledger):
    """Names the option that raises its budget."""

    def _spent(self, cost: float, budget: float) -> str:
        return (
            f"--model budget_usd: {self.charged:.6g} of {budget:.6g} US dollars are spent, and the next request may "
            f"cost {cost:.6g}. What was written so far is stored. To go on, start the same command with a larger one"
        )


class Captioning:
    """Asks a model for captions of pictures, `concurrency` at once. Used inside one event loop."""

    def __init__(
        self,
        model: CaptionModel,
        store: CaptionStore,
        ledger: Ledger,
        kinds: tuple[Kind, ...],
        *,
        concurrency: int,
        max_error_share: float,
    ):
        self._model, self._store, self._ledger, self._kinds = model, store, ledger, kinds
        self._concurrency, self._max_error_share = concurrency, max_error_share
        self._slots = Slots(concurrency)
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="pictures")
        self._same: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """By picture: one that stands in a source twice is asked about once."""
        self.tally = Tally()

    async def run(self, pictures: Iterator[Picture], report: Callable[[Tally], None]) -> Tally:
        """Caption every picture that has no caption yet.

        Raises JudgeProblem as soon as no later request can succeed, the budget is spent, or too many have failed.
        """
        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(self._concurrency):
                    workers.create_task(self._work(pictures, report))
        except* RunProblem as problems:
            raise problems.exceptions[0] from None
        finally:
            await self._store.soon(lambda: None)  # after all that was waiting to be written
            self._threads.shutdown(cancel_futures=True)
        return self.tally

    async def _work(self, pictures: Iterator[Picture], report: Callable[[Tally], None]) -> None:
        """Take one picture after the other."""
        while (picture := next(pictures, None)) is not None:
            try:
                await self._caption(picture)
            except Unreadable as reason:
                self.tally.unreadable[picture.reference.key] = str(reason)
            self.tally.pictures += 1
            report(self.tally)

    async def _caption(self, picture: Picture) -> None:
        sha, content = picture.sha256, b""
        if not sha:
            sha, content = await self._in_thread(picture.bytes)
        self.tally.shas[picture.reference.key] = sha
        async with self._same[sha]:
            missing: list[Kind] = [kind for kind in self._kinds if not self._has(sha, kind)]
            if not missing:
                return
            if not content:
                found, content = await self._in_thread(picture.bytes)
                if found != sha:
                    raise Unreadable("is not the picture that was cleaned: its bytes have changed")
            encoded = await self._in_thread(lambda: self._model.prepare(decode_whole(content)))
            for kind in missing:
                await self._ask(sha, encoded, kind)

    def _has(self, sha: str, kind: Kind) -> bool:
        known = self._store.caption(sha, self._model.identity, kind)
        return known is not None and known.status == "ok"

    async def _ask(self, sha: str, picture: Encoded, kind: Kind) -> None:
        """Until there is a caption, or the tries are spent; a model is told why its reply was no use."""
        refused, said = "", None
        for _ in range(ATTEMPTS):
            said = await self._request(sha, picture, kind, refused)
            if said.status not in WORTH_ASKING_AGAIN:
                break
            refused = said.reason
        assert said is not None
        self.tally.asked += 1
        if said.status != "ok":
            self.tally.failed[said.status] += 1
            self.tally.last_reason = said.reason
            self._refuse_many_errors()

    async def _request(self, sha: str, picture: Encoded, kind: Kind, refused: str) -> Said:
        """One request: a slot, a row in the ledger, and both settled with what came of it."""
        ticket, throttled = await self._slots.take(), False
        try:
            entry = await self._ledger.open(self._model.worst_case(kind, refused), step=None, questions=1)
            try:
                said = await self._model.ask(picture, kind, refused)
            except JudgeProblem:
                # Turned away (a bad key, no such model, no quota left): nothing was answered and nothing is charged.
                self._store.settle(self._ledger.close(entry, "error", Usage(requests=1)))
                raise
            except BaseException:
                self._store.settle(self._ledger.lose(entry))
                raise
            throttled = said.usage.throttled > 0
            settled = self._ledger.close(entry, said.status, said.usage)
            caption = Stored(said.text, said.status, said.reason)
            await self._store.soon(lambda: self._store.add_caption(sha, self._model.identity, kind, caption, settled))
            return said
        finally:
            self._slots.give_back(ticket, throttled=throttled)

    def _refuse_many_errors(self) -> None:
        failed, asked = self.tally.failed.total(), self.tally.asked
        if failed >= ERRORS_AT_LEAST and failed > self._max_error_share * asked:
            raise too_many(self.tally, self._max_error_share)

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def too_many(tally: Tally, share: float) -> JudgeProblem:
    kinds = ", ".join(f"{count} {status}" for status, count in tally.failed.most_common())
    return JudgeProblem(
        f"{tally.failed.total()} of {tally.asked} captions asked for could not be had ({kinds}; the last: "
        f"{tally.last_reason}), more than --model max_error_share={share}. See to the model, then start the same "
        "command again: what was written is kept"
    )
