"""Writes that wait for the disk together: in order, all or none, and each caller told of its own."""

import asyncio
import sqlite3
import threading
import time

import pytest

from lens_core.runs import RunProblem
from lens_rl.judges.commits import Commits
from lens_rl.judges.store import VerdictStore


def test_what_waits_is_written_together_and_in_order():
    batches = []

    def together(writes):
        time.sleep(0.02)  # a disk that takes its time
        batches.append(len(writes))
        return [write() for write in writes]

    order = []

    async def run():
        commits = Commits(together)

        async def one(number):
            return await commits(lambda: order.append(number) or number)

        try:
            return await asyncio.gather(*(one(number) for number in range(50)))
        finally:
            commits.close()

    assert asyncio.run(run()) == list(range(50)) == order
    assert len(batches) <= 2 and sum(batches) == 50


def test_a_slow_disk_does_not_hold_up_the_event_loop():
    """The loop goes on while a commit waits: that is what the thread is for."""
    let_go = threading.Event()

    async def run():
        commits = Commits(lambda writes: (let_go.wait(5), [write() for write in writes])[1])
        try:
            written = asyncio.create_task(commits(lambda: "on disk"))
            for _ in range(3):
                await asyncio.sleep(0.01)
            assert not written.done()
            let_go.set()
            return await written
        finally:
            commits.close()

    assert asyncio.run(run()) == "on disk"


def test_rows_are_on_disk_when_the_caller_goes_on(tmp_path):
    store = VerdictStore(tmp_path / "v.sqlite")

    async def run():
        async def one(number):
            row = await store.soon(lambda: store.open_request("j", step=None, questions=1, tries=number, cost=None))
            with sqlite3.connect(tmp_path / "v.sqlite") as other:
                return other.execute("SELECT tries FROM requests WHERE id=?", (row,)).fetchone()[0]

        return await asyncio.gather(*(one(number) for number in range(40)))

    assert asyncio.run(run()) == list(range(40))
    store.close()


def test_a_write_that_fails_takes_its_transaction_with_it_and_later_ones_succeed(tmp_path):
    store = VerdictStore(tmp_path / "v.sqlite")

    def opened():
        return store.open_request("j", step=None, questions=1, tries=1, cost=None)

    def fails():
        raise sqlite3.OperationalError("database or disk is full")

    async def run():
        first = await asyncio.gather(store.soon(opened), store.soon(fails), store.soon(opened), return_exceptions=True)
        return first, await store.soon(opened)

    first, later = asyncio.run(run())
    assert all(isinstance(problem, RunProblem) and "free some space" in str(problem) for problem in first)
    assert store.rows("SELECT id FROM requests") == [(later,)]
    store.close()


def test_who_is_cancelled_while_waiting_loses_nothing(tmp_path):
    store = VerdictStore(tmp_path / "v.sqlite")

    async def run():
        settle = store.soon(lambda: store.open_request("j", step=None, questions=1, tries=1, cost=None))
        waiting = asyncio.create_task(settle)
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await store.soon(lambda: None)

    asyncio.run(run())
    assert len(store.rows("SELECT id FROM requests")) == 1
    store.close()
