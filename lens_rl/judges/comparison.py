"""What two examined judges are worth: agreement, calibration and probes, for each kind of criterion and in all."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pandas

from lens_rl.judges import agreement as stats
from lens_rl.judges.agreement import Estimate, estimate
from lens_rl.judges.examination import Examination

Rows = Any
"""A table as in `Examination`, a pandas.DataFrame; pandas does not say what comes of indexing one."""
Measured = TypeVar("Measured")

ALL = "all"
DEAD_BAND = 0.1
"""A probability nearer to 0.5 than this is undecided: another batch size on the server may flip its verdict."""
LOW_KAPPA, HIGH_PREVALENCE = 0.4, 0.95


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two judges on the criteria of one kind. `decided_kappa` leaves out verdicts that either was undecided on."""

    verdicts: int
    agreement: Estimate
    kappa: Estimate
    pabak: Estimate
    balanced_accuracy: Estimate
    """Of A, where B is taken to be right."""
    yes_a: Estimate
    yes_b: Estimate
    undecided: float
    decided_kappa: Estimate
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Calibration:
    """A judge's probabilities against the other's verdicts. `bins` are (verdicts, mean p, share of 1), none empty."""

    brier: Estimate
    ece: Estimate
    bins: tuple[tuple[int, float, float], ...]


@dataclass(frozen=True, slots=True)
class Conduct:
    """One judge by itself. Rates by kind of criterion; a probe it could not be put to is empty or None."""

    judge_id: str
    errors: int
    yes_bias: dict[str, Estimate]
    """Share of 1 on pictures of other prompts."""
    contradictions: dict[str, Estimate]
    """Share of criteria of which both the statement and its negation, or neither, are said to hold."""
    negation_distance: Estimate | None
    """Mean |p(c) + p(not c) - 1|."""
    repeat_flips: dict[str, Estimate]
    order_flips: dict[str, Estimate]
    halo: Estimate | None
    """Correlation of an image's verdicts asked in one request, less that when each is asked alone."""
    calibration: Calibration | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that `lens-rl judge compare` shows."""

    pictures: int
    probed: int
    by_kind: dict[str, Agreement]
    a: Conduct
    b: Conduct


def compare(a: Examination, b: Examination) -> Comparison:
    """The numbers of two examinations of the same pictures."""
    both = _joined(a.verdicts, b.verdicts, ("_a", "_b"))
    tables: list[Rows] = [table for one in (a, b) for table in one.probes.values()]
    probed = max((table["image"].nunique() for table in tables), default=0)
    return Comparison(
        pictures=both["image"].nunique(),
        probed=probed,
        by_kind=_by_kind(_agreement, both),
        a=conduct(a, _calibration(both["image"], both["p_a"], both["value_b"])),
        b=conduct(b, _calibration(both["image"], both["p_b"], both["value_a"])),
    )


def conduct(one: Examination, calibration: Calibration | None = None) -> Conduct:
    """What a judge's own answers say about it."""

    def rates(name: str, hits: Callable[[Rows], Rows]) -> dict[str, Estimate]:
        return _by_kind(_rate, hits(one.probes[name])) if name in one.probes else {}

    def where_it(relates: Callable[[Any, Any], Any]) -> Any:
        return lambda probe: _joined(one.verdicts, probe, ("", "_probe")).assign(
            hit=lambda both: relates(both["value"], both["value_probe"]).astype(float)
        )

    verdicts: Rows = one.verdicts
    contrary, alone = one.probes.get("negated"), one.probes.get("one by one")
    return Conduct(
        judge_id=one.judge_id,
        errors=int(verdicts["value"].isna().sum()),
        yes_bias=rates("shuffled", lambda probe: _answered(probe).assign(hit=lambda rows: rows["value"])),
        contradictions=rates("negated", where_it(pandas.Series.eq)),
        negation_distance=None if contrary is None else _negation_distance(one.verdicts, contrary),
        repeat_flips=rates("repeat", where_it(pandas.Series.ne)),
        order_flips=rates("reversed", where_it(pandas.Series.ne)),
        halo=None if alone is None else _halo(one.verdicts, alone),
        calibration=calibration,
    )


