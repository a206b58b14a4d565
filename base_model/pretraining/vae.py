"""Training a small FLUX.2-style autoencoder: reconstruction and a weak KL, then exact latent statistics.

Shapes: B images, H, W pixels, h, w latent positions, c latent channels.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2
from torch import Tensor

from base_model.latents import patchify
from base_model.pretraining.losses import kl_to_normal, reconstruction
from base_model.pretraining.recipe import Vae
from lens_core.records import Size
from lens_core.seeds import seed_of

WARMUP = 50

Report = Callable[[int, float], None]


def build_vae(recipe: Vae, *, seed: int) -> AutoencoderKLFlux2:
    """An untrained autoencoder; the same seed gives the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(seed, "vae"))
        return AutoencoderKLFlux2(
            block_out_channels=recipe.widths,
            down_block_types=("DownEncoderBlock2D",) * len(recipe.widths),
            up_block_types=("UpDecoderBlock2D",) * len(recipe.widths),
            layers_per_block=recipe.layers_per_block,
            latent_channels=recipe.latent_channels,
            norm_num_groups=recipe.norm_groups,
            mid_block_add_attention=recipe.attention,
        )


def train_vae(images: dict[Size, np.ndarray], recipe: Vae, *, seed: int, report: Report) -> AutoencoderKLFlux2:
    """Train on uint8 images [B, H, W, 3] by bucket; `report(step, loss)` hears of every step."""
    vae = build_vae(recipe, seed=seed).train()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=recipe.lr, betas=(0.9, 0.99), weight_decay=1e-4)
    random = np.random.default_rng(seed_of(seed, "vae batches"))
    noise = torch.Generator().manual_seed(seed_of(seed, "vae noise"))
    sizes = list(images)
    for step in range(1, recipe.steps + 1):
        bucket = images[sizes[random.integers(len(sizes))]]
        pixels = to_pixels(bucket[random.integers(0, len(bucket), recipe.batch_size)])
        loss = _loss(vae, pixels, recipe.kl_weight, noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * _schedule(step, recipe.steps)
        optimizer.step()
        optimizer.zero_grad()
        report(step, float(loss.detach()))
    vae.eval().requires_grad_(False)
    fit_statistics(vae, [images[size] for size in sizes])
    return vae


@torch.no_grad()
def fit_statistics(vae: AutoencoderKLFlux2, images: Sequence[np.ndarray], *, at_once: int = 512) -> None:
    """Set the BatchNorm buffers to the exact mean and variance of the packed latents, per channel.

    Two passes in float64 with the encoder frozen: running averages would lag behind the encoder.
    """
    tokens = [
        patchify(_encode(vae, to_pixels(bucket[start : start + at_once]))[0]).flatten(0, 1).double()
        for bucket in images
        for start in range(0, len(bucket), at_once)
    ]
    all_tokens = torch.cat(tokens)
    cast(Tensor, vae.bn.running_mean).copy_(all_tokens.mean(dim=0))
    cast(Tensor, vae.bn.running_var).copy_(all_tokens.var(dim=0, correction=0))


def to_pixels(images: np.ndarray) -> Tensor:
    """uint8 [B, H, W, 3] to float [B, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def _loss(vae: AutoencoderKLFlux2, pixels: Tensor, kl_weight: float, noise: torch.Generator) -> Tensor:
    mean, logvar = _encode(vae, pixels)
    latent = mean + (0.5 * logvar).exp() * torch.randn(mean.shape, generator=noise)
    decoded = cast(Any, vae).decode(latent, return_dict=False)[0]
    return reconstruction(decoded, pixels) + kl_weight * kl_to_normal(mean, logvar)


def _encode(vae: AutoencoderKLFlux2, pixels: Tensor) -> tuple[Tensor, Tensor]:
    (posterior,) = vae.encode(pixels, return_dict=False)
    return posterior.mean, posterior.logvar


def _schedule(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine to a twentieth."""
    return min(1.0, step / WARMUP) * (0.05 + 0.95 * 0.5 * (1 + np.cos(np.pi * step / steps)))
