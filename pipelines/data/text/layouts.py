"""Where text stands: signs, posters, slides, screens. A layout is data; `drawing` fills it.

A panel is the flat thing that carries the text; its slots are boxes in shares of the panel. Letter sizes are shares of
the panel's shorter side.
"""

from dataclasses import dataclass
from typing import Literal

Role = Literal["headline", "line", "item", "note", "label", "button", "title"]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Room for one text."""

    role: Role
    box: Box
    letters: tuple[float, float]
    """The least and most size of its letters."""
    most_words: int
    centred: bool = False
    mark: Literal["bullet", "button", "rule"] | None = None
    """A disc before it, a button under it, a line below it."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A kind of picture."""

    name: str
    width: tuple[float, float]
    """Of the panel, in shares of the picture's width; and its height likewise."""
    height: tuple[float, float]
    surface: float
    """How often the panel has a surface of its own; else its text stands on the background."""
    tilt: float
    """Degrees that it may be turned by."""
    depth: float
    """How far its corners may move in perspective, in shares of its sides."""
    arrangements: tuple[tuple[Slot, ...], ...]
    bar: float = 0.0
    """Height of a bar along the top, in shares of the panel."""


def _items(first: float, last: float, count: int, words: int) -> tuple[Slot, ...]:
    step = (last - first) / count
    boxes = [(0.12, first + step * number, 0.88, first + step * (number + 0.8)) for number in range(count)]
    return tuple(Slot("item", box, (0.045, 0.075), words, mark="bullet") for box in boxes)


def _rows(first: float, last: float, count: int) -> tuple[Slot, ...]:
    step = (last - first) / count
    boxes = [(0.08, first + step * number, 0.92, first + step * (number + 0.7)) for number in range(count)]
    return tuple(Slot("label", box, (0.04, 0.06), 3, mark="rule") for box in boxes)


SIGN = Layout(
    "sign",
    (0.55, 0.85),
    (0.3, 0.6),
    surface=1.0,
    tilt=9.0,
    depth=0.07,
    arrangements=(
        (Slot("headline", (0.08, 0.12, 0.92, 0.88), (0.16, 0.34), 3, centred=True),),
        (
            Slot("headline", (0.08, 0.1, 0.92, 0.6), (0.16, 0.3), 2, centred=True),
            Slot("line", (0.08, 0.66, 0.92, 0.9), (0.09, 0.14), 4, centred=True),
        ),
    ),
)
POSTER = Layout(
    "poster",
    (0.86, 1.0),
    (0.9, 1.0),
    surface=0.4,
    tilt=4.0,
    depth=0.03,
    arrangements=(
        (
            Slot("headline", (0.08, 0.08, 0.92, 0.48), (0.09, 0.19), 4, centred=True),
            Slot("line", (0.1, 0.54, 0.9, 0.7), (0.05, 0.08), 6, centred=True),
            Slot("note", (0.1, 0.82, 0.9, 0.93), (0.035, 0.05), 6, centred=True),
        ),
        (
            Slot("line", (0.08, 0.1, 0.92, 0.22), (0.05, 0.08), 4),
            Slot("headline", (0.08, 0.26, 0.92, 0.7), (0.1, 0.2), 4),
            Slot("note", (0.08, 0.8, 0.92, 0.92), (0.035, 0.05), 8),
        ),
        (Slot("headline", (0.08, 0.3, 0.92, 0.7), (0.1, 0.22), 4, centred=True),),
    ),
)
SLIDE = Layout(
    "slide",
    (0.9, 1.0),
    (0.86, 1.0),
    surface=0.8,
    tilt=2.0,
    depth=0.04,
    arrangements=tuple(
        (Slot("title", (0.07, 0.07, 0.93, 0.24), (0.07, 0.11), 4), *_items(0.3, 0.92, count, words))
        for count, words in ((3, 6), (4, 5), (5, 4))
    ),
)
SCREEN = Layout(
    "screen",
    (0.6, 0.95),
    (0.75, 0.95),
    surface=1.0,
    tilt=1.5,
    depth=0.03,
    bar=0.13,
    arrangements=tuple(
        (
            Slot("title", (0.08, 0.025, 0.92, 0.105), (0.045, 0.06), 2),
            *_rows(0.19, 0.8, count),
            Slot("button", (0.28, 0.84, 0.72, 0.94), (0.04, 0.055), 2, centred=True, mark="button"),
        )
        for count in (3, 4, 5)
    ),
)

LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in (SIGN, POSTER, SLIDE, SCREEN)}
