"""What a recipe will do, before it does anything: pictures, verdicts, forwards, memory."""

import json
from dataclasses import dataclass
from typing import Any, cast

import torch

from base_model.lens import LORA_TARGETS
from base_model.transformer import LensTransformer
from lens_core.recipes import RecipeProblem
from lens_rl.learning import timesteps_per_image
from lens_rl.models import model_folder
from lens_rl.recipe import RlRecipe

ROLES_THAT_TRAIN = 3
"""current, old and ema; the reference is kept beside them only where all weights train."""
ADAM_MOMENTS = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """Counts of one run. `weights_gib` is None where the model folder does not say."""

    steps: int
    images_per_step: int
    images: int
    criteria_per_image: float
    verdicts: int
    evaluation_images: int
    forwards_per_image: float
    weights_gib: float | None


def make_plan(recipe: RlRecipe, criteria_per_image: float) -> Plan:
    """The counts; forwards are forward-equivalents, a backward counted as two."""
    images_per_step = recipe.prompts.per_step * recipe.rollout.images_per_prompt
    validations = 1 + -(-recipe.steps // recipe.evaluation.every)
    evaluation_images = (
        validations * recipe.prompts.validation * recipe.evaluation.images_per_prompt
        + 2 * recipe.prompts.test * recipe.evaluation.test_images_per_prompt
    )
    images = recipe.steps * images_per_step
    per_timestep = 4 + (recipe.nft.kl_weight > 0)
    return Plan(
        steps=recipe.steps,
        images_per_step=images_per_step,
        images=images,
        criteria_per_image=criteria_per_image,
        verdicts=round((images + evaluation_images) * criteria_per_image),
        evaluation_images=evaluation_images,
        forwards_per_image=recipe.rollout.num_steps
        + timesteps_per_image(recipe.nft, recipe.rollout.num_steps) * per_timestep,
        weights_gib=_weights_gib(recipe),
    )


def _weights_gib(recipe: RlRecipe) -> float | None:
    """Memory of weights, roles, gradients and optimiser in fp32 (LoRA: the frozen base as stored)."""
    file = model_folder(recipe.model) / "transformer" / "config.json"
    if not file.is_file():
        return None
    try:
        with torch.device("meta"):
            module = cast(Any, LensTransformer).from_config(json.loads(file.read_text()))
    except (ValueError, TypeError, KeyError) as error:
        raise RecipeProblem(f"model: {file} does not describe a Lens transformer: {error}") from error
    base = sum(parameter.numel() for parameter in module.parameters())
    if recipe.policy.kind == "full":
        return base * 4 * (ROLES_THAT_TRAIN + 1 + 1 + ADAM_MOMENTS) / 2**30
    adapter = sum(
        recipe.policy.rank * (part.in_features + part.out_features)
        for name, part in module.named_modules()
        if isinstance(part, torch.nn.Linear) and name.endswith(tuple(LORA_TARGETS))
    )
    width = 2 if recipe.precision == "bf16" else 4
    return (base * width + adapter * 4 * (ROLES_THAT_TRAIN + 1 + ADAM_MOMENTS)) / 2**30
