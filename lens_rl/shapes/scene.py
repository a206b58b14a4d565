"""Scenes: coloured shapes, perhaps a word, on a plain background, placed so that what is said of them is true.

Lengths of shapes are in units, `unit(size)` pixels each, so that a scene looks the same at every resolution; letters
are drawn dot by dot. Shape suffixes: T throws, N objects.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lens_core.records import Size
from lens_rl.shapes.letters import DOT, GRID, WORDS, word_size

SHAPES = ("circle", "square", "triangle", "cross")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (50, 80, 230),
    "yellow": (245, 205, 30),
    "purple": (165, 55, 185),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (245, 245, 245),
    "grey": (135, 135, 135),
    "black": (15, 15, 15),
    "beige": (225, 195, 150),
}
INK: dict[str, tuple[int, int, int]] = {
    "white": (15, 15, 15),
    "grey": (245, 245, 245),
    "black": (245, 245, 245),
    "beige": (15, 15, 15),
}
"""What words are written in, by background."""
RELATIONS = ("left of", "right of", "above", "below")

RADII: dict[str | None, tuple[float, float]] = {None: (3.5, 5.0), "small": (3.1, 3.8), "large": (4.9, 6.2)}
"""Smallest and largest circumradius-like size, in units, by what is said of it."""
LARGE = 4.35
"""Units of radius from which an object counts as large, and below which as small."""
EXTENT = 1.12
"""How far a shape reaches, in radii: a little less than the corners of a triangle."""
GAP = 2.4
"""Least distance between the circles that two objects reach to, in pixels: at least 1.5 between their edges."""
BORDER = 0.5
"""Least distance of an object's circle from the edge of the picture, in pixels."""
RELATION_MARGIN = 3.0
"""How much nearer to its side a centre must be, in units, before a scene counts as showing the relation."""
TRIES, THROWS = 40, 1024
"""Random arrangements at a time, and how often they are thrown anew with smaller radii and the word elsewhere."""


class Kind(NamedTuple):
    """Objects that look alike: how many, how large they are said to be (or nothing), colour and shape."""

    count: int
    extent: str | None
    colour: str
    shape: str


@dataclass(frozen=True, slots=True)
class Thing:
    """One object; centre and radius in pixels, y down, pixel centres at half-integers."""

    shape: str
    colour: str
    y: float
    x: float
    radius: float


@dataclass(frozen=True, slots=True)
class Word:
    """A word and its top left pixel."""

    text: str
    row: int
    column: int


@dataclass(frozen=True, slots=True)
class Scene:
    things: tuple[Thing, ...]
    background: str
    size: Size
    word: Word | None = None


def unit(size: Size) -> float:
    """Pixels in a unit of length: a 32nd of the side of a square as large as the picture."""
    return float(np.sqrt(size[0] * size[1])) / 32


def kinds(facts: Mapping[str, str | int]) -> list[Kind]:
    """Each kind of object that the facts name, in their order."""
    return [
        Kind(
            int(facts[f"count{n}"]),
            str(facts[f"size{n}"]) if f"size{n}" in facts else None,
            str(facts[f"colour{n}"]),
            str(facts[f"shape{n}"]),
        )
        for n in ("", "2", "3")
        if f"colour{n}" in facts
    ]


def place(facts: Mapping[str, str | int], size: Size, random: np.random.Generator) -> Scene:
    """A random scene of the facts (those of the tree `shapes`), every object whole inside the picture.

    Raises ValueError where so much cannot stand on so small a picture.
    """
    wanted = [kind for kind in kinds(facts) for _ in range(kind.count)]
    if not wanted:
        raise ValueError("a scene needs facts that name at least one object: count, colour and shape")
    first, relation, text = int(facts["count"]), facts.get("relation"), facts.get("word")
    if relation not in (None, *RELATIONS):
        raise ValueError(f"fact relation is {relation!r}; this world knows: {', '.join(RELATIONS)}")
    if text not in (None, *WORDS):
        raise ValueError(f"fact word is {text!r}; this world writes: {', '.join(WORDS)}")
    low_N, high_N = np.array([RADII[kind.extent] for kind in wanted]).T * unit(size)
    for share in np.linspace(1.0, 0.0, TRIES):
        word = None if text is None else _written(str(text), size, random)
        throws_TN3 = _throws(low_N, low_N + share * (high_N - low_N), size, random, word)
        for spots_N3 in throws_TN3:
            dealt_N3 = spots_N3 if relation is None else _dealt(spots_N3, first, str(relation), unit(size))
            if dealt_N3 is not None:
                pairs = zip(wanted, dealt_N3.tolist(), strict=True)
                things = tuple(Thing(kind.shape, kind.colour, *spot) for kind, spot in pairs)
                return Scene(things, str(facts["background"]), size, word)
    raise ValueError(f"{len(wanted)} objects do not fit on {size[0]}x{size[1]} pixels: make the picture larger")


def _written(text: str, size: Size, random: np.random.Generator) -> Word:
    """The word at a random place of its grid, a dot away from the edge."""
    height, width = word_size(text)
    rows, columns = range(DOT, size[0] - height - DOT + 1, GRID), range(DOT, size[1] - width - DOT + 1, GRID)
    if not rows or not columns:
        raise ValueError(f"the word {text} does not fit on {size[0]}x{size[1]} pixels: make the picture larger")
    return Word(text, rows[random.integers(len(rows))], columns[random.integers(len(columns))])


def _throws(
    low_N: np.ndarray, high_N: np.ndarray, size: Size, random: np.random.Generator, word: Word | None
) -> np.ndarray:
    """Arrangements (throw, object, (y, x, radius)) in which all objects are whole and apart; maybe none."""
    radius_TN = random.uniform(low_N, high_N, (THROWS, len(low_N)))
    reach_TN = radius_TN + BORDER
    room_TN2 = np.array(size) - 2 * reach_TN[..., None]
    centre_TN2 = reach_TN[..., None] + random.uniform(size=(THROWS, len(low_N), 2)) * room_TN2
    fits_T = (room_TN2 >= 0).all(axis=(1, 2))
    for i in range(len(low_N)):
        for j in range(i):
            distance_T = np.hypot(*(centre_TN2[:, i] - centre_TN2[:, j]).T)
            fits_T &= distance_T >= EXTENT * (radius_TN[:, i] + radius_TN[:, j]) + GAP
    if word:
        top_left = np.array([word.row, word.column])
        nearest_TN2 = centre_TN2.clip(top_left, top_left + word_size(word.text))
        fits_T &= (np.hypot(*np.moveaxis(centre_TN2 - nearest_TN2, -1, 0)) >= EXTENT * radius_TN + GAP).all(axis=1)
    return np.concatenate([centre_TN2, radius_TN[..., None]], axis=-1)[fits_T]


def _dealt(spots_N3: np.ndarray, first: int, relation: str, unit: float) -> np.ndarray | None:
    """The places in the order of the objects, so that the relation holds; None where it would hold too barely."""
    axis = 1 if relation in ("left of", "right of") else 0
    order = np.argsort(spots_N3[:, axis])
    ordered = spots_N3[order if relation in ("left of", "above") else order[::-1]]
    return ordered if abs(ordered[first - 1, axis] - ordered[first, axis]) >= RELATION_MARGIN * unit else None
