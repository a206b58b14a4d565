"""What one judge's requests cost: charged at their worst before they are sent, settled when they are back.

Charged plus worst case is never more than the budget, so the budget is never passed, whatever comes back, whatever
never comes back, and whenever the process is killed. Needs a backend whose `worst_case` is one.
"""

import asyncio
import time
from dataclasses import dataclass

from lens_rl.judges.backend import JudgeProblem, Usage
from lens_rl.judges.prices import cost_of, least_cost_of, worst_cost_of
from lens_rl.judges.store import Settled, VerdictStore
from lens_rl.recipe import Price


@dataclass(frozen=True, slots=True)
class Entry:
    """One request in the ledger, in flight. `cost` is its worst case, `started` on the monotonic clock."""

    row: int
    worst: Usage
    cost: float
    started: float


class Ledger:
    """Used inside the judge's event loop. Free judges have none: no request of theirs takes time for a row.

    `price=None`: unknown. The requests are counted then, and their cost is unknown too; such a ledger keeps no budget.
    """

    def __init__(self, store: VerdictStore, judge_id: str, price: Price | None, budget_usd: float | None):
        assert price is not None or budget_usd is None, "see prices.refuse_unpriced"
        self.store, self._judge_id, self._price, self._budget = store, judge_id, price, budget_usd
        store.give_up_open(judge_id)
        self._charged = store.cost(judge_id) or 0.0
        self._in_flight = 0
        self._change = asyncio.Event()
        self._margin = 1.0

    @property
    def charged(self) -> float:
        """US dollars: what was settled, and the worst case of what is in flight or was lost."""
        return self._charged

    async def open(self, worst: Usage, *, step: int | None, questions: int) -> Entry:
        """Charge a request's worst case before it is sent; waits while only what is in flight keeps it unpayable.

        Raises JudgeProblem where the budget cannot pay for it at all.
        """
        cost = 0.0 if self._price is None else self._margin * worst_cost_of(worst, self._price)
        while self._budget is not None and self._charged + cost > self._budget:
            if not self._in_flight:
                raise JudgeProblem(self._spent(cost, self._budget))
            self._change.clear()
            await self._change.wait()
        known = None if self._price is None else cost
        self._charged += cost  # before anything is waited for, so that others see it
        self._in_flight += 1
        row = await self.store.soon(
            lambda: self.store.open_request(
                self._judge_id, step=step, questions=questions, tries=worst.requests, cost=known
            )
        )
        return Entry(row, worst, cost, time.perf_counter())

    def close(self, entry: Entry, status: str, usage: Usage) -> Settled:
        """What an entry comes to, for the store to write with its verdicts."""
        cost = 0.0 if self._price is None else cost_of(usage, self._price) + self._unreported(entry, usage)
        if cost > entry.cost > 0:
            self._margin *= cost / entry.cost  # the backend's worst case was none: trust it less from here on
        self._release(cost - entry.cost)
        return self._settled_as(entry, status, usage, cost)

    def lose(self, entry: Entry) -> Settled:
        """The same for a request that was given up in flight: it stays charged at its worst case."""
        self._release(0.0)
        tries = entry.worst.requests
        return self._settled_as(entry, "lost", Usage(tries, unreported=tries), entry.cost)

    def _unreported(self, entry: Entry, usage: Usage) -> float:
        """Tries that nobody reported, each at the worst case of one."""
        return entry.cost * usage.unreported / max(entry.worst.requests, 1)

    def _settled_as(self, entry: Entry, status: str, usage: Usage, cost: float) -> Settled:
        latency = time.perf_counter() - entry.started
        return Settled(entry.row, status, usage, latency, None if self._price is None else cost)

    def _release(self, change: float) -> None:
        self._charged += change
        self._in_flight -= 1
        self._change.set()

    def refuse_short(self, sample: Usage, *, times: float, what: str) -> None:
        """Refuse a budget that cannot pay for `times` requests like `sample`, even with all their input in a cache.

        Of several tries `sample` counts as their mean, so that what it says is a lower bound.
        """
        if self._budget is None or self._price is None:
            return
        least = times * least_cost_of(sample, self._price) / max(sample.requests, 1)
        if self._charged + least > self._budget:
            raise JudgeProblem(
                f"judge.budget_usd: {self._budget:.6g} US dollars do not pay for {what}, which costs at least "
                f"{least:.6g}: set a larger one, or ask for less (prompts.per_step, rollout.images_per_prompt)"
            )

    def _spent(self, cost: float, budget: float) -> str:
        return (
            f"judge.budget_usd: {self._charged:.6g} of {budget:.6g} US dollars are spent, and the next request may "
            f"cost {cost:.6g}. The verdicts so far are stored. To go on, start the same command again with a larger "
            "--set judge.budget_usd=..."
        )
