"""Gains are paired, and missing rewards drop out on both sides."""

import numpy as np
import pytest

from lens_rl.evaluation import Scores, compare


def scores(reward_PG, by_kind=None):
    return Scores(np.asarray(reward_PG, dtype=float), by_kind or {}, 0.1, 0, 0, [])


def counts(*yes_of_valid):
    return np.array(yes_of_valid)


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


def test_shares_and_gains_by_kind():
    base = scores([[1.0], [0.0]], {"count": counts((1, 4), (0, 4)), "gone": counts((1, 1), (1, 1))})
    trained = scores([[1.0], [0.0]], {"count": counts((3, 4), (3, 4))})
    assert base.shares == {"count": 0.125, "gone": 1.0}
    by_kind = compare(base, trained)["by_kind"]
    assert by_kind.keys() == {"count"}
    assert (by_kind["count"]["base"], by_kind["count"]["trained"], by_kind["count"]["gain"]) == (0.125, 0.75, 0.625)
