"""Which curves a report draws, and what is said of each: learning, criterion kinds, guards."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lens_rl.guards import DIVERSITY_WINDOW
from lens_rl.intervals import Interval, interval, means_P
from lens_rl.report.charts import Chart, Limit, Point, Series, line_chart
from lens_rl.report.record import RunRecord
from lens_rl.report.words import percent, share, signed
from lens_rl.samples import rewards_PG


@dataclass(frozen=True, slots=True)
class Panel:
    """A small chart with its title, its last value, and a sentence on what it means."""

    title: str
    value: str
    chart: Chart
    text: str = ""
    crossed: bool = False
    """Whether the last value lies beyond a limit."""


def validation_bands(run: RunRecord) -> list[tuple[float, float, float]]:
    """(step, low, high): the bootstrap interval over prompts of each validation whose transcripts were kept."""
    bands = []
    for row in run.validations:
        if transcripts := run.validation(row["step"]):
            bands.append((row["step"], *interval(means_P(rewards_PG(transcripts)))))
    return bands


def validation_gain(run: RunRecord, step: int) -> tuple[float, Interval] | None:
    """What the validation prompts have gained from the start to `step`, pictures of the same seeds compared."""
    before, after = run.validation(0), run.validation(step)
    if not before or not after:
        return None
    gain_P = means_P(rewards_PG(after) - rewards_PG(before))
    return float(np.nanmean(gain_P)), interval(gain_P)


def learning_chart(run: RunRecord) -> Chart:
    """Validation reward with its band over training reward, and the step that was handed back."""
    validation = points(run.validations, "validation/reward")
    first, last = validation[0][1], validation[-1][1]
    best = dict(validation)[run.best_step]
    series = [Series("validation", validation, validation_bands(run), "accent", dots=True)]
    if training := points(run.rows, "reward"):
        series.insert(0, Series("training", training, look="quiet"))
    return line_chart(
        series,
        label=f"Validation reward: {share(first)} at the start, {share(last)} after step {run.steps}, best "
        f"{share(best)} after step {run.best_step}.",
        text=share,
        x_title="step",
        mark=(run.best_step, "best"),
    )


def kind_panels(run: RunRecord) -> list[Panel]:
    """One small chart a kind of criterion, from the start to now, all on scales of one span: slopes can be compared."""
    found = {kind: points(run.validations, f"validation/{kind}") for kind in run.kinds}
    values = {kind: [value for _, value in curve] for kind, curve in found.items()}
    span = max((max(value) - min(value) for value in values.values()), default=0.0)
    return [
        Panel(
            title=kind,
            value=f"{share(value[-1])} ({signed(value[-1] - value[0])})",
            chart=line_chart(
                [Series(kind, found[kind], dots=True)],
                label=f"Share of {kind} criteria that hold: {share(value[0])} at first, {share(value[-1])} at last.",
                text="{:.2f}".format,
                x_title="step",
                span=span,
                small=True,
            ),
        )
        for kind, value in values.items()
    ]


def guard_panels(run: RunRecord) -> list[Panel]:
    """What may stop a run, or should make people look: each curve with the limit the recipe sets."""
    panels = [_drop(run), _norm_ratio(run), _sameness(run), _errors(run), _kl(run), _skipped(run)]
    return [panel for panel in panels if panel is not None]


def points(rows: Sequence[dict[str, Any]], name: str) -> list[Point]:
    """(step, value) of one metric, where it was measured."""
    return [(row["step"], row[name]) for row in rows if not math.isnan(row.get(name, math.nan))]


def _drop(run: RunRecord) -> Panel | None:
    best, found = -math.inf, []
    for step, reward in points(run.validations, "validation/reward"):
        best = max(best, reward)
        found.append((step, best - reward))
    return _guard(
        "Fall from the best",
        found,
        "How far validation reward lies below the best so far. A run stops where it stays beyond the limit for "
        f"{run.settings.get('guards.patience', 2)} validations in a row: the mark of collapse.",
        upper=run.settings.get("guards.max_drop"),
        dots=True,
    )


def _norm_ratio(run: RunRecord) -> Panel | None:
    limit = run.settings.get("guards.max_norm_ratio")
    return _guard(
        "Drift of the velocity",
        points(run.rows, "guard/norm_ratio"),
        "Length of the model's velocity over the frozen start's. A model that games its judge often over- or "
        "undershoots.",
        upper=limit,
        lower=1 / limit if limit else None,
    )


def _sameness(run: RunRecord) -> Panel | None:
    spread = points(run.rows, "guard/diversity")
    if len(spread) < 2 * DIVERSITY_WINDOW:
        return None
    values = np.array([value for _, value in spread])
    running = np.convolve(values, np.full(DIVERSITY_WINDOW, 1 / DIVERSITY_WINDOW), mode="valid")
    steps = [step for step, _ in spread[DIVERSITY_WINDOW - 1 :]]
    return _guard(
        "Diversity of rollouts",
        list(zip(steps, (running / running[0]).tolist(), strict=True)),
        f"How much the pictures of one prompt differ, over {DIVERSITY_WINDOW} steps, as a share of what the start had.",
        lower=run.settings.get("guards.min_diversity"),
        text=percent,
    )


def _errors(run: RunRecord) -> Panel | None:
    found = [(row["step"], row["judge/errors"] / row["verdicts"]) for row in run.rows if row.get("verdicts")]
    limit = run.settings.get("judge.max_error_share")
    return _guard(
        "Judge errors",
        found,
        "Share of verdicts the judge could not give. They are left out of the reward and counted here.",
        upper=limit,
        zero=True,
        text=percent,
    )


def _kl(run: RunRecord) -> Panel | None:
    return _guard(
        "Distance to the start",
        points(run.rows, "guard/kl"),
        "Mean square between the model's velocity and the frozen start's. It may grow, but should not run away.",
        zero=True,
    )


def _skipped(run: RunRecord) -> Panel | None:
    per_step = run.settings.get("prompts.per_step")
    if not per_step:
        return None
    found = [(step, groups / per_step) for step, groups in points(run.rows, "groups/skipped")]
    return _guard(
        "Groups that taught nothing",
        found,
        "Share of prompts whose pictures all got the same reward: nothing to prefer, nothing to learn.",
        zero=True,
        text=percent,
    )


def _guard(
    title: str,
    found: list[Point],
    text_: str,
    *,
    upper: float | None = None,
    lower: float | None = None,
    dots: bool = False,
    zero: bool = False,
    text: Any = "{:.3f}".format,
) -> Panel | None:
    """A guard's panel. None where it was never measured."""
    if not found:
        return None
    last = found[-1][1]
    limits = [Limit(limit, f"limit {text(limit)}") for limit in (upper, lower) if limit is not None]
    crossed = (upper is not None and last > upper) or (lower is not None and last < lower)
    return Panel(
        title=title,
        value=text(last),
        chart=line_chart(
            [Series(title, found, dots=dots)],
            label=f"{title}: {text(last)} at last{'; ' if limits else ''}{', '.join(one.text for one in limits)}.",
            text=text,
            x_title="step",
            limits=limits,
            zero=zero,
            small=True,
        ),
        text=text_,
        crossed=crossed,
    )
