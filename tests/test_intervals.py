"""Intervals that cover, significance that is not found where there is nothing, and losses that are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lens_rl.intervals import MARGIN, gains_by_kind, holm, interval, means_P

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def test_interval_covers_the_mean_about_as_often_as_it_says():
    random = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        low, high = interval(random.uniform(size=60), seed=trial)
        hits += low <= 0.5 <= high
    assert 0.90 <= hits / 200 <= 0.99


def test_interval_is_the_same_each_time_and_shrinks():
    values = np.random.default_rng(1).uniform(size=400)
    assert interval(values) == interval(values)
    wide, narrow = interval(values[:25]), interval(values)
    assert narrow[1] - narrow[0] < (wide[1] - wide[0]) / 2


def test_means_leave_out_what_is_missing():
    means = means_P(np.array([[0.0, 1.0], [np.nan, 0.4], [np.nan, np.nan]]))
    assert means[:2] == pytest.approx([0.5, 0.4]) and np.isnan(means[2])


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])


@given(P_VALUES)
def test_holm_lies_between_no_correction_and_bonferroni_and_keeps_the_order(p_values):
    adjusted = holm(p_values)
    for raw, corrected in zip(p_values, adjusted, strict=True):
        assert raw <= corrected <= min(1.0, len(p_values) * raw) + 1e-12
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()


@given(P_VALUES, st.floats(0.001, 0.999))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values, level):
    rejected, remaining = set(), sorted(range(len(p_values)), key=lambda place: p_values[place])
    for rank, place in enumerate(remaining):
        if p_values[place] * (len(p_values) - rank) >= level:
            break
        rejected.add(place)
    assert {place for place, p in enumerate(holm(p_values)) if p < level} == rejected


def verdicts(random, share, prompts=128, each=4):
    """counts_P2 of prompts whose criteria hold with a probability of their own around `share`."""
    return np.stack([random.binomial(each, np.clip(share, 0, 1), size=prompts), np.full(prompts, each)], axis=1)


def test_planted_changes_are_found_and_nothing_else():
    random = np.random.default_rng(3)
    start = {"up": 0.4, "down": 0.6, "slightly": 0.6, "same": 0.5, "perfect": 1.0}
    end = {"up": 0.6, "down": 0.4, "slightly": 0.59, "same": 0.5, "perfect": 1.0}
    found = gains_by_kind(
        {kind: verdicts(random, share) for kind, share in start.items()},
        {kind: verdicts(random, share) for kind, share in end.items()},
    )
    assert {kind: one["change"] for kind, one in found.items()} == {
        "up": "better",
        "down": "worse",
        "slightly": "unclear",
        "same": "unclear",
        "perfect": "unclear",
    }
    assert [kind for kind, one in found.items() if one["worse_than_margin"]] == ["down"]


def test_a_loss_within_the_margin_can_be_clear_without_counting():
    base = {"kind": np.tile([50, 100], (200, 1))}
    trained = {"kind": np.tile([49, 100], (200, 1))}
    found = gains_by_kind(base, trained)["kind"]
    assert found["gain"] == pytest.approx(-0.01) and MARGIN == 0.03
    assert found["change"] == "worse" and not found["worse_than_margin"]


def test_where_nothing_changed_a_change_is_claimed_about_as_rarely_as_promised():
    random = np.random.default_rng(4)
    trials, claimed, uncorrected = 200, 0, 0
    for _ in range(trials):
        share = random.uniform(0.2, 0.8, size=64)
        base, trained = ({kind: verdicts(random, share, 64) for kind in "abcde"} for _ in range(2))
        found = gains_by_kind(base, trained).values()
        claimed += any(one["change"] != "unclear" for one in found)
        uncorrected += any(not one["gain_interval"][0] <= 0 <= one["gain_interval"][1] for one in found)
    # A bootstrap of 64 prompts is a little too sure of itself; without the correction five kinds would be far more so.
    assert claimed / trials <= 0.12 < 0.18 <= uncorrected / trials


def test_with_equally_many_verdicts_a_kind_is_an_ordinary_mean():
    random = np.random.default_rng(5)
    base, trained = verdicts(random, 0.5, 300), verdicts(random, 0.6, 300)
    found = gains_by_kind({"k": base}, {"k": trained})["k"]
    gain_P = (trained[:, 0] - base[:, 0]) / 4
    assert found["gain"] == pytest.approx(gain_P.mean())
    assert found["gain_interval"] == pytest.approx(interval(gain_P), abs=0.006)


def test_prompts_without_a_valid_verdict_on_both_sides_are_left_out():
    base, trained = np.array([[1, 1], [1, 1], [0, 0]]), np.array([[0, 1], [0, 0], [1, 1]])
    found = gains_by_kind({"k": base, "none": base[2:]}, {"k": trained, "none": trained[2:]})
    assert found.keys() == {"k"}
    assert (found["k"]["prompts"], found["k"]["base"], found["k"]["trained"]) == (1, 1.0, 0.0)
    assert found["k"]["change"] == "unclear", "one prompt proves nothing"
