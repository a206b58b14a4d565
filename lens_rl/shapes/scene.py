"""Scenes: a few coloured shapes on a plain background, placed so that what is said of them is clearly true."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lens_core.records import Size

SHAPES = ("circle", "square", "triangle")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 230),
    "yellow": (245, 205, 30),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (245, 245, 245),
    "grey": (135, 135, 135),
    "black": (15, 15, 15),
}
RELATIONS = ("left of", "right of", "above", "below")

RADII = (2.7, 3.8)
"""Smallest and largest circumradius-like size, in pixels."""
EXTENT = 1.12
"""How far a shape reaches, in radii: a little less than the corners of a triangle."""
GAP = 1.8
"""Least distance between the circles that two objects reach to, in pixels."""
BORDER = 0.5
RELATION_MARGIN = 2.0
"""How much nearer to its side a centre must be, in pixels, before a scene counts as showing the relation."""
TRIES = 400


@dataclass(frozen=True, slots=True)
class Thing:
    """One object; centre and radius in pixels, y down, pixel centres at half-integers."""

    shape: str
    colour: str
    y: float
    x: float
    radius: float


@dataclass(frozen=True, slots=True)
class Scene:
    things: tuple[Thing, ...]
    background: str
    size: Size


def kinds(facts: Mapping[str, str | int]) -> list[tuple[int, str, str]]:
    """(count, colour, shape) of each kind of object that the facts name, in their order."""
    return [
        (int(facts[f"count{n}"]), str(facts[f"colour{n}"]), str(facts[f"shape{n}"]))
        for n in ("", "2", "3")
        if f"colour{n}" in facts
    ]


def place(facts: Mapping[str, str | int], size: Size, random: np.random.Generator) -> Scene:
    """A random scene of the facts (those of the tree `shapes`), every object whole inside the picture.

    Raises ValueError where so many objects cannot stand on so small a picture.
    """
    wanted = [(group, colour, shape) for group, (n, colour, shape) in enumerate(kinds(facts)) for _ in range(n)]
    relation = facts.get("relation")
    largest = RADII[1]
    while largest >= RADII[0]:
        for _ in range(TRIES):
            spots = _spots(len(wanted), size, random, largest)
            if spots is None:
                continue
            spots = _dealt(spots, wanted, str(facts.get("relation", "")))
            if spots is not None:
                things = tuple(Thing(shape, colour, *spot) for (_, colour, shape), spot in zip(wanted, spots, strict=True))
                return Scene(things, str(facts["background"]), size)
        largest -= 0.25
    raise ValueError(f"{len(wanted)} objects do not fit on {size[0]}x{size[1]} pixels")


Spot = tuple[float, float, float]
"""y, x and radius in pixels."""


def _spots(n: int, size: Size, random: np.random.Generator, largest: float) -> list[Spot] | None:
    """n free places, or None where this throw of the dice overlaps."""
    spots: list[Spot] = []
    for _ in range(n):
        radius = random.uniform(RADII[0], max(largest, RADII[0] + 1e-6))
        reach = radius + BORDER
        if 2 * reach > min(size):
            return None
        y, x = random.uniform(reach, size[0] - reach), random.uniform(reach, size[1] - reach)
        if any(np.hypot(y - v, x - u) < EXTENT * (radius + r) + GAP for v, u, r in spots):
            return None
        spots.append((float(y), float(x), float(radius)))
    return spots


def _dealt(spots: list[Spot], wanted: list[tuple[int, str, str]], relation: str) -> list[Spot] | None:
    """The places in the order of the objects, so that the relation holds; None where it cannot."""
    if not relation:
        return spots
    axis = 1 if relation in ("left of", "right of") else 0
    first = sum(group == 0 for group, _, _ in wanted)
    ordered = sorted(spots, key=lambda spot: spot[axis], reverse=relation in ("right of", "below"))
    if abs(ordered[first - 1][axis] - ordered[first][axis]) < RELATION_MARGIN:
        return None
    return ordered
