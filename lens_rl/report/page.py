"""From a run folder to its page: one file without scripts or links, that opens anywhere and says the same there.

Texts from prompts, criteria and recipes are escaped by the templates, and the page forbids itself to load or run
anything.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader, StrictUndefined

from lens_core.runs import write_whole
from lens_rl.intervals import MARGIN
from lens_rl.report import words
from lens_rl.report.charts import Scale
from lens_rl.report.compare import Comparison, curves
from lens_rl.report.curves import guard_panels, kind_panels, learning_chart
from lens_rl.report.headline import headline, headline_of, reward_in_words, tiles, verdict_counts, why_stopped
from lens_rl.report.pictures import cards_of_test, film_strips
from lens_rl.report.record import RunRecord, read_run

REPORT = "report.html"
PHASES = {
    "rollout": "making pictures",
    "judge": "waiting for the judge",
    "train": "learning",
    "evaluate": "validation",
    "test": "closing test",
}


def write_report(run: Path, file: Path | None = None) -> Path:
    """Write the page of a run folder as it is now, to `report.html` in it if nowhere else, and return the file.

    Raises RunProblem where it is no run folder, or where nothing has been logged yet.
    """
    file = file or run / REPORT
    write_whole(file, render_report(read_run(run)))
    return file


def write_comparison(records: Sequence[RunRecord], comparison: Comparison, file: Path) -> Path:
    """Write the page that lays runs over each other."""
    by_step, by_minutes = curves(records, comparison)
    page = template("compare.html.j2").render(
        comparison=comparison,
        headline=headline_of(comparison),
        bands=bool(by_step.curves[0].band),
        by_step=by_step,
        by_minutes=by_minutes,
        gains=_gain_scale([run.test for run in comparison.runs if run.test]),
    )
    write_whole(file, page)
    return file


def render_report(run: RunRecord) -> str:
    """The page of one run as HTML."""
    held_out = run.summary["held_out"] if run.summary else None
    return template("report.html.j2").render(
        run=run,
        headline=headline(run),
        stopped=why_stopped(run),
        reward=reward_in_words(run),
        tiles=tiles(run),
        learning=learning_chart(run),
        kind_panels=kind_panels(run),
        held_out=held_out,
        gains=_gain_scale([held_out, *held_out["by_kind"].values()]) if held_out else None,
        margin=MARGIN,
        cards=cards_of_test(run),
        strips=film_strips(run),
        guards=guard_panels(run),
        phases=_phases(run),
        verdicts=verdict_counts(run),
    )


def _phases(run: RunRecord) -> list[tuple[str, str, float]]:
    """(what, how long, share of the whole) of each phase that took any time."""
    whole = sum(run.seconds.values()) or 1.0
    return [(PHASES[name], words.duration(spent), spent / whole) for name, spent in run.seconds.items() if spent > 0]


def _gain_scale(found: Sequence[dict[str, Any]]) -> Scale | None:
    """One scale for all intervals of gains on a page; zero is on it. None where there is no interval."""
    edges = [edge for one in found for edge in one["gain_interval"] if math.isfinite(edge)]
    if not edges:
        return None
    low, high = min(0.0, *edges), max(0.0, *edges)
    room = 0.05 * (high - low) or 0.01
    return Scale(low - room, high + room)


@lru_cache
def _environment(folder: Path | None) -> Environment:
    ours = PackageLoader("lens_rl", "report")
    environment = Environment(
        loader=ChoiceLoader([FileSystemLoader(folder), ours]) if folder else ours,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        name: getattr(words, name) for name in ("share", "signed", "count", "percent", "duration", "dollars", "plain")
    }
    return environment


def template(name: str, folder: Path | None = None) -> Any:
    """A template by name, of this package or of `folder`; the latter may import the parts of the former."""
    return _environment(folder).get_template(name)
