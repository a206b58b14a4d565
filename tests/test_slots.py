"""Slots: never more out than allowed, half after a 429 and once only, and back up while all goes well."""

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lens_rl.judges.slots import Slots


def test_a_burst_of_429s_halves_once_and_good_rounds_win_it_back():
    async def run() -> list[int]:
        slots, limits = Slots(16), []
        out = [await slots.take() for _ in range(16)]
        for ticket in out:  # all of them left before the endpoint said that it was too many
            slots.give_back(ticket, throttled=True)
        limits.append(slots.limit)
        for _ in range(8):
            slots.give_back(await slots.take())
        limits.append(slots.limit)
        slots.give_back(await slots.take(), throttled=True)
        limits.append(slots.limit)
        for _ in range(4 + 5 + 6):
            slots.give_back(await slots.take())
        return [*limits, slots.limit]

    assert asyncio.run(run()) == [8, 9, 4, 7]


def test_without_429s_nothing_changes_and_one_slot_is_always_left():
    async def run() -> tuple[int, int]:
        calm, throttled = Slots(3), Slots(3)
        for _ in range(50):
            calm.give_back(await calm.take())
            throttled.give_back(await throttled.take(), throttled=True)
        return calm.limit, throttled.limit

    assert asyncio.run(run()) == (3, 1)


@given(most=st.integers(1, 12), capacity=st.integers(1, 12), leave=st.floats(0, 0.3), seed=st.integers(0, 10**6))
def test_all_get_through_and_none_above_the_limit(most, capacity, leave, seed):
    """An endpoint throttles whoever comes when it is full, and some callers leave while they wait or are out."""
    dice = random.Random(seed)

    async def request(slots: Slots, out: set[int]) -> None:
        ticket = await slots.take()
        out.add(ticket)
        assert len(out) <= most
        throttled = len(out) > capacity
        try:
            for _ in range(dice.randint(1, 5)):
                await asyncio.sleep(0)
        finally:
            out.remove(ticket)
            slots.give_back(ticket, throttled=throttled)

    async def run() -> None:
        slots, out = Slots(most), set()
        requests = [asyncio.create_task(request(slots, out)) for _ in range(60)]
        for one in requests:
            await asyncio.sleep(0)
            if dice.random() < leave:
                one.cancel()
        ended = await asyncio.gather(*requests, return_exceptions=True)
        assert all(end is None or isinstance(end, asyncio.CancelledError) for end in ended)
        for _ in range(slots.limit):
            await asyncio.wait_for(slots.take(), 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(slots.take(), 0.001)

    asyncio.run(run())
