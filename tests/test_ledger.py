"""Money: prices in closed form, and a budget that nothing passes."""

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lens_core.recipes import RecipeProblem
from lens_rl.judges.backend import JudgeProblem, Usage
from lens_rl.judges.ledger import Ledger
from lens_rl.judges.prices import cost_of, least_cost_of, listed, price_of, refuse_unpriced, worst_cost_of
from lens_rl.judges.store import VerdictStore
from lens_rl.recipe import Price

PRICE = Price(input=10.0, cached=1.0, cache_write=12.5, output=40.0)
WORST = Usage(3, input_tokens=3000, output_tokens=300)
WORST_COST = (3000 * 12.5 + 300 * 40.0) / 1e6

tokens = st.integers(0, 10_000)
usages = st.builds(Usage, st.integers(1, 6), tokens, tokens, tokens, tokens)


def test_a_request_costs_what_its_tokens_cost():
    usage = Usage(2, input_tokens=1000, cached_tokens=500, cache_write_tokens=200, output_tokens=10)
    assert cost_of(usage, PRICE) == pytest.approx((10_000 + 500 + 2_500 + 400) / 1e6)
    assert cost_of(usage, Price(input=10.0, output=40.0)) == pytest.approx((17_000 + 400) / 1e6)


@given(usages, st.builds(Price, input=st.floats(0, 99), output=st.floats(0, 99), cached=st.none() | st.floats(0, 99)))
def test_least_real_and_worst_cost_are_in_order(usage, price):
    assert least_cost_of(usage, price) <= cost_of(usage, price) + 1e-12
    assert cost_of(usage, price) <= worst_cost_of(usage, price) + 1e-12


def test_the_list_is_dated_and_sourced_and_knows_snapshots():
    for name, price in listed().items():
        assert price.as_of.year >= 2026 and price.source.startswith("https://"), name
    known = next(iter(listed()))
    assert price_of(f"{known}-2025-04-14") == price_of(known) == listed()[known]
    assert price_of(known, PRICE) is PRICE
    assert price_of(None) == Price(input=0.0, output=0.0)
    assert price_of("a model of ours") is None


def test_a_budget_without_a_price_is_refused_with_the_field():
    with pytest.raises(RecipeProblem, match=r"price of 'ours' is unknown: give judge\.price\.input and judge\.price"):
        refuse_unpriced("ours", None, 5.0)
    refuse_unpriced("ours", None, None)
    refuse_unpriced("ours", PRICE, 5.0)
    refuse_unpriced(None, None, 5.0)


def open_ledger(path, budget):
    return Ledger(VerdictStore(path), "judge", PRICE, budget)


def real_usage(dice: random.Random) -> Usage:
    """Any that the worst case allows: some tries reported, some not."""
    unreported = dice.randint(0, 2)
    return Usage(3, dice.randint(0, 500), dice.randint(0, 300), dice.randint(0, 200), dice.randint(0, 100), unreported)


@given(seed=st.integers(0, 10**6), requests=st.integers(1, 60), enough=st.floats(0.5, 12))
def test_a_budget_is_never_passed_and_used_while_it_can_be(tmp_path_factory, seed, requests, enough):
    """Many requests at once, some lost: charged plus in flight stays below the budget at every moment."""
    path = tmp_path_factory.mktemp("ledger") / "v.sqlite"
    budget, dice = enough * WORST_COST, random.Random(seed)

    async def request(ledger: Ledger) -> None:
        entry = await ledger.open(WORST, step=1, questions=1)
        assert ledger.charged <= budget
        await asyncio.sleep(0)
        settled = ledger.lose(entry) if dice.random() < 0.1 else ledger.close(entry, "ok", real_usage(dice))
        ledger.store.settle(settled)

    async def run(ledger: Ledger) -> list[BaseException | None]:
        return await asyncio.gather(*(request(ledger) for _ in range(requests)), return_exceptions=True)

    ledger = open_ledger(path, budget)
    outcomes = asyncio.run(run(ledger))
    assert all(outcome is None or isinstance(outcome, JudgeProblem) for outcome in outcomes), outcomes
    assert ledger.charged <= budget
    assert ledger.charged == pytest.approx(ledger.store.cost("judge"))
    if any(outcomes):
        assert ledger.charged + WORST_COST > budget, "it stopped although one more could be paid"
    ledger.store.close()


