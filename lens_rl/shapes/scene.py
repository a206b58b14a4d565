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
EXTENT = {"circle": 1.0, "square": 1.1, "triangle": 1.15}
"""How far a shape reaches, in radii: a little less than its corners do."""
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
            spots = _spots([shape for _, _, shape in wanted], size, random, largest)
            if spots is not None and (relation is None or _holds(str(relation), wanted, spots)):
                things = tuple(
                    Thing(shape, colour, *spot) for (_, colour, shape), spot in zip(wanted, spots, strict=True)
                )
                return Scene(things, str(facts["background"]), size)
        largest -= 0.25
    raise ValueError(f"{len(wanted)} objects do not fit on {size[0]}x{size[1]} pixels")


def _spots(
    shapes: list[str], size: Size, random: np.random.Generator, largest: float
) -> list[tuple[float, float, float]] | None:
    """A free place (y, x, radius) for each shape, or None where this throw of the dice overlaps."""
    spots: list[tuple[float, float, float]] = []
    for n, shape in enumerate(shapes):
        radius = random.uniform(RADII[0], max(largest, RADII[0] + 1e-6))
        reach = radius + BORDER
        if 2 * reach > min(size):
            return None
        y, x = random.uniform(reach, size[0] - reach), random.uniform(reach, size[1] - reach)
        reach = EXTENT[shape] * radius + GAP
        if any(np.hypot(y - v, x - u) < reach + EXTENT[other] * r for other, (v, u, r) in zip(shapes[:n], spots, strict=True)):
            return None
        spots.append((float(y), float(x), float(radius)))
    return spots


def _holds(relation: str, wanted: list[tuple[int, str, str]], spots: list[tuple[float, float, float]]) -> bool:
    axis = 1 if relation in ("left of", "right of") else 0
    first = [spot[axis] for (group, _, _), spot in zip(wanted, spots, strict=True) if group == 0]
    second = [spot[axis] for (group, _, _), spot in zip(wanted, spots, strict=True) if group == 1]
    if relation in ("right of", "below"):
        first, second = second, first
    return max(first) + RELATION_MARGIN <= min(second)
