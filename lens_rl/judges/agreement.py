"""How far two judges agree and how well a judge's probabilities are calibrated: closed forms over counts.

    table_22      verdicts counted by what judge A said (row) and what judge B said (column)
    bins_N4       verdicts in each of N bins of p: how many, sum of p, sum of y, sum of (p - y)^2
    part_2        a numerator and a denominator

Each statistic is a function of sums over images, of any leading shape. So a bootstrap is one product of resampling
weights with the sums of each image; and images are what it draws, since the verdicts of one image come together.

Legend: I images, M verdicts, N bins, R resamples.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

RESAMPLES, CHUNK = 2000, 100
NUM_BINS = 10

Statistic = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A statistic with its 95 % bootstrap interval; NaN where it is not defined."""

    value: float
    low: float
    high: float
    images: int
    """How many images it rests on."""


def estimate(statistic: Statistic, sums_I: np.ndarray, *, seed: int = 0) -> Estimate:
    """A statistic of the summed `sums_I...`, with the interval of resampled images.

    Resamples in which the statistic is not defined, such as the kappa of equal verdicts alone, are left out.
    """
    images = len(sums_I)
    if not images:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    flat_I = sums_I.reshape(images, -1).astype(float)
    generator, draws = np.random.default_rng(seed), []
    for _ in range(0, RESAMPLES, CHUNK):
        weights_RI = _resampling_weights(generator, images)
        draws.append(statistic((weights_RI @ flat_I).reshape(CHUNK, *sums_I.shape[1:])))
    values_R = np.concatenate(draws)
    defined_R = values_R[~np.isnan(values_R)]
    low, high = np.quantile(defined_R, [0.025, 0.975]) if len(defined_R) else (np.nan, np.nan)
    return Estimate(float(statistic(sums_I.sum(axis=0))), float(low), float(high), images)


def sums_by_image(image_M: np.ndarray, parts_M: np.ndarray) -> np.ndarray:
    """Sums over the verdicts of each image: `parts_M...` to `(I, ...)`; images without a verdict do not appear."""
    distinct, index_M = np.unique(image_M, return_inverse=True)
    sums = np.zeros((len(distinct), *parts_M.shape[1:]))
    np.add.at(sums, index_M, parts_M)
    return sums


def tables(a_M: np.ndarray, b_M: np.ndarray) -> np.ndarray:
    """A table_22 with a single 1 for each pair of verdicts, 0 or 1: (M, 2, 2)."""
    table_M22 = np.zeros((len(a_M), 2, 2))
    table_M22[np.arange(len(a_M)), a_M.astype(int), b_M.astype(int)] = 1
    return table_M22


def calibration_bins(p_M: np.ndarray, y_M: np.ndarray) -> np.ndarray:
    """A bins_N4 with the entry of each verdict: (M, N, 4). Bins are of equal width, 1.0 belongs to the last."""
    bins_MN4 = np.zeros((len(p_M), NUM_BINS, 4))
    bin_M = np.minimum((p_M * NUM_BINS).astype(int), NUM_BINS - 1)
    bins_MN4[np.arange(len(p_M)), bin_M] = np.stack([np.ones(len(p_M)), p_M, y_M, (p_M - y_M) ** 2], axis=1)
    return bins_MN4


def ratio(part_2: np.ndarray) -> np.ndarray:
    """Numerator over denominator: rates, means, mean correlations."""
    return _divided(part_2[..., 0], part_2[..., 1])


def agreement(table_22: np.ndarray) -> np.ndarray:
    """p_o, the share of equal verdicts."""
    return _divided(table_22[..., 0, 0] + table_22[..., 1, 1], table_22.sum(axis=(-2, -1)))


def kappa(table_22: np.ndarray) -> np.ndarray:
    """Cohen's (p_o - p_e) / (1 - p_e): agreement beyond what both shares of 1 give by chance (Cohen, 1960).

    NaN where both judges gave one and the same verdict throughout.
    """
    total = table_22.sum(axis=(-2, -1))
    by_chance = _divided((table_22.sum(axis=-1) * table_22.sum(axis=-2)).sum(axis=-1), total**2)
    return _divided(agreement(table_22) - by_chance, 1 - by_chance)


def pabak(table_22: np.ndarray) -> np.ndarray:
    """2 p_o - 1: the kappa that the same agreement would have if 0 and 1 were equally common (Byrt et al., 1993)."""
    return 2 * agreement(table_22) - 1


def balanced_accuracy(table_22: np.ndarray) -> np.ndarray:
    """Mean of A's recall on what B calls 1 and on what B calls 0; NaN where B calls everything the same."""
    recall = _divided(np.stack([table_22[..., 0, 0], table_22[..., 1, 1]], axis=-1), table_22.sum(axis=-2))
    return recall.mean(axis=-1)


def prevalence(table_22: np.ndarray, axis: int) -> np.ndarray:
    """Share of 1 among the verdicts of A (axis 0) or of B (axis 1)."""
    return _divided(table_22.sum(axis=-1 if axis == 0 else -2)[..., 1], table_22.sum(axis=(-2, -1)))


def brier(bins_N4: np.ndarray) -> np.ndarray:
    """Mean squared distance of a probability from what it speaks of."""
    return _divided(bins_N4[..., 3].sum(axis=-1), bins_N4[..., 0].sum(axis=-1))


def calibration_error(bins_N4: np.ndarray) -> np.ndarray:
    """ECE: distance of mean probability and share of 1 in a bin, averaged over verdicts (Naeini et al., 2015)."""
    gaps = np.abs(bins_N4[..., 1] - bins_N4[..., 2]).sum(axis=-1)
    return _divided(gaps, bins_N4[..., 0].sum(axis=-1))


def correlation_within(image_M: np.ndarray, value_M: np.ndarray, expected_M: np.ndarray) -> np.ndarray:
    """part_I2 whose `ratio` is how far verdicts of one image correlate, beyond what each criterion's kind expects.

    The mean over pairs of verdicts of one image of the product of their residuals, over the residuals' variance.
    """
    residual_M = value_M - expected_M
    sums_I3 = sums_by_image(image_M, np.stack([residual_M, residual_M**2, np.ones(len(residual_M))], axis=1))
    total_I, squares_I, count_I = sums_I3.T
    return np.stack([total_I**2 - squares_I, (count_I - 1) * squares_I], axis=1)


def _resampling_weights(generator: np.random.Generator, images: int) -> np.ndarray:
    """How often each image comes up in each of a chunk of resamples."""
    drawn_RI = generator.integers(0, images, (CHUNK, images)) + images * np.arange(CHUNK)[:, None]
    return np.bincount(drawn_RI.ravel(), minlength=CHUNK * images).reshape(CHUNK, images).astype(float)


def _divided(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(denominator > 1e-12, numerator / denominator, np.nan)
