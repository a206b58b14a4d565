"""The training corpus of the embedded world: drawn scenes with their captions, as ordinary shards."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lens_core.seeds import seed_of
from lens_rl.shapes.captions import captions
from lens_rl.shapes.render import render
from lens_rl.shapes.scene import place
from pipelines.data.pack import Packable, pack
from taxonomy.sampler import Split, draws
from taxonomy.tree import load_tree

SIZES = ((20, 20), (16, 24), (24, 16))
"""(height, width) of the corpus, dealt out in turn."""


def samples(n: int, seed: int, split: Split) -> Iterator[Packable]:
    """`n` pictures whose scenes belong to `split`; categories and sizes take turns, so each pair is as frequent.

    The quotas of the tree are those of prompts and are not used: a corpus is not made for the test.
    """
    tree = load_tree("shapes")
    streams = [
        (draw for draw in draws(tree, category, seed_of("corpus", seed)) if draw.split == split)
        for category in tree.categories
    ]
    for number in range(n):
        draw = next(streams[number % len(streams)])
        size = SIZES[number % len(SIZES)]
        random = np.random.default_rng(seed_of("corpus", seed, split, number))
        yield Packable(render(place(draw.facts, size, random)), captions(tree, draw), dict(draw.facts))


def pack_shapes(folder: Path, *, train: int, validation: int, seed: int) -> dict[str, Any]:
    """Draw and pack both splits; returns the manifest."""
    return pack(folder, {"train": samples(train, seed, "train"), "validation": samples(validation, seed, "validation")})
