"""`lens-rl generate`: texts to PNG files, each with what made it in its metadata."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from base_model.pipeline import sample
from base_model.samplers import SAMPLERS
from lens_core.recipes import RecipeProblem, nearest
from lens_core.records import Size
from lens_core.seeds import seed_of
from lens_rl.models import open_generator

USUAL_SIDE_IN_MULTIPLES = {4: 5, 8: 4}
"""Usual square by size multiple: small models have small pictures; 1024 pixels for all others."""


def write_pictures(
    prompts: Sequence[str],
    model: str,
    out: Path,
    *,
    count: int,
    size: str | None,
    steps: int,
    guidance: float,
    seed: int,
    sampler: str,
) -> list[Path]:
    """One PNG a prompt and seed in `out`; returns their paths. Raises RecipeProblem for what cannot be drawn."""
    if sampler not in SAMPLERS:
        raise RecipeProblem(f"--sampler: unknown sampler {sampler!r}{nearest(sampler, SAMPLERS)}")
    if blank := [text for text in prompts if not text.strip()]:
        raise RecipeProblem(f"{len(blank)} of the prompts are empty: say what to draw")
    generator = open_generator(model, "cuda" if torch.cuda.is_available() else "cpu")
    height, width = _size(size, generator.size_multiple)
    features = generator.encode(list(prompts))
    out.mkdir(parents=True, exist_ok=True)
    files = []
    for row, text in enumerate(prompts):
        seeds = [seed_of(seed, "generate", text, index) for index in range(count)]
        latent_BNC = sample(
            generator,
            generator.select(features, torch.full((count,), row)),
            (height, width),
            seeds,
            num_steps=steps,
            sampler=sampler,
            guidance=guidance,
        )
        for index, image in enumerate(generator.images(latent_BNC, (height, width))):
            info = PngInfo()
            for key, value in {
                "prompt": text,
                "model": model,
                "seed": seed,
                "index": index,
                "steps": steps,
                "guidance": guidance,
                "sampler": sampler,
            }.items():
                info.add_itxt(f"lens-rl:{key}", str(value))
            files.append(out / f"{row:04d}-{index:02d}.png")
            Image.fromarray(image).save(files[-1], pnginfo=info)
    return files


def _size(text: str | None, multiple: int) -> Size:
    if text is None:
        side = USUAL_SIDE_IN_MULTIPLES.get(multiple, 1024 // multiple) * multiple
        return side, side
    try:
        height, width = (int(side) for side in text.lower().split("x"))
    except ValueError as error:
        raise RecipeProblem(f"--size {text}: write it as HxW, for example 1024x768") from error
    if min(height, width) < multiple or height % multiple or width % multiple:
        fix = [max(multiple, round(side / multiple) * multiple) for side in (height, width)]
        raise RecipeProblem(f"--size {text}: sides must be multiples of {multiple}; the nearest is {fix[0]}x{fix[1]}")
    return height, width
