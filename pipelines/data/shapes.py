"""The training corpus of the embedded world: drawn scenes with their captions, as ordinary shards.

Like a crawl of the web it is not clean, on purpose: a stated share of the training pictures is blurred, noisy, cut,
merged or miscounted, and the caption keeps silent about it. A base learns that too; reinforcement learning has it to
suppress.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lens_core.records import Size
from lens_core.seeds import seed_of
from lens_rl.shapes.captions import captions
from lens_rl.shapes.render import flawed, render
from lens_rl.shapes.scene import place
from pipelines.data.pack import Packable, pack
from taxonomy.sampler import Split, draws
from taxonomy.tree import Fact, load_tree

FLAWS = ("blurred", "noisy", "cut", "merged", "miscounted")
MOST = {"size": 3, "word": 2}
"""Objects in a scene, by what else it states: four large ones find no room, nor do three beside a word."""
MOST_ELSE = 4


def samples(n: int, seed: int, split: Split, *, sizes: Sequence[Size], flawed_share: float = 0.0) -> Iterator[Packable]:
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
        size = sizes[number // len(streams) % len(sizes)]
        random = np.random.default_rng(seed_of("corpus", seed, split, number))
        flaw = FLAWS[random.integers(len(FLAWS))] if random.uniform() < flawed_share else None
        picture = _drawn(draw.facts, flaw, size, random)
        yield Packable(picture, captions(tree, draw), {**draw.facts, "flaw": flaw})


def _drawn(facts: Mapping[str, Fact], flaw: str | None, size: Size, random: np.random.Generator) -> np.ndarray:
    if flaw == "miscounted":
        return render(place(_miscounted(facts, random), size, random))
    scene = place(facts, size, random)
    return flawed(scene, flaw, random) if flaw else render(scene)


def _miscounted(facts: Mapping[str, Fact], random: np.random.Generator) -> dict[str, Fact]:
    """The facts with one object more or fewer of one kind."""
    counts = {name: int(value) for name, value in facts.items() if name.startswith("count")}
    full = sum(counts.values()) >= min((most for fact, most in MOST.items() if fact in facts), default=MOST_ELSE)
    names = [name for name, count in counts.items() if count > 1 or not full]
    name = names[random.integers(len(names))]
    fewer = full or (counts[name] > 1 and random.uniform() < 0.5)
    return {**facts, name: counts[name] + (-1 if fewer else 1)}


def pack_shapes(
    folder: Path, *, train: int, validation: int, seed: int, sizes: Sequence[Size], flawed_share: float
) -> dict[str, Any]:
    """Draw and pack both splits, the validation pictures without flaws; returns the manifest."""
    return pack(
        folder,
        {
            "train": samples(train, seed, "train", sizes=sizes, flawed_share=flawed_share),
            "validation": samples(validation, seed, "validation", sizes=sizes),
        },
    )
