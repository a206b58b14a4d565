"""Honest uncertainty: bootstraps over prompts, since prompts, not images, are what was drawn.

P prompts, G images of each, R resamples. Everything is seeded: the same numbers give the same interval each time.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

RESAMPLES = 2000
SIGNIFICANCE = 0.05
MARGIN = 0.03
"""A kind of criterion that lost less than this share is not counted as a loss."""
MIN_PROMPTS = 5
"""A kind with fewer prompts is never called better or worse: a bootstrap of so few says little."""

Interval = tuple[float, float]


def means_P(reward_PG: np.ndarray) -> np.ndarray:
    """Mean over the images of each prompt; NaN where it has none."""
    count_P = (~np.isnan(reward_PG)).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.where(count_P > 0, np.nansum(reward_PG, axis=1) / count_P, np.nan)


def interval(values_P: np.ndarray, *, seed: int = 0) -> Interval:
    """95 % bootstrap interval of the mean over prompts; NaN are left out."""
    values_P = values_P[~np.isnan(values_P)]
    if not len(values_P):
        return float("nan"), float("nan")
    draws = np.random.default_rng(seed).integers(0, len(values_P), (RESAMPLES, len(values_P)))
    return _quantiles(values_P[draws].mean(axis=1))


def gains_by_kind(base: Mapping[str, np.ndarray], trained: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """What each kind of criterion gained on the same prompts, with a paired interval and what may be said of it.

    Both map a kind to its counts_P2: verdicts of 1 and valid verdicts of each prompt. Prompts without a valid verdict
    on both sides are left out. `change` is "better" or "worse" where the gain differs from zero (two-sided), and
    `worse_than_margin` says whether it lies below -MARGIN (one-sided); both are corrected for the number of kinds
    after Holm (1979).
    """
    found, differs, loses = {}, {}, {}
    for kind in sorted(base.keys() & trained.keys()):
        valid_P = (base[kind][:, 1] > 0) & (trained[kind][:, 1] > 0)
        if not valid_P.any():
            continue
        before_P2, after_P2 = base[kind][valid_P], trained[kind][valid_P]
        gain_R = _resampled_share(after_P2) - _resampled_share(before_P2)
        before, after = _share(before_P2), _share(after_P2)
        found[kind] = {
            "base": before,
            "trained": after,
            "gain": after - before,
            "gain_interval": list(_quantiles(gain_R)),
            "prompts": len(before_P2),
        }
        enough = len(before_P2) >= MIN_PROMPTS
        below, above = _one_sided(gain_R, 0.0), _one_sided(-gain_R, 0.0)
        differs[kind] = min(1.0, 2 * min(below, above)) if enough else 1.0
        loses[kind] = _one_sided(gain_R, -MARGIN) if enough else 1.0
    for kind, p in zip(found, holm(list(differs.values())), strict=True):
        clear = p < SIGNIFICANCE
        found[kind]["change"] = ("better" if found[kind]["gain"] > 0 else "worse") if clear else "unclear"
    for kind, p in zip(found, holm(list(loses.values())), strict=True):
        found[kind]["worse_than_margin"] = p < SIGNIFICANCE
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: the k-th smallest of n times n - k + 1, never decreasing."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(np.argsort(p_values, kind="stable")):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def _resampled_share(counts_P2: np.ndarray) -> np.ndarray:
    """The share of yes in each resample; base and trained are drawn with the same prompts."""
    yes_R, valid_R = (_times_drawn_RP(len(counts_P2)) @ counts_P2).T
    return yes_R / valid_R


@lru_cache(maxsize=4)
def _times_drawn_RP(num: int) -> np.ndarray:
    """How often each resample draws each of `num` prompts; floats, whose matrix product is the fast one."""
    return np.random.default_rng(0).multinomial(num, np.full(num, 1 / num), size=RESAMPLES).astype(float)


def _share(counts_P2: np.ndarray) -> float:
    return float(counts_P2[:, 0].sum() / counts_P2[:, 1].sum())


def _one_sided(gain_R: np.ndarray, bound: float) -> float:
    """Bootstrap p-value of the gain being below `bound`."""
    return float((1 + (gain_R >= bound).sum()) / (1 + len(gain_R)))


def _quantiles(draws_R: np.ndarray) -> Interval:
    low, high = np.quantile(draws_R, [0.025, 0.975])
    return float(low), float(high)
