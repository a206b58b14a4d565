"""From text features to clean latents, with any generator: noise, guidance and sampler put together.

Shapes: B samples, N image tokens, C token channels; a size is (height, width).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from base_model.generator import Features, Generator
from base_model.samplers import SAMPLERS, Callback, Sampler
from lens_core.records import Size


def sample(
    generator: Generator,
    features: Features,
    size: Size,
    seeds: Sequence[int],
    *,
    num_steps: int,
    sampler: str | Sampler = "euler",
    guidance: float = 1.0,
    negative: Features | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Clean latents x_BNC, one for each row of `features` and seed: `denoise` from the seeds' own noise."""
    if len(features) != len(seeds):
        raise ValueError(f"{len(features)} rows of features and {len(seeds)} seeds; there must be one seed a row")
    return denoise(
        generator,
        features,
        size,
        generator.noise(size, seeds),
        num_steps=num_steps,
        sampler=sampler,
        guidance=guidance,
        negative=negative,
        callback=callback,
    )


@torch.no_grad()
def denoise(
    generator: Generator,
    features: Features,
    size: Size,
    noise_BNC: Tensor,
    *,
    num_steps: int,
    sampler: str | Sampler = "euler",
    guidance: float = 1.0,
    negative: Features | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Clean latents x_BNC from given noise.

    Guidance leads away from `negative`, features of B texts, or from no text where there are none. A guidance
    of 1 skips that second pass. The two passes are separate: the one without text has fewer tokens and nothing
    to mask.
    """
    run = choose_sampler(sampler) if isinstance(sampler, str) else sampler
    if guidance != 1 and negative is None:
        negative = generator.unconditional(len(noise_BNC))

    def velocity(x_BNC: Tensor, sigma_B: Tensor) -> Tensor:
        v = generator.velocity(x_BNC, sigma_B, features, size)
        if guidance == 1:
            return v
        return generator.guide(v, generator.velocity(x_BNC, sigma_B, negative, size), guidance)

    return run(velocity, noise_BNC, generator.sigmas(num_steps, size), callback)


def negative_features(generator: Generator, texts: Sequence[str]) -> Features | None:
    """What guidance leads away from, by the release's rule: one row a text.

    None, no text tokens at all, where every text is blank. As soon as one says something all are encoded, the
    blank ones too.
    """
    return generator.encode(texts) if any(text.strip() for text in texts) else None


def choose_sampler(name: str) -> Sampler:
    """A sampler by name."""
    if name not in SAMPLERS:
        raise ValueError(f"sampler: {name!r} is unknown; there are {', '.join(SAMPLERS)}")
    return SAMPLERS[name]