def _by_kind(measure: Callable[[Rows], Measured], rows: Rows) -> dict[str, Measured]:
    """Measured over all rows, and over those of each kind."""
    return {ALL: measure(rows)} | {str(kind): measure(some) for kind, some in rows.groupby("kind", sort=True)}


def _answered(rows: Rows) -> Rows:
    return rows[rows["value"].notna()]


def _joined(one: Rows, other: Rows, suffixes: tuple[str, str]) -> Rows:
    """Pairs of verdicts, neither an error, on the same criterion of the same picture."""
    keys = ["image", "place", "kind"]
    return _answered(one).merge(_answered(other), on=keys, suffixes=suffixes, validate="one_to_one")


def _rate(rows: Rows) -> Estimate:
    """Mean of the column `hit`."""
    return _mean(rows["image"], rows["hit"])


def _mean(image: Any, value: Any) -> Estimate:
    parts_M2 = np.stack([value.to_numpy(float), np.ones(len(value))], axis=1)
    return estimate(stats.ratio, stats.sums_by_image(image.to_numpy(), parts_M2))


def _agreement(rows: Rows) -> Agreement:
    def tables(some: Rows) -> np.ndarray:
        pairs = stats.tables(some["value_a"].to_numpy(), some["value_b"].to_numpy())
        return stats.sums_by_image(some["image"].to_numpy(), pairs)

    undecided = ((rows[["p_a", "p_b"]] - 0.5).abs() < DEAD_BAND).any(axis=1)
    table_I22 = tables(rows)
    kappa = estimate(stats.kappa, table_I22)
    yes = [estimate(partial(stats.prevalence, axis=axis), table_I22) for axis in (0, 1)]
    return Agreement(
        verdicts=len(rows),
        agreement=estimate(stats.agreement, table_I22),
        kappa=kappa,
        pabak=estimate(stats.pabak, table_I22),
        balanced_accuracy=estimate(stats.balanced_accuracy, table_I22),
        yes_a=yes[0],
        yes_b=yes[1],
        undecided=float(undecided.mean()) if len(rows) else float("nan"),
        decided_kappa=estimate(stats.kappa, tables(rows[~undecided])),
        warnings=_warnings(kappa, *yes),
    )


def _warnings(kappa: Estimate, yes_a: Estimate, yes_b: Estimate) -> tuple[str, ...]:
    found = [f"kappa below {LOW_KAPPA}"] if kappa.value < LOW_KAPPA else []
    for name, yes in (("A", yes_a), ("B", yes_b)):
        if max(yes.value, 1 - yes.value) > HIGH_PREVALENCE:
            found.append(f"{name} nearly always says {round(yes.value)}")
    return tuple(found)


def _calibration(image: Any, p: Any, truth: Any) -> Calibration | None:
    known = p.notna()
    if not known.any():
        return None
    bins_MN4 = stats.calibration_bins(p[known].to_numpy(), truth[known].to_numpy())
    bins_IN4 = stats.sums_by_image(image[known].to_numpy(), bins_MN4)
    return Calibration(
        brier=estimate(stats.brier, bins_IN4),
        ece=estimate(stats.calibration_error, bins_IN4),
        bins=tuple((int(n), sum_p / n, sum_y / n) for n, sum_p, sum_y, _ in bins_MN4.sum(axis=0) if n),
    )


def _negation_distance(verdicts: Rows, contrary: Rows) -> Estimate | None:
    both = _joined(verdicts, contrary, ("", "_probe")).dropna(subset=["p", "p_probe"])
    return _mean(both["image"], (both["p"] + both["p_probe"] - 1).abs()) if len(both) else None


def _halo(together: Rows, alone: Rows) -> Estimate:
    """Of the verdicts that both ways of asking gave, so that only the way differs."""
    both = _joined(together, alone, ("", "_alone"))
    image = both["image"].to_numpy()

    def parts(column: str) -> np.ndarray:
        expected = both.groupby("kind")[column].transform("mean")
        return stats.correlation_within(image, both[column].to_numpy(), expected.to_numpy())

    parts_I22 = np.stack([parts("value"), parts("value_alone")], axis=1)
    return estimate(lambda sums_22: stats.ratio(sums_22[..., 0, :]) - stats.ratio(sums_22[..., 1, :]), parts_I22)
