"""Scenes: a few coloured shapes on a plain background, placed so that what is said of them is clearly true.

Shape suffixes: T throws, N objects.
"""

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
GAP = 2.2
"""Least distance between the circles that two objects reach to, in pixels: at least 1.5 between their edges."""
BORDER = 0.5
"""Least distance of an object's circle from the edge of the picture, in pixels."""
RELATION_MARGIN = 2.0
"""How much nearer to its side a centre must be, in pixels, before a scene counts as showing the relation."""
THROWS = 1024
"""Random arrangements that are tried at a time, before the largest radius is lowered a little."""


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
    if not (wanted := [(colour, shape) for n, colour, shape in kinds(facts) for _ in range(n)]):
        raise ValueError("a scene needs facts that name at least one object: count, colour and shape")
    first, relation = int(facts["count"]), facts.get("relation")
    if relation not in (None, *RELATIONS):
        raise ValueError(f"fact relation is {relation!r}; this world knows: {', '.join(RELATIONS)}")
    for largest in np.arange(RADII[1], RADII[0], -0.1):
        for spots_N3 in _throws(len(wanted), size, random, float(largest)):
            dealt_N3 = spots_N3 if relation is None else _dealt(spots_N3, first, str(relation))
            if dealt_N3 is not None:
                pairs = zip(wanted, dealt_N3.tolist(), strict=True)
                things = tuple(Thing(shape, colour, *spot) for (colour, shape), spot in pairs)
                return Scene(things, str(facts["background"]), size)
    raise ValueError(f"{len(wanted)} objects do not fit on {size[0]}x{size[1]} pixels: make the picture larger")


def _throws(n: int, size: Size, random: np.random.Generator, largest: float) -> np.ndarray:
    """Arrangements (throw, object, (y, x, radius)) in which all objects are whole and apart; maybe none."""
    radius_TN = random.uniform(RADII[0], largest, (THROWS, n))
    reach_TN = radius_TN + BORDER
    room_TN2 = np.array(size) - 2 * reach_TN[..., None]
    centre_TN2 = reach_TN[..., None] + random.uniform(size=(THROWS, n, 2)) * room_TN2
    fits_T = (room_TN2 >= 0).all(axis=(1, 2))
    for i in range(n):
        for j in range(i):
            distance_T = np.hypot(*(centre_TN2[:, i] - centre_TN2[:, j]).T)
            fits_T &= distance_T >= EXTENT * (radius_TN[:, i] + radius_TN[:, j]) + GAP
    return np.concatenate([centre_TN2, radius_TN[..., None]], axis=-1)[fits_T]


def _dealt(spots_N3: np.ndarray, first: int, relation: str) -> np.ndarray | None:
    """The places in the order of the objects, so that the relation holds; None where it would hold too barely."""
    axis = 1 if relation in ("left of", "right of") else 0
    order = np.argsort(spots_N3[:, axis])
    ordered = spots_N3[order if relation in ("left of", "above") else order[::-1]]
    return ordered if abs(ordered[first - 1, axis] - ordered[first, axis]) >= RELATION_MARGIN else None
