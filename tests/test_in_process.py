"""Batches of a judge in process: what waits is answered together, in order, and an error reaches all who asked."""

import asyncio
import threading
import time

import pytest

from lens_rl.judges.in_process import Batcher


def run(work, answer, batch_size=4):
    async def main():
        batcher = Batcher(answer, batch_size)
        try:
            return await work(batcher)
        finally:
            batcher.close()

    return asyncio.run(main())


def test_what_comes_while_it_works_goes_into_the_next_batches_in_order():
    seen = []

    def answer(jobs):
        seen.append(list(jobs))
        time.sleep(0.05)
        return [job * 10 for job in jobs]

    results = run(lambda batcher: asyncio.gather(*(batcher.put(n) for n in range(10))), answer)
    assert results == [n * 10 for n in range(10)]
    assert [job for batch in seen for job in batch] == list(range(10))
    assert max(map(len, seen)) == 4 and len(seen) <= 4


def test_an_error_reaches_all_of_its_batch_and_nobody_else():
    def answer(jobs):
        if 1 in jobs:
            raise ValueError("bad batch")
        return jobs

    async def work(batcher):
        together = await asyncio.gather(batcher.put(1), return_exceptions=True)
        return together, await batcher.put(2)

    (first,), second = run(work, answer)
    assert isinstance(first, ValueError) and second == 2


def test_a_job_that_nobody_waits_for_any_more_disturbs_nobody():
    release = threading.Event()

    def answer(jobs):
        release.wait(5)
        return jobs

    async def work(batcher):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(batcher.put(1), 0.05)
        release.set()
        return await batcher.put(2)

    assert run(work, answer) == 2
