"""Writes of many requests, committed together by a thread of its own.

A commit waits for the disk, and a judge commits twice a request. Made one by one inside the event loop they would hold
up every other request; so they queue here, all that wait go into one transaction, and each caller goes on when its own
is on disk.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Written = TypeVar("Written")


class Commits:
    """Used inside one event loop. Writes are committed in the order in which they came."""

    def __init__(self, together: Callable[[list[Callable[[], Any]]], list[Any]]):
        """`together` makes all of a list of writes in one transaction, and gives what each gives."""
        self._together = together
        self._waiting: list[tuple[Callable[[], Any], asyncio.Future[Any]]] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="verdict store")
        self.task: asyncio.Task[None] | None = None
        """What commits, while there is something to commit. Cancelled, it would leave writes undone."""

    async def __call__(self, write: Callable[[], Written]) -> Written:
        """What `write` gives, once it is on disk. Raises what `together` raises, for all that were part of it."""
        done: asyncio.Future[Written] = asyncio.get_running_loop().create_future()
        self._waiting.append((write, done))
        if self.task is None:
            self.task = asyncio.create_task(self._drain())
        return await done

    def close(self) -> None:
        """Wait for the commit under way."""
        self._thread.shutdown()

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                writes = [write for write, _ in batch]
                try:
                    results = await loop.run_in_executor(self._thread, self._together, writes)
                except Exception as problem:
                    for _, done in batch:
                        if not done.done():
                            done.set_exception(problem)
                    continue
                for (_, done), result in zip(batch, results, strict=True):
                    if not done.done():  # else whoever asked was cancelled, and the write is on disk all the same
                        done.set_result(result)
        finally:
            self.task = None
