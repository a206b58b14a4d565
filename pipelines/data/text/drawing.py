"""Text to pixels: type is set into the slots of a layout, and the panel is laid onto its background in perspective.

Every line is known by its letters and by the four corners of its ink in the finished picture, clockwise from the top
left of the line, in pixels (x, y).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import cv2
import numpy as np
from PIL import Image, ImageDraw

from lens_core.records import Size
from pipelines.data.text.backgrounds import Background
from pipelines.data.text.fonts import Face, can_shape
from pipelines.data.text.layouts import Box, Layout, Slot
from pipelines.data.text.palette import COLOURS, GROUNDS, readable_on, shade, some_colour
from pipelines.data.text.plane import Plane, draw_plane
from pipelines.data.text.scripts import Text, Vocabulary
from pipelines.data.text.setting import Setting, fit

LEAST_LETTERS = 20
"""Pixels of the smallest letters, an em; smaller ones are no longer read."""
TEXTS_TRIED = 12
"""For a slot, before it stays empty."""
BLUR_SHARE, MOST_BLUR = 0.5, 0.035
"""How often a picture is blurred, and the most sigma, in shares of its smallest letters."""
STROKE_SHARE, SHADOW_SHARE = 0.12, 0.2


@dataclass(frozen=True, slots=True)
class Line:
    text: str
    polygon: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Block:
    """One text in the picture."""

    role: str
    text: str
    lines: tuple[Line, ...]
    face: Face
    pixels: int
    colour: str
    behind: str | None
    """Colour of what it stands on, where that has one."""


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A finished picture and what is in it. `surface`: the panel's colour, None where text stands on the background."""

    picture: Image.Image
    layout: str
    blocks: tuple[Block, ...]
    surface: str | None
    background: str
    plane: Plane
    blur: float


class NothingFits(ValueError):
    """No text could be set anywhere in the picture."""


def draw_text(
    random: Random, layout: Layout, size: Size, background: Background, vocabulary: Vocabulary, faces: Sequence[Face]
) -> Drawn:
    """One picture of (height, width). Raises NothingFits for pictures too small for the layout's letters."""
    sheet = _Sheet(random, layout, size, background)
    heading, body = _pair(random, faces)
    blocks = []
    for slot in random.choice(layout.arrangements):
        face = heading if slot.role in ("headline", "title") else body
        if (block := _fill(sheet, slot, vocabulary, face)) is not None:
            blocks.append(block)
    if not blocks:
        raise NothingFits(f"no letters of {LEAST_LETTERS} pixels fit a {layout.name} of {size[1]} x {size[0]} pixels")
    picture = sheet.laid_down()
    blur = random.uniform(0, MOST_BLUR) * min(b.pixels for b in blocks) if random.random() < BLUR_SHARE else 0.0
    if blur:
        picture = Image.fromarray(cv2.GaussianBlur(np.asarray(picture), (0, 0), blur))
    return Drawn(picture, layout.name, tuple(blocks), sheet.surface, background.words, sheet.plane, blur)


class _Sheet:
    """A panel in the making, transparent where it has no surface, and the plane it will lie in."""

    def __init__(self, random: Random, layout: Layout, size: Size, background: Background):
        self.random, self.background = random, background.picture
        self.plane = draw_plane(random, layout, size)
        self.size = (round(self.plane.width), round(self.plane.height))
        self.short = min(self.size)
        self.panel = Image.new("RGBA", self.size)
        self.draw = ImageDraw.Draw(self.panel)
        self.surface: str | None = None
        self.inks: dict[str, str] = {}
        """Colour of the letters by role, kept where it can be read."""
        if random.random() < layout.surface:
            self._lay_surface(layout)

    def _lay_surface(self, layout: Layout) -> None:
        self.surface, colour = some_colour(self.random)
        right, bottom = self.size[0] - 1, self.size[1] - 1
        radius = self.random.choice((0, 0, 0.04, 0.08)) * self.short
        edge = self.random.choice(list(COLOURS.values())) if self.random.random() < 0.4 else None
        width = max(round(0.012 * self.short), 1)
        self.draw.rounded_rectangle((0, 0, right, bottom), radius, fill=colour, outline=edge, width=width)
        if layout.bar:
            other = self.random.choice([shade for name, shade in COLOURS.items() if name != self.surface])
            inset = width if edge else 0
            self.draw.rounded_rectangle((inset, inset, right - inset, layout.bar * bottom), radius, fill=other)

    def pixels(self, box: Box) -> tuple[float, float, float, float]:
        """A box in shares of the panel, in its pixels."""
        width, height = self.size
        return box[0] * width, box[1] * height, box[2] * width, box[3] * height

    def behind(self, box: tuple[float, float, float, float]) -> np.ndarray:
        """What a box on the panel will have behind it: the surface, or the part of the background that it covers."""
        if self.surface is not None:
            left, top, right, bottom = (round(side) for side in box)
            return np.asarray(self.panel.crop((left, top, right, bottom)).convert("RGB"))
        corners = self.plane.project([(box[0], box[1]), (box[2], box[1]), (box[2], box[3]), (box[0], box[3])])
        x, y = zip(*corners, strict=True)
        part = self.background.crop((int(min(x)), int(min(y)), int(max(x)) + 1, int(max(y)) + 1))
        return np.asarray(part.convert("RGB"))

    def laid_down(self) -> Image.Image:
        """The background with the panel on it."""
        picture = self.background.convert("RGBA")
        self.plane.lay(self.panel, picture)
        return picture.convert("RGB")


