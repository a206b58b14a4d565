"""From judged samples to gradients: noise, timesteps, and the losses of one batch.

The images of a step enter in cursor order, size by size; each stands `num_timesteps` times. A
group in which all rewards are equal is left out: its gradient is zero where current equals old.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from base_model.flow import add_noise
from base_model.generator import Features, Generator
from lens_core.records import Sample, Size
from lens_core.seeds import seed_of
from lens_rl import nft
from lens_rl.policy import Policy
from lens_rl.recipe import Nft
from lens_rl.rollout import FeatureBank, Order


@dataclass(frozen=True, slots=True)
class Lesson:
    """One batch to learn from; all its images have one size."""

    x0_BNC: Tensor
    noise_BNC: Tensor
    sigma_B: Tensor
    optimality_B: Tensor
    features: Features
    size: Size


def lessons(
    made: Sequence[tuple[Order, Sample]],
    optimality_PG: Tensor,
    *,
    generator: Generator,
    features: FeatureBank,
    recipe: Nft,
    num_sampler_steps: int,
    batch_size: int,
    seed: int,
) -> Iterator[Lesson]:
    """The batches of one step; `made` holds the images to learn from, in cursor order."""
    by_size: dict[Size, list[tuple[Order, Sample]]] = {}
    for pair in made:
        by_size.setdefault(pair[1].size, []).append(pair)
    for size, pairs in by_size.items():
        grid = generator.sigmas(num_sampler_steps, size)
        for start in range(0, len(pairs), batch_size):
            chunk = pairs[start : start + batch_size]
            x0_BNC = torch.stack([sample.latent for _, sample in chunk])
            text_features = features([order.prompt.text for order, _ in chunk])
            optimality_B = torch.stack([optimality_PG[order.group, order.index] for order, _ in chunk])
            sigma_BT = _sigmas([order for order, _ in chunk], grid, recipe, seed)
            for t in range(sigma_BT.shape[1]):
                keys = [_noise_key(order, recipe.noise) for order, _ in chunk]
                noise_seeds = [seed_of(seed, "noise", t, *key) for key in keys]
                yield Lesson(
                    x0_BNC=x0_BNC,
                    noise_BNC=generator.noise(size, noise_seeds),
                    sigma_B=sigma_BT[:, t].to(x0_BNC),
                    optimality_B=optimality_B.to(x0_BNC.device),
                    features=text_features,
                    size=size,
                )


def timesteps_per_image(recipe: Nft, num_sampler_steps: int) -> int:
    """How often one image is trained on in a step."""
    return recipe.num_timesteps if recipe.timesteps == "stratified" else int(0.99 * num_sampler_steps)


@dataclass(frozen=True, slots=True)
class Losses:
    """Per-sample losses of one lesson, and what the guards want to know (None where not measured)."""

    policy_B: Tensor
    kl_B: Tensor | None
    norm_ratio: float | None
    old_distance: float


def losses(policy: Policy, generator: Generator, lesson: Lesson, recipe: Nft, *, measure_reference: bool) -> Losses:
    """The DiffusionNFT losses of one lesson.

    Old and reference run first and without gradients: a role must not change between the current
    policy's forward and its backward. The reference is run only where the KL or a guard needs it.
    """
    x_BNC = add_noise(lesson.x0_BNC, lesson.noise_BNC, lesson.sigma_B)

    def velocity() -> Tensor:
        return generator.velocity(x_BNC, lesson.sigma_B, lesson.features, lesson.size)

    with torch.no_grad():
        with policy.role("old"):
            v_old_BNC = velocity()
        v_reference_BNC = None
        if measure_reference or recipe.kl_weight > 0:
            with policy.role("reference"):
                v_reference_BNC = velocity()
    v_BNC = velocity()
    return Losses(
        policy_B=nft.policy_loss(
            v_BNC,
            v_old_BNC,
            x_BNC=x_BNC,
            x0_BNC=lesson.x0_BNC,
            sigma_B=lesson.sigma_B,
            optimality_B=lesson.optimality_B,
            nft_beta=recipe.nft_beta,
            clip=recipe.clip,
        ),
        kl_B=None if v_reference_BNC is None else nft.kl_loss(v_BNC, v_reference_BNC),
        norm_ratio=None if v_reference_BNC is None else float(v_BNC.detach().norm() / v_reference_BNC.norm()),
        old_distance=float((v_BNC.detach() - v_old_BNC).square().mean()),
    )


def _sigmas(orders: Sequence[Order], grid: Tensor, recipe: Nft, seed: int) -> Tensor:
    """Training sigmas [B, T]; the images of a group share theirs when they share their noise."""
    num = recipe.num_timesteps if recipe.timesteps == "stratified" else len(grid) - 1
    uniform_BT = torch.stack([_uniform(num, seed_of(seed, "sigma", *_noise_key(o, recipe.noise))) for o in orders])
    if recipe.timesteps == "reference":
        return nft.reference_sigmas(grid, uniform_BT.to(grid.device))
    return nft.stratified_sigmas(grid, uniform_BT.to(grid.device), high_noise_share=recipe.high_noise_share)


def _noise_key(order: Order, noise: str) -> tuple[int, ...]:
    return (order.group,) if noise == "per_group" else (order.group, order.index)


def _uniform(num: int, seed: int) -> Tensor:
    return torch.rand(num, generator=torch.Generator().manual_seed(seed))
