"""Seeded draws from a tree: exact quotas, no facts twice, and splits that share no scene."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Literal

import numpy as np

from lens_core.recipes import RecipeProblem
from lens_core.seeds import seed_of
from taxonomy.tree import Category, Facts, Tree

Split = Literal["train", "validation", "test"]

SHARES: dict[Split, float] = {"validation": 0.1, "test": 0.1, "train": 0.8}
PATIENCE = 20_000
"""Draws in a row without new facts, or without allowed ones, after which a category is held to be exhausted."""


@dataclass(frozen=True, slots=True)
class Draw:
    """One prompt with the facts that it states."""

    id: str
    text: str
    category: str
    dimensions: tuple[str, ...]
    facts: Facts
    scene: str

    @property
    def split(self) -> Split:
        return split_of(self.scene)


def split_of(scene: str) -> Split:
    """Which split a scene belongs to, for good: a hash of it decides, whatever tree, seed or wording it came from."""
    place = int.from_bytes(hashlib.sha256(scene.encode()).digest()[:8], "big") / 2**64
    for split, share in SHARES.items():
        if place < share:
            return split
        place -= share
    return "train"


def sample(tree: Tree, n: int, seed: int, split: Split | None = None) -> list[Draw]:
    """`n` prompts of different facts, every category within one item of its quota, in a seeded order.

    Raises RecipeProblem where a category has too few different prompts in that split.
    """
    if n < 0:
        raise RecipeProblem(f"tree {tree.name}: {n} prompts cannot be drawn; ask for 0 or more")
    drawn = [
        draw
        for category, wanted in zip(tree.categories, _quotas(tree, n), strict=True)
        for draw in _distinct(tree, category, wanted, seed, split)
    ]
    order = np.random.default_rng(seed_of(tree.name, seed, "order")).permutation(len(drawn))
    return [drawn[place] for place in order]


def sample_splits(tree: Tree, counts: Mapping[str, int], seed: int) -> dict[str, list[Draw]]:
    """Prompts for each split; no scene stands in two of them."""
    return {split: sample(tree, counts[split], seed, split) for split in SHARES}


def draws(tree: Tree, category: Category, seed: int, start: int = 0) -> Iterator[Draw]:
    """Endless draws of one category, from the `start`-th on; the i-th depends on the tree, the seed and i alone."""
    return (_draw(tree, category, seed, index) for index in count(start))


def _draw(tree: Tree, category: Category, seed: int, index: int) -> Draw:
    templates = tree.templates[category.name]
    random = np.random.default_rng(seed_of(tree.name, category.name, seed, index))
    choices = {slot: tree.values(category, slot) for slot in category.slots}
    for _ in range(PATIENCE):
        facts: dict[str, str | int] = {slot: values[random.integers(len(values))] for slot, values in choices.items()}
        if templates.allows(facts):
            break
    else:
        raise RecipeProblem(
            f"tree {tree.name}, category {category.name!r}: {PATIENCE} draws in a row break its condition "
            f"{category.where!r}: loosen `where`, or fill the slots with other words"
        )
    texts = templates.texts(facts)
    text = texts[random.integers(len(texts))]
    return Draw(
        id=hashlib.sha256(f"{tree.name}\x1f{text}".encode()).hexdigest()[:12],
        text=text,
        category=category.name,
        dimensions=category.dimensions,
        facts=facts,
        scene=templates.scene(facts),
    )


def _distinct(tree: Tree, category: Category, wanted: int, seed: int, split: Split | None) -> list[Draw]:
    """The first draws of a category that differ in their facts: another wording alone is no new prompt."""
    found: dict[tuple[tuple[str, str | int], ...], Draw] = {}
    since_last = 0
    stream = draws(tree, category, seed)
    while len(found) < wanted:
        draw = next(stream)
        since_last += 1
        key = tuple(sorted(draw.facts.items()))
        if key not in found and split in (None, draw.split):
            found[key] = draw
            since_last = 0
        if since_last > PATIENCE:
            raise RecipeProblem(
                f"tree {tree.name}: category {category.name!r} has only {len(found)} different prompts"
                + (f" in the {split} split" if split else "")
                + f", but its quota asks for {wanted}: ask for fewer prompts, or give the category more words"
            )
    return list(found.values())


def _quotas(tree: Tree, n: int) -> list[int]:
    """Largest remainders: whole numbers that add up to n, each within one of its quota."""
    exact = [category.quota * n for category in tree.categories]
    counts = [int(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: counts[i] - exact[i])
    for index in by_remainder[: n - sum(counts)]:
        counts[index] += 1
    return counts