def _pair(random: Random, faces: Sequence[Face]) -> tuple[Face, Face]:
    """For headings and for everything else: by family first, since some families have twenty faces and others one."""
    by_family: dict[str, list[Face]] = {}
    for face in faces:
        by_family.setdefault(face.family, []).append(face)
    first, second = (random.choice(by_family[random.choice(list(by_family))]) for _ in range(2))
    return first, second


def _fill(sheet: _Sheet, slot: Slot, vocabulary: Vocabulary, face: Face) -> Block | None:
    """Set a text into a slot; None where none of some fits."""
    left, top, right, bottom = sheet.pixels(slot.box)
    least = max(slot.letters[0] * sheet.short, LEAST_LETTERS)
    wish = sheet.random.uniform(least, max(slot.letters[1] * sheet.short, least))
    for tried in range(TEXTS_TRIED):
        words = max(slot.most_words * (TEXTS_TRIED - tried) // TEXTS_TRIED, 1)  # shorter ones as tries go on
        text = vocabulary.write(sheet.random, words)
        if face.lacks(str(text)):
            continue
        setting = fit(text, face, (right - left, bottom - top), wish, least, rtl=vocabulary.script.rtl)
        if setting is not None:
            return _write(sheet, slot, setting, text, face)
    return None


def _write(sheet: _Sheet, slot: Slot, setting: Setting, text: Text, face: Face) -> Block:
    """Draw a set text with its ornaments, in a colour that can be read where it stands."""
    random, box = sheet.random, sheet.pixels(slot.box)
    placed = setting.placed(box, centred=slot.centred)
    ink = _around([line.box for line in placed], 0.35 * setting.pixels)
    behind, readable = sheet.surface, readable_on(sheet.behind(ink))
    if slot.mark == "button" or not readable:
        behind = random.choice(GROUNDS)
        sheet.draw.rounded_rectangle(ink, 0.25 * setting.pixels, fill=COLOURS[behind])
        readable = readable_on(np.array(COLOURS[behind]))
    name = sheet.inks.setdefault(slot.role, random.choice(readable))
    if name not in readable:
        name = random.choice(readable)
    fill = shade(COLOURS[name], random)
    _ornament(sheet, slot, setting, placed[0].box, box, fill)
    shadow = random.random() < SHADOW_SHARE and setting.pixels >= 2 * LEAST_LETTERS
    stroke = max(setting.pixels // 40, 1) if random.random() < STROKE_SHARE else 0
    direction = setting.direction if can_shape() else None
    font = face.at(setting.pixels)
    for line in placed:
        if shadow:
            away = max(setting.pixels / 20, 1.0)
            place = (line.origin[0] + away, line.origin[1] + away)
            sheet.draw.text(place, line.text, (110, 110, 110), font, anchor="ls", direction=direction)
        sheet.draw.text(line.origin, line.text, fill, font, anchor="ls", direction=direction, stroke_width=stroke)
    lines = tuple(Line(line.text, _polygon(sheet, line.box, stroke)) for line in placed)
    return Block(slot.role, str(text), lines, face, setting.pixels, name, behind)


def _ornament(sheet: _Sheet, slot: Slot, setting: Setting, first: Box, box: Box, fill: tuple[int, int, int]) -> None:
    size = setting.pixels
    if slot.mark == "bullet":
        before = box[2] + 0.6 * size if setting.rtl else box[0] - 0.6 * size
        x, y, radius = before, (first[1] + first[3]) / 2, 0.16 * size
        sheet.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
    elif slot.mark == "rule":
        y = box[3] + 0.15 * (box[3] - box[1])
        sheet.draw.line((box[0], y, box[2], y), fill=fill, width=max(size // 24, 1))


def _polygon(sheet: _Sheet, box: Box, stroke: int) -> tuple[tuple[float, float], ...]:
    left, top, right, bottom = box[0] - stroke, box[1] - stroke, box[2] + stroke, box[3] + stroke
    corners = sheet.plane.project([(left, top), (right, top), (right, bottom), (left, bottom)])
    return tuple((round(x, 1), round(y, 1)) for x, y in corners)


def _around(boxes: Sequence[Box], margin: float) -> Box:
    """The box of some boxes, and a margin."""
    left, top, right, bottom = zip(*boxes, strict=True)
    return min(left) - margin, min(top) - margin, max(right) + margin, max(bottom) + margin