def test_what_a_killed_process_left_open_stays_charged(tmp_path):
    ledger = open_ledger(tmp_path / "v.sqlite", 1.0)
    asyncio.run(ledger.open(WORST, step=1, questions=1))
    other = Ledger(ledger.store, "other", PRICE, 1.0)
    asyncio.run(other.open(WORST, step=1, questions=1))
    ledger.store.close()
    again = open_ledger(tmp_path / "v.sqlite", 1.0)
    assert again.charged == pytest.approx(WORST_COST)
    rows = again.store.rows("SELECT judge_id, status, tries FROM requests ORDER BY 1")
    assert rows == [("judge", "lost", 3), ("other", "open", 3)]
    again.store.close()


def test_a_spent_budget_names_the_field_and_the_way_on(tmp_path):
    ledger = open_ledger(tmp_path / "v.sqlite", WORST_COST / 2)
    with pytest.raises(JudgeProblem, match=r"judge\.budget_usd: 0 of .* larger --set judge\.budget_usd="):
        asyncio.run(ledger.open(WORST, step=1, questions=1))
    assert ledger.store.rows("SELECT count(*) FROM requests") == [(0,)]
    ledger.store.close()


def test_unreported_tries_are_charged_at_the_worst_case_of_one(tmp_path):
    ledger = open_ledger(tmp_path / "v.sqlite", None)
    entry = asyncio.run(ledger.open(WORST, step=1, questions=1))
    reported = Usage(3, input_tokens=100, output_tokens=1, unreported=2)
    assert ledger.close(entry, "ok", reported).cost == pytest.approx(cost_of(reported, PRICE) + 2 / 3 * WORST_COST)
    ledger.store.close()


def test_a_worst_case_that_was_none_is_trusted_less_from_then_on(tmp_path):
    ledger = open_ledger(tmp_path / "v.sqlite", None)
    entry = asyncio.run(ledger.open(WORST, step=1, questions=1))
    settled = ledger.close(entry, "ok", Usage(1, cache_write_tokens=6000, output_tokens=600))
    assert settled.cost == pytest.approx(2 * WORST_COST)
    assert asyncio.run(ledger.open(WORST, step=1, questions=1)).cost == pytest.approx(2 * WORST_COST)
    ledger.store.close()


def test_without_a_price_requests_are_counted_and_their_cost_is_unknown(tmp_path):
    store = VerdictStore(tmp_path / "v.sqlite")
    ledger = Ledger(store, "judge", None, None)
    entry = asyncio.run(ledger.open(WORST, step=1, questions=1))
    store.settle(ledger.close(entry, "ok", Usage(1, 5, 0, 0, 1)))
    assert store.cost() is None and store.rows("SELECT tries, input_tokens FROM requests") == [(1, 5)]
    store.close()


def test_a_budget_too_small_for_a_step_is_refused_even_if_caches_held_all(tmp_path):
    ledger = open_ledger(tmp_path / "v.sqlite", 1.0)
    sample = Usage(1, input_tokens=1000, output_tokens=1)
    least = (1000 * 1.0 + 40.0) / 1e6
    ledger.refuse_short(sample, times=0.99 / least, what="a step")
    with pytest.raises(JudgeProblem, match=r"judge\.budget_usd: 1 US dollars do not pay for a step, .* at least 1\.01"):
        ledger.refuse_short(sample, times=1.01 / least, what="a step")
    ledger.store.close()
