"""What a recipe will do, before it does anything: pictures, verdicts, forwards, memory."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from base_model.checkpoint import stored_transformer, stored_vae
from base_model.latents import size_multiple
from base_model.lens import LORA_TARGETS
from base_model.memory import Batch, Memory, training_memory
from lens_core.doors import PREFIX
from lens_core.recipes import RecipeProblem
from lens_rl.learning import timesteps_per_image
from lens_rl.models import resolve
from lens_rl.recipe import RlRecipe

TEXT_TOKENS = 64
"""Of a prompt, for the count of memory: what a text adds is little beside its picture."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Counts of one run. Memory is that of the transformer, and None where the model does not say.

    `weights_gib` holds weights, roles, gradients and moments; `activations_gib` is what one batch adds to them.
    """

    steps: int
    images_per_step: int
    images: int
    criteria_per_image: float
    verdicts: int
    evaluation_images: int
    forwards_per_image: float
    weights_gib: float | None
    activations_gib: float | None


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
    memory = _memory(recipe)
    return Plan(
        steps=recipe.steps,
        images_per_step=images_per_step,
        images=images,
        criteria_per_image=criteria_per_image,
        verdicts=round((images + evaluation_images) * criteria_per_image),
        evaluation_images=evaluation_images,
        forwards_per_image=recipe.rollout.num_steps
        + timesteps_per_image(recipe.nft, recipe.rollout.num_steps) * per_timestep,
        weights_gib=(memory.weights + memory.trained) / 2**30 if memory else None,
        activations_gib=memory.activations / 2**30 if memory else None,
    )


def _memory(recipe: RlRecipe) -> Memory | None:
    """Of training on one batch of the largest size, the text encoder and the autoencoder not counted."""
    try:
        source = resolve(recipe.model)
    except RecipeProblem:
        return None  # the check of the model says why
    if source.base.startswith(PREFIX):
        return None
    try:
        config = stored_transformer(Path(source.base), source.transformer).config
        side = size_multiple(stored_vae(Path(source.base)).config)
        height, width = max(recipe.rollout.sizes, key=math.prod)
        return training_memory(
            config,
            torch.bfloat16 if recipe.precision == "bf16" else torch.float32,
            Batch(recipe.rollout.batch_size, (height // side, width // side), TEXT_TOKENS),
            lora_rank=recipe.policy.rank if recipe.policy.kind == "lora" else None,
            targets=LORA_TARGETS,
            checkpointing=recipe.gradient_checkpointing,
        )
    except (ValueError, TypeError, KeyError) as error:
        raise RecipeProblem(f"model: {source.base} does not describe a Lens transformer: {error}") from error
