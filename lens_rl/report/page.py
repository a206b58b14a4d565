"""From a run folder to its page: one file without scripts or links, that opens anywhere and says the same there.

Texts from prompts, criteria and recipes are escaped by the templates, and the page forbids itself to load or run
anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from lens_core.runs import write_whole
from lens_rl.intervals import MARGIN
from lens_rl.report import words
from lens_rl.report.charts import Scale
from lens_rl.report.compare import Comparison, curves
from lens_rl.report.curves import guard_panels, kind_panels, learning_chart, validation_gain
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


@dataclass(frozen=True, slots=True)
class Headline:
    """The run in two sentences."""

    title: str
    text: str


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
        headline=_headline_of(comparison),
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
        stopped=_stopped(run),
        reward=_reward(run),
        tiles=_tiles(run),
        learning=learning_chart(run),
        kind_panels=kind_panels(run),
        held_out=held_out,
        gains=_gain_scale([held_out, *held_out["by_kind"].values()]) if held_out else None,
        margin=MARGIN,
        cards=cards_of_test(run),
        strips=film_strips(run),
        guards=guard_panels(run),
        phases=_phases(run),
        verdicts=_verdicts(run),
    )


def headline(run: RunRecord) -> Headline:
    """What became of the run, for somebody who has never seen one."""
    if run.summary is None:
        return _headline_so_far(run)
    found = run.summary["held_out"]
    low, high = found["gain_interval"]
    before, after = words.share(found["base"]), words.share(found["trained"])
    title = f"Reward {'rose' if low > 0 else 'fell'} from {before} to {after}"
    if low <= 0 <= high:
        title = f"Reward did not clearly change: {before} before, {after} after"
    clear = "clear of zero" if low > 0 or high < 0 else "which includes zero"
    text = (
        f"Measured on {words.count(found['n'])} pictures of {words.count(found['prompts'])} test prompts that it never "
        f"trained on, with the same seeds before and after: {words.signed(found['gain'])}, with a 95 % interval from "
        f"{words.signed(low)} to {words.signed(high)}, {clear}."
    )
    return Headline(title, text)


def _stopped(run: RunRecord) -> str:
    """Which stop rule ended the run, as the beginning of a sentence; empty where none did."""
    ended = run.summary["ended"] if run.summary else "finished"
    return "" if ended == "finished" else ended[0].upper() + ended[1:]


def _reward(run: RunRecord) -> str:
    """What the run's reward is."""
    kinds = [reward["kind"] for reward in run.settings.get("rewards", [])]
    if all(kind == "rubric" for kind in kinds):
        return "the share of a prompt's yes/no criteria that the judge finds to hold in a picture"
    return f"the weighted mean of what {', '.join(kinds)} say of a picture"


def _headline_so_far(run: RunRecord) -> Headline:
    first = run.validations[0]["validation/reward"]
    best = max(row["validation/reward"] for row in run.validations)
    if run.steps == 0:
        return Headline(f"Reward starts at {words.share(first)}", "No step has been trained yet.")
    gained = words.signed(best - first)
    if gain := validation_gain(run, run.best_step):
        gained += f", with a 95 % interval from {words.signed(gain[1][0])} to {words.signed(gain[1][1])}"
    return Headline(
        f"Reward went from {words.share(first)} to {words.share(best)} so far",
        f"On validation prompts, after step {run.best_step}: {gained}. These prompts also choose the checkpoint, "
        "so this is a little too good; the test prompts are touched once, when the run ends.",
    )


def _headline_of(comparison: Comparison) -> Headline:
    """Who is ahead, said only as far as the intervals carry it."""
    title = f"{len(comparison.runs)} runs beside each other"
    tested = sorted((run for run in comparison.runs if run.test), key=lambda run: -run.test["gain"])
    if len(tested) < 2:
        return Headline(title, "Fewer than two of them have been tested; the curves are of their validation prompts.")
    first, second = tested[:2]
    low, high = first.test["gain_interval"][0], second.test["gain_interval"][1]
    apart = "their intervals do not overlap" if low > high else "the intervals of the two overlap"
    text = (
        f"The largest gain on test prompts is that of {first.name}, {words.signed(first.test['gain'])}; next comes "
        f"{second.name} with {words.signed(second.test['gain'])}, and {apart}."
    )
    if not comparison.same_test:
        text += " They did not start from the same reward on the test prompts, so compare gains, not what was reached."
    return Headline(title, text)


def _tiles(run: RunRecord) -> list[tuple[str, str, str]]:
    """(name, value, note) of the few numbers under the headline."""
    seconds = sum(run.seconds.values())
    tiles = [("Steps", words.count(run.steps), f"best after {run.best_step}")]
    tiles.append(("Time", words.duration(seconds), f"{words.duration(seconds / max(run.steps, 1))} a step"))
    images, verdicts, errors = _verdicts(run)
    share = f"{words.count(errors)} errors" if errors else "no errors"
    tiles.append(("Pictures", words.count(images), "made and judged"))
    tiles.append(("Verdicts", words.count(verdicts), share))
    if run.summary is None:
        return tiles
    found, spread = run.summary["held_out"], run.summary["diversity"]
    low, high = found["gain_interval"]
    gain = ("Gain", words.signed(found["gain"]), f"{words.signed(low)} to {words.signed(high)}")
    tiles.append(("Judge cost", words.dollars(run.summary["cost_usd"]), "for all verdicts"))
    kept = words.percent(spread["trained"] / spread["base"]) if spread["base"] > 0 else words.NOTHING
    note = f"{words.share(spread['base'])} to {words.share(spread['trained'])}"
    tiles.append(("Diversity kept", kept, note))
    return [gain, *tiles]


def _verdicts(run: RunRecord) -> tuple[int, int, int]:
    """Pictures, verdicts and judge errors of the run so far."""
    if run.summary:
        return run.summary["images"], run.summary["verdicts"], run.summary["judge_errors"]
    return (
        int(run.total("images", "validation/images")),
        int(run.total("verdicts", "validation/verdicts")),
        int(run.total("judge/errors", "validation/errors")),
    )


def _phases(run: RunRecord) -> list[tuple[str, str, float]]:
    """(what, how long, share of the whole) of each phase that took any time."""
    whole = sum(run.seconds.values()) or 1.0
    return [(PHASES[name], words.duration(spent), spent / whole) for name, spent in run.seconds.items() if spent > 0]


def _gain_scale(found: Sequence[dict[str, Any]]) -> Scale | None:
    """One scale for all intervals of gains on a page; zero is on it."""
    if not found:
        return None
    edges = [edge for one in found for edge in one["gain_interval"]]
    low, high = min(0.0, *edges), max(0.0, *edges)
    room = 0.05 * (high - low) or 0.01
    return Scale(low - room, high + room)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("lens_rl", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        name: getattr(words, name) for name in ("share", "signed", "count", "percent", "duration", "dollars", "plain")
    }
    return environment


def template(name: str) -> Any:
    return _environment().get_template(name)
