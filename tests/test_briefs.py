"""Draws from an item tree: balanced at every length, resumable anywhere, each fact from where it belongs."""

from collections import Counter
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_core.recipes import RecipeProblem
from taxonomy.briefs import adapted_briefs, apportion, briefs, interest_in, redraw
from taxonomy.faithful import unstated, wanted_words
from taxonomy.tree import load_any_tree
from tests.small_tree import write_small_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return load_any_tree(str(write_small_tree(tmp_path_factory.mktemp("tree"))))


@settings(max_examples=60)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=12))
def test_every_choice_is_within_one_of_its_share_at_all_times(weights):
    shares = [weight / sum(weights) for weight in weights]
    taken = [0] * len(shares)
    for step, chosen in enumerate(islice(apportion(shares), 200), start=1):
        taken[chosen] += 1
        assert all(abs(n - share * step) < 1 for n, share in zip(taken, shares, strict=True))


@settings(max_examples=20)
@given(st.integers(0, 12), st.integers(0, 2**40))
def test_drawing_in_two_goes_is_drawing_at_once(tree, n, seed):
    whole = list(briefs(tree, 12, seed))

    assert list(briefs(tree, n, seed)) == whole[:n]
    assert list(briefs(tree, 12 - n, seed, start=n)) == whole[n:]


def test_each_item_is_asked_for_once_and_shares_hold_at_every_length(tree):
    drawn = list(briefs(tree, 12, 3))

    assert len({brief.facts["item"] for brief in drawn}) == len({brief.id for brief in drawn}) == 12
    for n in range(1, 13):
        counts = Counter(brief.category for brief in drawn[:n])
        assert all(abs(counts[category.name] - category.quota * n) < 1 for category in tree.categories)
    with pytest.raises(RecipeProblem, match="'beasts' has 9 items"):
        list(briefs(tree, 13, 3))


def test_seeds_give_other_orders_and_facts_but_the_same_ids(tree):
    one, other = list(briefs(tree, 12, 0)), list(briefs(tree, 12, 1))

    assert [brief.facts for brief in one] != [brief.facts for brief in other]
    assert {brief.facts["item"]: brief.id for brief in one} == {brief.facts["item"]: brief.id for brief in other}


def test_facts_come_from_their_lists(tree):
    for seed in range(40):
        for brief in briefs(tree, 12, seed):
            category = next(c for c in tree.categories if c.name == brief.category)
            branch = next(b for b in category.branches if b.name == brief.sub_category)
            facts = brief.facts
            assert 1 <= len(brief.dimensions) <= 4
            assert ("text" in brief.dimensions) == (brief.category == "signs")
            assert facts.get("colour", branch.colours[0]) in branch.colours
            assert ("action" in facts) == ("interaction" in brief.dimensions)
            assert facts["count"] in ((2, 3) if "count" in brief.dimensions else (1,))
            assert facts["setting"] in branch.settings
            assert not (facts["count"] != 1 and "its" in str(facts.get("action", "")).split())
            assert not ({"count", "text"} <= set(brief.dimensions))
            assert not ("light" in facts and "sunny" in facts["setting"])


def test_a_redraw_keeps_the_item_and_changes_what_is_said_of_it(tree):
    brief = next(iter(briefs(tree, 1, 0)))
    again = [redraw(tree, brief, 0)]
    for _ in range(5):
        again.append(redraw(tree, again[-1], 0))

    assert {(b.id, b.facts["item"], b.index) for b in again} == {(brief.id, brief.facts["item"], brief.index)}
    assert len({str(sorted(b.facts.items())) for b in again}) > 3


def test_more_is_drawn_where_there_is_more_to_learn(tree):
    first = list(briefs(tree, 12, 0))
    rates = {b.id: 0.5 if b.sub_category == "of the sea" else 0.99 for b in first}

    interest = interest_in(tree, rates)
    drawn = list(adapted_briefs(tree, 300, 0, interest))

    plain = Counter(b.sub_category for b in islice(adapted_briefs(tree, 300, 0, {}), 300))
    counts = Counter(b.sub_category for b in drawn)
    assert counts["of the sea"] > 1.5 * plain["of the sea"]
    assert min(counts[b] for b in ("of the farm", "of shops")) > 0
    assert len({b.id for b in drawn}) == 300
    assert {b.id.partition("-")[0] for b in drawn} <= {b.id for b in first}


def test_pass_rates_that_say_nothing_are_refused(tree):
    known = next(iter(briefs(tree, 1, 0))).id

    with pytest.raises(RecipeProblem, match="none of the 1 pass rates is of a prompt of tree 'small'"):
        interest_in(tree, {"unknown": 0.5})
    with pytest.raises(RecipeProblem, match="every pass rate is 0 or 1"):
        interest_in(tree, {known: 1.0})


def test_a_text_must_state_every_dimension_word_for_word(tree):
    for brief in briefs(tree, 12, 5):
        words = wanted_words(brief)
        text = "So: " + ", ".join(f'"{w}"' if name == "text" else w for name, w in words.items()) + "."
        assert unstated(text, brief) == {}
        for name, said in words.items():
            assert name in unstated(text.replace(said, said[:-1] + "#"), brief)
        if "text" in words:
            assert "text" in unstated(text.replace('"', "'"), brief)
