"""A reward is the mean of what was answered, or nothing; never a zero for a failure."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lens_core.recipes import RecipeProblem
from lens_core.records import Criterion, Prompt, Sample, Verdict
from lens_rl.recipe import RewardChoice
from lens_rl.rewards import WeightedRewards, mean_of_valid, settled

PROMPT = Prompt("p", "a red circle", criteria=tuple(Criterion(str(i), "x", "k") for i in range(5)))
SAMPLE = Sample("p", np.zeros((4, 4, 3), np.uint8), None, (4, 4), 0)


def verdicts(values):
    return [
        Verdict(str(i), "sha", "judge", value, status="ok" if value is not None else "timeout")
        for i, value in enumerate(values)
    ]


def rubric(values, coverage=0.8):
    return WeightedRewards([RewardChoice(min_coverage=coverage)])(PROMPT, SAMPLE, verdicts(values))


def test_mean_of_the_valid():
    assert rubric([1, 0, 1, 1, 0]) == pytest.approx(0.6)
    assert rubric([1, None, 1, 1, 0]) == pytest.approx(0.75)


def weighed(*criteria):
    return tuple(Criterion(name, "x", "k", weight=weight, requires=parent) for name, weight, parent in criteria)


def test_weights_are_shares():
    prompt = replace(PROMPT, criteria=weighed(("a", 3.0, None), ("b", 1.0, None)))

    def reward(*values):
        return WeightedRewards([RewardChoice(min_coverage=0.5)])(prompt, SAMPLE, verdicts(values))

    assert reward(1, 0) == pytest.approx(0.75)
    assert reward(0, 1) == pytest.approx(0.25)
    assert reward(1, None) == 1.0
    assert reward(None, 1) is None, "what was answered is a quarter of the weight, and half is asked for"


@given(st.lists(st.tuples(st.sampled_from([0, 1, None]), st.floats(0.1, 5)), min_size=1, max_size=8), st.floats(0.1, 9))
def test_only_the_ratio_of_weights_matters(rows, factor):
    values, weights = [value for value, _ in rows], [weight for _, weight in rows]

    one = mean_of_valid(values, weights, 0.0)
    other = mean_of_valid(values, [weight * factor for weight in weights], 0.0)

    assert (one is None) == (other is None) == all(value is None for value in values)
    assert one is None or (one == pytest.approx(other) and 0.0 <= one <= 1.0)


FAMILY = weighed(("dog", 1.0, None), ("collar", 1.0, "dog"), ("bell", 1.0, "collar"), ("sky", 1.0, None))


@pytest.mark.parametrize(
    ("values", "counted"),
    [
        ((1, 1, 1, 1), [1, 1, 1, 1]),
        ((0, 1, 1, 1), [0, 0, 0, 1]),  # no dog, so no collar, so no bell, whatever the judge saw
        ((1, 0, 1, 1), [1, 0, 0, 1]),
        ((None, 1, 0, 1), [None, None, 0, 1]),  # whether the collar counts is not known; the bell fails anyhow
        ((0, None, None, 1), [0, 0, 0, 1]),  # no answer on the collar could make it count
        ((1, None, 1, None), [1, None, None, None]),
    ],
)
def test_a_child_counts_only_if_its_parent_holds(values, counted):
    assert settled(FAMILY, values) == counted


@given(st.permutations(range(4)), st.lists(st.sampled_from([0, 1, None]), min_size=4, max_size=4))
def test_the_order_of_criteria_does_not_matter(order, values):
    settled_in_order = settled(FAMILY, values)

    assert settled([FAMILY[i] for i in order], [values[i] for i in order]) == [settled_in_order[i] for i in order]


@given(st.lists(st.sampled_from([0, 1]), min_size=4, max_size=4), st.integers(0, 3))
def test_a_criterion_that_comes_to_hold_never_costs(values, which):
    """So nothing is gained by leaving out of the picture what could be wrong with it."""
    better = [1 if place == which else value for place, value in enumerate(values)]

    assert sum(settled(FAMILY, better)) >= sum(settled(FAMILY, values))


def test_below_coverage_there_is_no_reward():
    assert rubric([1, None, None, 1, 0]) is None
    assert rubric([None] * 5, coverage=0.0) is None


def test_a_verdict_is_one_zero_or_an_error():
    for value, status in ((None, "ok"), (1, "timeout")):
        with pytest.raises(ValueError, match="status"):
            Verdict("c", "sha", "judge", value, status=status)


OWN = """
class Brightness:
    def __init__(self, choice):
        pass
    def __call__(self, prompt, sample, verdicts):
        return None if prompt.text == "dark" else sample.image.mean() / 255 + {shift}
"""


def test_own_reward_is_weighed_in(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(OWN.replace("{shift}", "1"))
    both = WeightedRewards([RewardChoice(weight=3.0), RewardChoice(kind=f"python: {file}:Brightness")])
    assert both(PROMPT, SAMPLE, verdicts([1, 0, 1, 1, 0])) == pytest.approx((3 * 0.6 + 1) / 4)
    assert both(replace(PROMPT, text="dark"), SAMPLE, verdicts([1, 1, 1, 1, 1])) is None


def test_bad_rewards_are_named(tmp_path):
    with pytest.raises(RecipeProblem, match=r"unknown reward 'rubrik' .did you mean 'rubric'"):
        WeightedRewards([RewardChoice(kind="rubrik")])
    file = tmp_path / "own.py"
    file.write_text(OWN.replace("{shift}", "2"))
    with pytest.raises(RecipeProblem, match=r"Brightness gave 2.0; a reward lies in \[0, 1\]"):
        WeightedRewards([RewardChoice(kind=f"python: {file}:Brightness")])(PROMPT, SAMPLE, [])
