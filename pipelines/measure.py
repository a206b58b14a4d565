"""What a base model of the embedded world can do, measured with the judge's own eyes."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from base_model.generator import Generator
from base_model.latents import LatentCodec
from lens_core.records import Prompt, Size
from lens_core.seeds import seed_of
from lens_rl.rollout import FeatureBank, plan, roll_out
from lens_rl.shapes.judge import holds, look
from lens_rl.shapes.scene import Scene
from rubrics.rubric import Rubric
from taxonomy.sampler import sample
from taxonomy.tree import load_tree

STEPS = (6, 10, 20)


def measure_reconstructions(codec: LatentCodec, images: list[np.ndarray]) -> dict[str, Any]:
    """Share of pictures whose reconstruction shows the same things and is structurally whole; PSNR in dB."""
    whole, errors = 0, []
    for before, after in _reconstructed(codec, images):
        seen = look(after)
        whole += seen.whole and _contents(seen.scene) == _contents(look(before).scene)
        errors.append(_squared_error(before, after))
    return {"n": len(images), "whole": whole / len(images), "psnr": _psnr(errors)}


def measure_psnr(codec: LatentCodec, images: list[np.ndarray]) -> float:
    """PSNR of the reconstructions in dB, over all of the pictures' pixels."""
    return _psnr([_squared_error(before, after) for before, after in _reconstructed(codec, images)])


def measure_samples(generator: Generator, sizes: Sequence[Size], *, prompts: int, seed: int = 0) -> dict[str, Any]:
    """Share of criteria that hold on pictures of validation prompts, by number of sampling steps."""
    rubric, tree = Rubric.load("shapes"), load_tree("shapes")
    drawn = sample(tree, prompts, seed, "validation")
    asked = [Prompt(d.id, d.text, criteria=rubric.criteria(d.text, d.facts)) for d in drawn]
    orders = plan(asked, images_per_prompt=1, sizes=sizes, size_mode="per_group", seed=seed_of(seed, "measure"))
    found: dict[str, Any] = {}
    for steps in STEPS:
        kept: dict[str, list[bool]] = {}
        made = roll_out(generator, FeatureBank(generator), orders, num_steps=steps, sampler="euler", batch_size=128)
        for order, one in made:
            seen = look(one.image)
            for criterion in order.prompt.criteria:
                kept.setdefault(criterion.kind, []).append(holds(criterion.check or {}, seen))
        found[str(steps)] = {
            "prompts": prompts,
            "criteria": float(np.mean([value for values in kept.values() for value in values])),
            "by_kind": {kind: float(np.mean(values)) for kind, values in sorted(kept.items())},
        }
    return found


def _reconstructed(codec: LatentCodec, images: list[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each picture, uint8 RGB (H, W, 3), and what the autoencoder makes of it."""
    by_size: dict[Size, list[np.ndarray]] = {}
    for image in images:
        by_size.setdefault((image.shape[0], image.shape[1]), []).append(image)
    for size, pictures in by_size.items():
        originals = np.stack(pictures)
        yield from zip(originals, codec.decode(codec.encode(originals), size), strict=True)


def _squared_error(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return ((after.astype(float) - before) ** 2).ravel()


def _psnr(errors: list[np.ndarray]) -> float:
    return float(10 * np.log10(255**2 / float(np.mean(np.concatenate(errors)))))


def _contents(scene: Scene) -> tuple[str, str | None, list[tuple[str, str]]]:
    word = scene.word.text if scene.word else None
    return scene.background, word, sorted((thing.shape, thing.colour) for thing in scene.things)
