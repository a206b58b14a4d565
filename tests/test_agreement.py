"""Agreement of judges: by hand, and planted truths that must come back inside their intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lens_rl.judges import agreement as stats

TABLE = np.array([[40, 10], [20, 30]])
"""Byrt et al.'s form: A says 0 and B says 0 forty times, and so on."""


def planted_pair(kappa, num_images, per_image, share=0.5, seed=0):
    """Two judges with the same share of 1 and a known kappa: B repeats A, or draws anew with probability 1 - kappa."""
    generator = np.random.default_rng(seed)
    image_M = np.repeat(np.arange(num_images), per_image)
    a_M = (generator.random(len(image_M)) < share).astype(int)
    anew_M = generator.random(len(image_M)) > kappa
    b_M = np.where(anew_M, generator.random(len(image_M)) < share, a_M).astype(int)
    return image_M, a_M, b_M


def test_by_hand():
    assert stats.agreement(TABLE) == pytest.approx(0.70)
    assert stats.kappa(TABLE) == pytest.approx((0.7 - (0.5 * 0.6 + 0.5 * 0.4)) / (1 - 0.5))
    assert stats.pabak(TABLE) == pytest.approx(0.40)
    assert stats.balanced_accuracy(TABLE) == pytest.approx((40 / 60 + 30 / 40) / 2)
    assert stats.prevalence(TABLE, 0) == pytest.approx(0.5) and stats.prevalence(TABLE, 1) == pytest.approx(0.4)


def test_calibration_by_hand():
    p, y = np.array([0.05, 0.15, 0.95, 1.0]), np.array([0, 1, 1, 0])
    bins = stats.calibration_bins(p, y).sum(axis=0)
    assert bins[9].tolist() == pytest.approx([2, 1.95, 1, 0.05**2 + 1])
    assert stats.brier(bins) == pytest.approx((0.05**2 + 0.85**2 + 0.05**2 + 1) / 4)
    assert stats.calibration_error(bins) == pytest.approx((0.05 + 0.85 + 0.95) / 4)


def test_correlation_within_an_image_by_hand():
    image, value = np.array([0, 0, 1, 1]), np.array([1, 1, 0, 1])
    parts = stats.correlation_within(image, value, np.full(4, 0.5))
    # Image 0: both residuals 0.5, their pair counts twice: 2 * 0.25 of 2 * 0.25; image 1: -2 * 0.25.
    assert parts.tolist() == [[0.5, 0.5], [-0.5, 0.5]]
    assert stats.ratio(parts.sum(axis=0)) == 0.0 and stats.ratio(parts)[0] == 1.0


@pytest.mark.parametrize("table", [[[9, 0], [0, 0]], [[0, 0], [0, 9]], [[0, 0], [0, 0]]])
def test_what_is_not_defined_is_nan_and_no_number(table):
    assert np.isnan(stats.kappa(np.array(table))) and np.isnan(stats.balanced_accuracy(np.array(table)))
    assert np.isnan(stats.estimate(stats.kappa, np.array([table])).low)
    assert np.isnan(stats.estimate(stats.kappa, np.zeros((0, 2, 2))).value)


@given(arrays(int, (2, 2), elements=st.integers(1, 50)))
def test_laws_of_agreement(table):
    kappa = stats.kappa(table)
    assert -1 <= kappa <= stats.agreement(table) <= 1
    assert stats.kappa(table.T) == pytest.approx(kappa), "it does not matter who is called A"
    assert stats.kappa(table[::-1, ::-1]) == pytest.approx(kappa), "nor what is called 1"
    assert stats.kappa(np.diag(np.diag(table))) == pytest.approx(1.0)
    even = np.array([[table[0, 0], table[0, 1]], [table[0, 1], table[0, 0]]])
    assert stats.kappa(even) == pytest.approx(stats.pabak(even)), "equal where 0 and 1 are equally common"
    assert stats.kappa(np.outer(table[0], table[1])) == pytest.approx(0, abs=1e-9), "independent judges"


@given(arrays(int, (6, 2, 2), elements=st.integers(0, 5)))
def test_statistics_of_many_tables_are_those_of_each(table_I22):
    for statistic in (stats.agreement, stats.kappa, stats.pabak, stats.balanced_accuracy):
        assert statistic(table_I22) == pytest.approx([float(statistic(table)) for table in table_I22], nan_ok=True)


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_a_planted_kappa_comes_back_inside_its_interval(share):
    hits = 0
    for seed in range(20):
        image_M, a_M, b_M = planted_pair(0.6, 80, 8, share, seed)
        found = stats.estimate(stats.kappa, stats.sums_by_image(image_M, stats.tables(a_M, b_M)), seed=seed)
        assert 0.02 < found.high - found.low < 0.25 and found.images == 80
        hits += found.low <= 0.6 <= found.high
    assert hits >= 16, "a 95 % interval that misses more than one time in five is none"


def test_the_interval_knows_that_verdicts_of_one_image_come_together():
    """Ten copies of each verdict are no more evidence than one; over verdicts the interval would shrink by sqrt(10)."""
    image_M, a_M, b_M = planted_pair(0.6, 200, 1)
    once = stats.estimate(stats.kappa, stats.sums_by_image(image_M, stats.tables(a_M, b_M)))
    copies = stats.sums_by_image(np.repeat(image_M, 10), stats.tables(np.repeat(a_M, 10), np.repeat(b_M, 10)))
    assert stats.estimate(stats.kappa, copies) == once


def test_planted_miscalibration_is_found_and_its_absence_too():
    generator = np.random.default_rng(0)
    image_M = np.arange(4000)
    p_M = generator.random(4000)
    honest_M = (generator.random(4000) < p_M).astype(int)
    overconfident_M = np.clip(0.5 + 1.6 * (p_M - 0.5), 0, 1)

    def error(p):
        return stats.estimate(
            stats.calibration_error, stats.sums_by_image(image_M, stats.calibration_bins(p, honest_M))
        )

    assert error(p_M).value < 0.03 < 0.06 < error(overconfident_M).low
    # Brier of an honest uniform p is E[p(1 - p)] = 1/6.
    brier = stats.estimate(stats.brier, stats.sums_by_image(image_M, stats.calibration_bins(p_M, honest_M)))
    assert brier.low <= 1 / 6 <= brier.high


def test_a_planted_correlation_within_images_comes_back():
    """Each verdict copies its image's coin with probability s: any two correlate with s^2."""
    generator = np.random.default_rng(1)
    image_M = np.repeat(np.arange(600), 6)
    coin_M = generator.integers(0, 2, 600)[image_M]
    value_M = np.where(generator.random(3600) < 0.7, coin_M, generator.integers(0, 2, 3600))
    found = stats.estimate(stats.ratio, stats.correlation_within(image_M, value_M, np.full(3600, 0.5)))
    assert found.low <= 0.49 <= found.high and found.high - found.low < 0.15
