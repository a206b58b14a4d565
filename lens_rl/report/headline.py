"""A run in a few words and numbers, for somebody who has never seen one."""

import math
from dataclasses import dataclass

from lens_rl.report.compare import Comparison
from lens_rl.report.curves import validation_gain
from lens_rl.report.record import RunRecord
from lens_rl.report.words import NOTHING, count, dollars, duration, percent, share, signed


@dataclass(frozen=True, slots=True)
class Headline:
    """The run in two sentences."""

    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Tile:
    """One number, and what to know about it."""

    name: str
    value: str
    note: str


def headline(run: RunRecord) -> Headline:
    """What became of the run, for somebody who has never seen one."""
    if run.summary is None:
        return _headline_so_far(run)
    found = run.summary["held_out"]
    low, high = found["gain_interval"]
    if math.isnan(found["gain"]):
        return Headline(
            "Reward could not be measured", "No test picture has a reward on both sides: look at the judge."
        )
    before, after = share(found["base"]), share(found["trained"])
    title = f"Reward {'rose' if low > 0 else 'fell'} from {before} to {after}"
    if low <= 0 <= high:
        title = f"Reward did not clearly change: {before} before, {after} after"
    clear = "clear of zero" if low > 0 or high < 0 else "which includes zero"
    text = (
        f"Measured on {count(found['n'])} pictures of {count(found['prompts'])} test prompts that it never "
        f"trained on, with the same seeds before and after: {signed(found['gain'])}, with a 95 % interval from "
        f"{signed(low)} to {signed(high)}, {clear}."
    )
    return Headline(title, text)


def headline_of(comparison: Comparison) -> Headline:
    """Who is ahead, said only as far as the intervals carry it."""
    title = f"{len(comparison.runs)} runs beside each other"
    tested = sorted(((run.test, run.name) for run in comparison.runs if run.test), key=lambda one: -one[0]["gain"])
    if len(tested) < 2:
        return Headline(title, "Fewer than two of them have been tested; the curves are of their validation prompts.")
    (first, name), (second, next_name) = tested[:2]
    overlap = first["gain_interval"][0] <= second["gain_interval"][1]
    text = (
        f"The largest gain on test prompts is that of {name}, {signed(first['gain'])}; next comes {next_name} with "
        f"{signed(second['gain'])}. Their intervals {'overlap' if overlap else 'do not overlap'}."
    )
    if not comparison.same_test:
        text += " They did not start from the same reward on the test prompts, so compare gains, not what was reached."
    return Headline(title, text)


def tiles(run: RunRecord) -> list[Tile]:
    """The few numbers under the headline; the first is the gain, once there is one."""
    images, verdicts, errors = verdict_counts(run)
    seconds = sum(run.seconds.values())
    so_far = [
        Tile("Steps", count(run.steps), f"best after {run.best_step}"),
        Tile("Time", duration(seconds), f"{duration(seconds / max(run.steps, 1))} a step"),
        Tile("Pictures", count(images), "made and judged"),
        Tile("Verdicts", count(verdicts), f"{count(errors)} errors" if errors else "no errors"),
    ]
    if run.summary is None:
        return so_far
    held_out, spread = run.summary["held_out"], run.summary["diversity"]
    low, high = held_out["gain_interval"]
    kept = percent(spread["trained"] / spread["base"]) if spread["base"] > 0 else NOTHING
    return [
        Tile("Gain", signed(held_out["gain"]), f"{signed(low)} to {signed(high)}"),
        *so_far,
        Tile("Judge cost", dollars(run.summary["cost_usd"]), "for all verdicts"),
        Tile("Diversity kept", kept, f"{share(spread['base'])} to {share(spread['trained'])}"),
    ]


def why_stopped(run: RunRecord) -> str:
    """Which stop rule ended the run, as the beginning of a sentence; empty where none did."""
    ended = run.summary["ended"] if run.summary else "finished"
    return "" if ended == "finished" else ended[0].upper() + ended[1:]


def reward_in_words(run: RunRecord) -> str:
    """What the run's reward is."""
    kinds = [reward["kind"] for reward in run.settings.get("rewards", [])]
    if all(kind == "rubric" for kind in kinds):
        return "the share of a prompt's yes/no criteria that the judge finds to hold in a picture"
    return f"the weighted mean of what {', '.join(kinds)} say of a picture"


def verdict_counts(run: RunRecord) -> tuple[int, int, int]:
    """Pictures, verdicts and judge errors of the run so far."""
    if run.summary:
        return run.summary["images"], run.summary["verdicts"], run.summary["judge_errors"]
    return (
        int(run.total("images", "validation/images")),
        int(run.total("verdicts", "validation/verdicts")),
        int(run.total("judge/errors", "validation/errors")),
    )


def _headline_so_far(run: RunRecord) -> Headline:
    first = run.validations[0]["validation/reward"]
    best = max(row["validation/reward"] for row in run.validations)
    if run.steps == 0:
        return Headline(f"Reward starts at {share(first)}", "No step has been trained yet.")
    gained = signed(best - first)
    if gain := validation_gain(run, run.best_step):
        gained += f", with a 95 % interval from {signed(gain[1][0])} to {signed(gain[1][1])}"
    return Headline(
        f"Reward went from {share(first)} to {share(best)} so far",
        f"On validation prompts, after step {run.best_step}: {gained}. These prompts also choose the checkpoint, "
        "so this is a little too good; the test prompts are touched once, when the run ends.",
    )
