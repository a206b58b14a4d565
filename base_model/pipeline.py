"""From prompts to pictures: `sample` for any generator, and a small pipeline for people.

Shapes: B samples, N image tokens, C token channels; a size is (height, width).
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from base_model.generator import Features, Generator
from base_model.lens import LensGenerator
from base_model.samplers import SAMPLERS, Callback, Sampler
from lens_core.records import Size


@torch.no_grad()
def sample(
    generator: Generator,
    features: Features,
    size: Size,
    seeds: Sequence[int],
    *,
    num_steps: int,
    sampler: str | Sampler = "euler",
    guidance: float = 1.0,
    callback: Callback | None = None,
) -> Tensor:
    """Clean latents x_BNC, one for each row of `features` and seed.

    A guidance of 1 skips the unconditional pass. The two passes of guidance are separate: the one without
    text has fewer tokens and nothing to mask.
    """
    if len(features) != len(seeds):
        raise ValueError(f"{len(features)} rows of features and {len(seeds)} seeds; there must be one seed a row")
    run = choose_sampler(sampler) if isinstance(sampler, str) else sampler
    unconditional = generator.unconditional(len(seeds)) if guidance != 1 else None

    def velocity(x_BNC: Tensor, sigma_B: Tensor) -> Tensor:
        v = generator.velocity(x_BNC, sigma_B, features, size)
        if unconditional is None:
            return v
        return generator.guide(v, generator.velocity(x_BNC, sigma_B, unconditional, size), guidance)

    return run(velocity, generator.noise(size, seeds), generator.sigmas(num_steps, size), callback)


def choose_sampler(name: str) -> Sampler:
    """A sampler by name."""
    if name not in SAMPLERS:
        raise ValueError(f"sampler: {name!r} is unknown; there are {', '.join(SAMPLERS)}")
    return SAMPLERS[name]


class LensPipeline:
    """Prompts in, PIL images out.

    >>> images = LensPipeline.from_pretrained("lens")("a red circle", size=(1024, 1024), seed=7)
    """

    def __init__(self, generator: LensGenerator):
        self.generator = generator

    @classmethod
    def from_pretrained(
        cls, path: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> "LensPipeline":
        """The pipeline of a checkpoint folder."""
        return cls(LensGenerator.load(path, device, dtype))

    def __call__(
        self,
        prompts: str | Sequence[str],
        size: Size = (1024, 1024),
        *,
        num_steps: int = 20,
        guidance: float = 5.0,
        seed: int | Sequence[int] = 0,
        sampler: str = "euler",
        negative_prompt: str = "",
    ) -> list[Image.Image]:
        """One image a prompt. A single `seed` is that of the first prompt; the others count on from it."""
        if negative_prompt.strip():
            raise ValueError("negative_prompt: only the empty one is supported")
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        seeds = range(seed, seed + len(texts)) if isinstance(seed, int) else seed
        features = self.generator.encode(texts)
        latents = sample(self.generator, features, size, seeds, num_steps=num_steps, sampler=sampler, guidance=guidance)
        return [Image.fromarray(image) for image in self.generator.images(latents, size)]
