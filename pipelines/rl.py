"""`lens-rl rl`: from a recipe's name to a finished run, its table and its pictures."""

from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lens_core.progress import ProgressDisplay
from lens_core.recipes import find_recipe, load_recipe
from lens_rl.job import Outcome, check_run, run_job
from lens_rl.judges import profiles
from lens_rl.plan import Plan
from lens_rl.recipe import RECIPES, RlRecipe
from lens_rl.report import REPORT
from lens_rl.report.tables import held_out_table
from lens_rl.stages import Watcher

PHASES = ("rollout", "judge", "train")


class BarWatcher(Watcher):
    """Shows each step on one line: reward, where its time went, how long it will take."""

    def __init__(self, display: ProgressDisplay):
        self._display = display
        self._validation = ""

    def step(self, row: dict[str, Any], seconds: dict[str, float]) -> None:
        if "validation/reward" in row:
            self._validation = f"  validation {row['validation/reward']:.3f}"
        total = sum(seconds.get(phase, 0.0) for phase in PHASES) or 1.0
        shares = " ".join(f"{phase} {seconds.get(phase, 0.0) / total:.0%}" for phase in PHASES)
        reward = f"reward {row['reward']:.3f}" if "reward" in row else "start"
        self._display.update(row["step"], f"{reward}{self._validation}  {shares}")

    def stage(self, text: str) -> None:
        self._display.say(f"{text} ...")

    def warn(self, text: str) -> None:
        self._display.say(f"warning: {text}")


def load(recipe: str, overrides: list[str]) -> RlRecipe:
    """A recipe by name or path, with overrides."""
    return load_recipe(RlRecipe, find_recipe(recipe, RECIPES), overrides)


def run(recipe: RlRecipe, folder: Path) -> Outcome:
    """Run the job with a progress bar."""
    with ProgressDisplay(recipe.name, recipe.steps) as display:
        watcher = BarWatcher(display)
        for text in warnings(recipe):
            watcher.warn(text)
        return run_job(recipe, folder, watcher)


def warnings(recipe: RlRecipe) -> list[str]:
    """What to hear before a run that may start all the same."""
    judges = [recipe.judge, *([recipe.held_out_judge] if recipe.held_out_judge else [])]
    return [text for judge in judges for text in profiles.warnings(judge, date.today())]


def dry_run(recipe: RlRecipe) -> tuple[Plan, list[str]]:
    """The plan, and every reason why the recipe would not start here and now."""
    return check_run(recipe)


def print_plan(recipe: RlRecipe, plan: Plan, console: Console) -> None:
    table = Table(title=f"Plan of {recipe.name}", show_header=False)
    for name, value in (
        ("steps", f"{plan.steps}"),
        ("images a step", f"{plan.images_per_step:,} ({recipe.prompts.per_step} x {recipe.rollout.images_per_prompt})"),
        ("images to train on", f"{plan.images:,}"),
        ("images to evaluate", f"{plan.evaluation_images:,}"),
        ("criteria an image", f"{plan.criteria_per_image:.1f}"),
        ("verdicts in all", f"{plan.verdicts:,}"),
        ("forwards an image", f"{plan.forwards_per_image:.0f} (a backward counts two)"),
        ("weights and optimiser", _gib(plan.weights_gib)),
        ("activations of a batch", _gib(plan.activations_gib)),
    ):
        table.add_row(name, value)
    console.print(table)


def _gib(size: float | None) -> str:
    return "the model does not say" if size is None else f"{size:.2f} GiB"


def print_outcome(outcome: Outcome, folder: Path, console: Console) -> None:
    assert outcome.summary is not None
    console.print(held_out_table(outcome.summary))
    summary = outcome.summary
    if outcome.reason not in ("finished", "finished before") or summary["ended"] != "finished":
        console.print(f"[yellow]Stopped early:[/] {summary['ended']}. Handed back: step {summary['best_step']}.")
    console.print(
        f"{summary['steps']} steps, {summary['images']:,} images, {summary['verdicts']:,} verdicts "
        f"({summary['judge_errors']} errors) in {summary['wall_seconds']:.0f} s; best step {summary['best_step']}",
        highlight=False,
    )
    console.print(f"report:  {folder / REPORT}", highlight=False, soft_wrap=True)
    console.print(f"numbers: {folder / 'summary.json'}", highlight=False, soft_wrap=True)
