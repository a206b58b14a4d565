"""Intervals that cover, gains that are paired, missing rewards that drop out on both sides."""

import numpy as np
import pytest

from lens_rl.evaluation import Scores, compare, interval


def scores(reward_PG, by_kind=None):
    return Scores(np.asarray(reward_PG, dtype=float), by_kind or {}, 0.1, 0, 0, [])


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


def test_gain_is_paired_over_prompts():
    base = np.random.default_rng(2).uniform(0.2, 0.6, size=(50, 2))
    result = compare(scores(base), scores(base + 0.1))
    assert result["gain"] == pytest.approx(0.1)
    assert result["gain_interval"] == pytest.approx([0.1, 0.1])
    assert result["base_interval"][1] - result["base_interval"][0] > 0.01
    assert (result["n"], result["prompts"]) == (100, 50)


def test_an_image_without_a_reward_drops_out_on_both_sides():
    base, trained = [[0.0, 1.0], [0.5, np.nan]], [[0.5, np.nan], [0.5, 0.9]]
    result = compare(scores(base), scores(trained))
    assert result["n"] == 2
    assert (result["base"], result["trained"], result["gain"]) == pytest.approx((0.25, 0.5, 0.25))


def test_by_kind():
    result = compare(scores([[1.0]], {"count": (1, 4), "gone": (1, 1)}), scores([[1.0]], {"count": (3, 4)}))
    assert result["by_kind"] == {"count": {"base": 0.25, "trained": 0.75}}
