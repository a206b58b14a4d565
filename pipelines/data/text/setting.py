"""Setting type: how large a text can be in a box, where its lines break, and where their ink comes to lie."""

from dataclasses import dataclass
from functools import partial

from pipelines.data.text.fonts import Face, can_shape
from pipelines.data.text.layouts import Box
from pipelines.data.text.scripts import Text

SHRINK = 0.92
"""From one size tried to the next."""


@dataclass(frozen=True, slots=True)
class PlacedLine:
    """`origin`: the left end of its baseline; `box`: its ink, left, top, right, bottom, in pixels."""

    text: str
    origin: tuple[float, float]
    box: Box


@dataclass(frozen=True, slots=True)
class Setting:
    """Lines of one size. `inks`: the ink of each, relative to the left end of its baseline."""

    face: Face
    pixels: int
    lines: tuple[str, ...]
    inks: tuple[Box, ...]
    leading: float
    rtl: bool

    @property
    def direction(self) -> str | None:
        return "rtl" if self.rtl and can_shape() else None

    def placed(self, box: Box, *, centred: bool) -> list[PlacedLine]:
        """Each line where it goes: in the middle of the box by height, and at the side where reading begins."""
        left, top, right, bottom = box
        first, last = self.inks[0], self.inks[-1]
        height = (len(self.lines) - 1) * self.leading + last[3] - first[1]
        baseline = (top + bottom - height) / 2 - first[1]
        found = []
        for number, (text, ink) in enumerate(zip(self.lines, self.inks, strict=True)):
            width = ink[2] - ink[0]
            start = (left + right - width) / 2 if centred else right - width if self.rtl else left
            x, y = round(start - ink[0]), round(baseline + number * self.leading)
            found.append(PlacedLine(text, (x, y), (x + ink[0], y + ink[1], x + ink[2], y + ink[3])))
        return found


def fit(text: Text, face: Face, room: tuple[float, float], wish: float, least: float, *, rtl: bool) -> Setting | None:
    """The text as large as it fits into a room of (width, height), `wish` pixels at most and `least` at least."""
    size = wish
    while round(size) >= least:
        setting = _set(text, face, round(size), room[0], rtl)
        if setting is not None and _height(setting) <= room[1]:
            return setting
        size *= SHRINK
    return None


def _height(setting: Setting) -> float:
    return (len(setting.lines) - 1) * setting.leading + setting.inks[-1][3] - setting.inks[0][1]


def _set(text: Text, face: Face, pixels: int, width: float, rtl: bool) -> Setting | None:
    """Lines filled one after the other; None where a single word is wider than the room."""
    font = face.at(pixels)
    ink_of = partial(font.getbbox, anchor="ls", direction="rtl" if rtl and can_shape() else None)
    lines: list[list[str]] = [[]]
    for word in text.words:
        longer = text.joint.join((*lines[-1], word))
        if lines[-1] and _width(ink_of(longer)) > width:
            lines.append([])
        lines[-1].append(word)
    whole = tuple(text.joint.join(line) for line in lines)
    inks = tuple(ink_of(line) for line in whole)
    if any(_width(ink) > width or ink[3] <= ink[1] for ink in inks):
        return None
    return Setting(face, pixels, whole, inks, 1.08 * sum(font.getmetrics()), rtl)


def _width(ink: Box) -> float:
    return ink[2] - ink[0]
