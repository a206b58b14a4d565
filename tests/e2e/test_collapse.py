"""The collapse drill: the shipped recipe without its pull to the start and with three times its learning rate."""

import pytest

from lens_core.recipes import find_recipe, load_recipe
from lens_core.runs import RunFolder
from lens_rl.guards import best_step
from lens_rl.job import run_job
from lens_rl.recipe import RECIPES, RlRecipe

FAST = (
    "prompts.test=34",
    "evaluation.test_images_per_prompt=1",
    "evaluation.every=5",
    # Half the pictures a step: noisier gradients, so it falls sooner, in half the time.
    "prompts.per_step=16",
)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_collapsing_run_stops_by_its_own_rule_and_hands_back_its_best(tmp_path):
    shipped = load_recipe(RlRecipe, find_recipe("shapes", RECIPES), [])
    collapse = ("nft.kl_weight=0", f"optimizer.lr={3 * shipped.optimizer.lr}", "optimizer.lr_decay=constant")
    recipe = load_recipe(RlRecipe, find_recipe("shapes", RECIPES), [*FAST, *collapse])

    outcome = run_job(recipe, tmp_path / "run")

    assert outcome.summary is not None and outcome.reason != "finished" and outcome.summary["steps"] < recipe.steps
    with RunFolder(tmp_path / "run") as folder:
        rows, kept = folder.metrics(), folder.checkpoints()
    validated = {row["step"]: row["validation/reward"] for row in rows if "validation/reward" in row}
    handed_back = outcome.summary["best_step"]
    assert handed_back == best_step(rows) and handed_back in kept
    assert validated[handed_back] >= 0.98 * max(validated.values())
