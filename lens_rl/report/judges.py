"""From a comparison of two judges to its page: agreement, probes and calibration, in the manner of a run's report."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from lens_core.runs import write_whole
from lens_rl.judges.agreement import Estimate
from lens_rl.judges.comparison import ALL, DEAD_BAND, Comparison, Conduct
from lens_rl.report import words
from lens_rl.report.charts import Chart, Scale, Series, line_chart
from lens_rl.report.headline import Headline
from lens_rl.report.page import template

LOOKS = ("accent", "run2")
"""Of judge A and of judge B."""
PROBES: dict[str, tuple[str, Callable[[Conduct], dict[str, Estimate]]]] = {
    "Yes on other prompts": (
        "Share of criteria granted on the picture of another prompt. Some hold there by chance; what a judge grants "
        "beyond that, it grants to anything.",
        lambda conduct: conduct.yes_bias,
    ),
    "Contradictions": (
        "Share of criteria of which a statement and its negation were both said to hold, or neither.",
        lambda conduct: conduct.contradictions,
    ),
    "Flips on repeat": (
        "Share of verdicts that changed when the same was asked again.",
        lambda conduct: conduct.repeat_flips,
    ),
    "Flips on reordering": (
        "Share of verdicts that changed when the criteria of a request were turned round.",
        lambda conduct: conduct.order_flips,
    ),
}


@dataclass(frozen=True, slots=True)
class Mark:
    """A point with its interval, in the look of a judge."""

    look: str
    found: Estimate


@dataclass(frozen=True, slots=True)
class Panel:
    """One probe: for each kind of criterion the marks of both judges, on one scale."""

    title: str
    text: str
    rows: list[tuple[str, list[Mark]]]
    scale: Scale


def write_judges(comparison: Comparison, file: Path) -> Path:
    """Write the page, and return the file."""
    agreements = comparison.by_kind
    page = template("judges.html.j2").render(
        comparison=comparison,
        headline=headline(comparison),
        judges=[("A", LOOKS[0], comparison.a), ("B", LOOKS[1], comparison.b)],
        kappas=_scale(found.kappa for found in agreements.values()),
        panels=_panels(comparison),
        reliability=_reliability(comparison),
        dead_band=DEAD_BAND,
        all=ALL,
    )
    write_whole(file, page)
    return file


def headline(comparison: Comparison) -> Headline:
    """How far the two agree, for somebody who has never heard of kappa."""
    found = comparison.by_kind[ALL]
    if math.isnan(found.agreement.value):
        return Headline("The judges have no verdict in common", "Neither gave one where the other did.")
    title = f"The judges agree on {words.percent(found.agreement.value)} of {words.count(found.verdicts)} verdicts"
    if math.isnan(found.kappa.value):
        return Headline(
            title, "Both gave one and the same verdict throughout, so how much of it is chance cannot be told."
        )
    return Headline(
        title,
        f"Kappa, which is 0 where they agree no more than by chance and 1 where they always agree, is "
        f"{words.share(found.kappa.value)}, with a 95 % interval from {words.share(found.kappa.low)} to "
        f"{words.share(found.kappa.high)} over {words.count(comparison.pictures)} pictures.",
    )


def _panels(comparison: Comparison) -> list[Panel]:
    """The probes that at least one judge was put to."""
    panels = []
    for title, (text, rates) in PROBES.items():
        both = [(look, rates(conduct)) for look, conduct in zip(LOOKS, (comparison.a, comparison.b), strict=True)]
        rows = [
            (kind, [Mark(look, found[kind]) for look, found in both if kind in found and found[kind].images])
            for kind in comparison.by_kind
        ]
        rows = [(kind, marks) for kind, marks in rows if marks]
        if rows:
            panels.append(Panel(title, text, rows, _scale(mark.found for _, marks in rows for mark in marks)))
    return panels


def _reliability(comparison: Comparison) -> Chart | None:
    """Share of 1 that the other judge gave, over the probability that a judge gave."""
    series = [
        Series(name, [(mean_p, share) for _, mean_p, share in conduct.calibration.bins], look=look, dots=True)
        for name, look, conduct in zip("AB", LOOKS, (comparison.a, comparison.b), strict=True)
        if conduct.calibration
    ]
    if not series:
        return None
    return line_chart(
        [Series("calibrated", [(0.0, 0.0), (1.0, 1.0)], look="quiet"), *series],
        label="Share of 1 by the other judge over the probability of 1",
        text="{:.2f}".format,
        x_text="{:.1f}".format,
        x_title="probability of 1",
        zero=True,
    )


def _scale(found: Iterable[Estimate]) -> Scale:
    """From 0, or the lowest end of an interval below it, to 1."""
    low = min([0.0, *(one.low for one in found if not math.isnan(one.low))])
    return Scale(low - 0.02, 1.02)
