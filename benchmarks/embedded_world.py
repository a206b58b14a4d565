"""What runs of the embedded world came to: `python -m benchmarks.embedded_world RUN RUN ...`.

Test gains and their intervals are those of each run's summary. Layouts are measured here, on validation prompts: eight
pictures a prompt from the start of the run and from its best weights, on the same seeds.
"""

import json as files
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from base_model.generator import Generator
from benchmarks.common import Json, Quick, show
from lens_core.recipes import load_recipe
from lens_core.records import Prompt
from lens_core.seeds import seed_of
from lens_rl.models import open_generator
from lens_rl.prompts import load_splits
from lens_rl.recipe import RlRecipe
from lens_rl.rollout import FeatureBank, plan, roll_out
from lens_rl.shapes.judge import look
from rubrics.rubric import Rubric

SEEDS = 8


def layout_spread(generator: Generator, recipe: RlRecipe, prompts: list[Prompt]) -> float:
    """How far objects wander between pictures of one prompt, as a share of the side.

    For each colour and shape that a prompt counts: the root mean square distance of its objects' middle, picture by
    picture, from where it lies on average; the mean over prompts.
    """
    orders = plan(
        prompts,
        images_per_prompt=SEEDS,
        sizes=recipe.rollout.sizes,
        size_mode="per_group",
        seed=seed_of(recipe.seed, "layouts"),
    )
    middles: dict[tuple[int, str], list[np.ndarray]] = {}
    made = roll_out(
        generator,
        FeatureBank(generator),
        orders,
        num_steps=recipe.evaluation.num_steps,
        sampler=recipe.evaluation.sampler,
        batch_size=recipe.rollout.batch_size,
    )
    for order, one in made:
        seen = look(one.image)
        asked = {c.check["of"] for c in order.prompt.criteria if c.kind == "count" and c.check}
        for of in asked:
            if found := seen.find(of):
                middle = np.mean([(thing.y, thing.x) for thing in found], axis=0) / np.array(one.size)
                middles.setdefault((order.group, of), []).append(middle)
    spreads = [np.sqrt(np.var(where, axis=0, ddof=1).sum()) for where in middles.values() if len(where) > 1]
    return float(np.mean(spreads))


def row_of(run: Path, prompts: int) -> dict[str, Any]:
    """What one finished run gained, and what became of its layouts."""
    summary = files.loads((run / "summary.json").read_text(encoding="utf-8"))
    recipe = load_recipe(RlRecipe, run / "config.yaml")
    asked = list(load_splits(recipe.prompts, Rubric.load(recipe.rubric.path)).validation)[:prompts]
    held_out = summary["held_out"]
    before, after = (layout_spread(open_generator(model), recipe, asked) for model in (recipe.model, str(run)))
    low, high = held_out["gain_interval"]
    return {
        "seed": summary["seed"],
        "base": held_out["base"],
        "trained": held_out["trained"],
        "gain": held_out["gain"],
        "interval": f"[{low:+.3f}, {high:+.3f}]",
        "best step": f"{summary['best_step']} of {summary['steps']}",
        "seconds": summary["wall_seconds"],
        "layouts": f"{before:.3f} -> {after:.3f}",
        "kept": after / before,
    }


def kinds_of(run: Path) -> dict[str, Any]:
    """The gain of each kind of criterion."""
    summary = files.loads((run / "summary.json").read_text(encoding="utf-8"))
    return {"seed": summary["seed"]} | {kind: shares["gain"] for kind, shares in summary["held_out"]["by_kind"].items()}


def main(
    runs: Annotated[list[Path], typer.Argument(help="Finished run folders.")],
    quick: Quick = False,
    json: Json = None,
) -> None:
    """A row a run, and its gains by kind."""
    torch.set_num_threads(1)
    rows, kinds = [row_of(run, 8 if quick else 64) for run in runs], [kinds_of(run) for run in runs]
    show("Runs of the embedded world on test prompts", rows, None)
    show("Gain by kind of criterion", kinds, None)
    if json:
        json.write_text(files.dumps({"rows": rows, "kinds": kinds}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
