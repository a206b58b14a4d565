"""The pictures that a run showed its judge at its best validation, made again: a run keeps verdicts, not pictures.

Prompts, sizes and seeds are those of the validation, so verdicts that the run has stored answer for them.
"""

from pathlib import Path

import torch
from PIL import Image

from lens_core.progress import ProgressDisplay
from lens_core.recipes import RecipeProblem, load_recipe
from lens_core.runs import RunFolder, whole_folder
from lens_core.seeds import seed_of
from lens_rl.guards import best_step
from lens_rl.models import open_generator
from lens_rl.prompts import load_splits
from lens_rl.recipe import RlRecipe
from lens_rl.rollout import FeatureBank, plan, roll_out
from rubrics.rubric import Rubric
from taxonomy.prompt_set import write_prompts


def remake_validation(run: Path, out: Path) -> tuple[Path, int]:
    """A folder in `out` with the pictures and their prompts.jsonl, made unless it is there; and their step.

    Raises RecipeProblem for a run that has not got so far.
    """
    recipe = load_recipe(RlRecipe, run / "config.yaml")
    folder = RunFolder(run)
    rows = [row for row in folder.metrics() if row["step"] in folder.checkpoints()]
    if not rows:
        raise RecipeProblem(f"--on {run}: the run has no checkpoint yet")
    step = best_step(rows)
    pictures = out / f"validation-{step:06d}"
    if pictures.is_dir():
        return pictures, step
    prompts = load_splits(recipe.prompts, Rubric.load(recipe.rubric.path)).validation
    orders = plan(
        prompts,
        images_per_prompt=recipe.evaluation.images_per_prompt,
        sizes=recipe.rollout.sizes,
        size_mode="per_group",
        seed=seed_of(recipe.seed, "evaluation", "validation"),
    )
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
    generator = open_generator(str(run), device, dtype, features=recipe.features)
    made = roll_out(
        generator,
        FeatureBank(generator),
        orders,
        num_steps=recipe.evaluation.num_steps,
        sampler=recipe.evaluation.sampler,
        batch_size=recipe.rollout.batch_size,
        guidance=recipe.evaluation.guidance,
    )
    with whole_folder(pictures) as draft, ProgressDisplay("pictures", len(orders)) as bar:
        write_prompts(draft / "prompts.jsonl", prompts)
        for done, (order, sample) in enumerate(made, start=1):
            Image.fromarray(sample.image).save(draft / f"{order.prompt.id}-{order.index}.png")
            bar.update(done, order.prompt.text)
    return pictures, step
