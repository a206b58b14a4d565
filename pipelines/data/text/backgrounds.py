"""What text is drawn on: patterns made by the seed, or parts of the user's own pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import cv2
import numpy as np
from PIL import Image, ImageDraw

from lens_core.records import Size
from pipelines.data.captioned import decode_whole
from pipelines.data.cleaning.reading import Unreadable
from pipelines.data.text.palette import Colour, some_colour

SMOOTH = 192
"""Pixels a side at which patterns without edges are made before they are enlarged."""
TRIES = 5
"""Pictures to look at where some cannot be read."""


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """An RGB picture, and words for it that follow `on`."""

    picture: Image.Image
    words: str


def draw_background(random: Random, size: Size, photos: Sequence[Path] = ()) -> Background:
    """One of (height, width): a part of one of the photos where there are any, else a pattern."""
    for _ in range(TRIES if photos else 0):
        try:
            photo = Image.fromarray(decode_whole(random.choice(photos).read_bytes()))
            return Background(_part_of(photo, size, random), "a photograph")
        except (Unreadable, OSError):
            continue
    (first, one), (second, other) = some_colour(random), some_colour(random)
    kind = random.choice(list(PATTERNS)) if first != second else "plain"
    picture = PATTERNS[kind][0](random, size, one, other)
    return Background(picture, PATTERNS[kind][1].format(first=first, second=second))


def _plain(random: Random, size: Size, one: Colour, other: Colour) -> Image.Image:
    return Image.new("RGB", (size[1], size[0]), one)


def _gradient(random: Random, size: Size, one: Colour, other: Colour) -> Image.Image:
    """Between two colours, in any direction."""
    angle = random.uniform(0, 2 * np.pi)
    y_HW, x_HW = np.mgrid[-1 : 1 : SMOOTH * 1j, -1 : 1 : SMOOTH * 1j].astype(np.float32)
    along_HW = (x_HW * np.cos(angle) + y_HW * np.sin(angle)) / (abs(np.cos(angle)) + abs(np.sin(angle)))
    return _between(one, other, (along_HW + 1) / 2).resize((size[1], size[0]), Image.Resampling.BICUBIC)


def _clouds(random: Random, size: Size, one: Colour, other: Colour) -> Image.Image:
    """Soft patches, of noise at three scales."""
    noise = np.random.default_rng(random.getrandbits(32))
    shares_HW = np.zeros((SMOOTH, SMOOTH), dtype=np.float32)
    for cells, weight in ((4, 0.6), (9, 0.3), (24, 0.1)):
        coarse = Image.fromarray(noise.random((cells, cells), dtype=np.float32))
        shares_HW += weight * np.asarray(coarse.resize((SMOOTH, SMOOTH), Image.Resampling.BICUBIC))
    soft = _between(one, other, np.clip((shares_HW - 0.25) * 2, 0, 1))
    return soft.resize((size[1], size[0]), Image.Resampling.BICUBIC)


def _stripes(random: Random, size: Size, one: Colour, other: Colour) -> Image.Image:
    angle, width = random.uniform(0, np.pi), random.uniform(0.03, 0.12) * min(size)
    y_HW, x_HW = np.mgrid[: size[0], : size[1]].astype(np.float32)
    wave_HW = np.sin((x_HW * np.cos(angle) + y_HW * np.sin(angle)) * np.pi / width)
    return _between(one, other, np.clip(wave_HW * width / 2 + 0.5, 0, 1))


def _discs(random: Random, size: Size, one: Colour, other: Colour) -> Image.Image:
    """Lights out of focus."""
    picture = Image.new("RGB", (size[1], size[0]), one)
    draw = ImageDraw.Draw(picture)
    for _ in range(random.randint(8, 30)):
        x, y, radius = random.random() * size[1], random.random() * size[0], random.uniform(0.02, 0.12) * min(size)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=other)
    return Image.fromarray(cv2.GaussianBlur(np.asarray(picture), (0, 0), 0.012 * min(size)))


Pattern = Callable[[Random, Size, Colour, Colour], Image.Image]

PATTERNS: dict[str, tuple[Pattern, str]] = {
    "plain": (_plain, "a plain {first} background"),
    "gradient": (_gradient, "a background that fades from {first} to {second}"),
    "clouds": (_clouds, "a cloudy background in {first} and {second}"),
    "stripes": (_stripes, "a background of {first} and {second} stripes"),
    "discs": (_discs, "a {first} background with blurred {second} discs"),
}


def _between(one: Colour, other: Colour, share_HW: np.ndarray) -> Image.Image:
    first, second = (np.array(colour, dtype=np.float32) for colour in (one, other))
    return Image.fromarray((first + share_HW[..., None] * (second - first) + 0.5).astype(np.uint8))


def _part_of(photo: Image.Image, size: Size, random: Random) -> Image.Image:
    """A part of the same shape, as large as it can be, or down to half of that."""
    height, width = size
    share = min(photo.width / width, photo.height / height) * random.uniform(0.5, 1.0)
    part = (max(share * width, 1.0), max(share * height, 1.0))
    left, top = random.uniform(0, photo.width - part[0]), random.uniform(0, photo.height - part[1])
    box = (max(left, 0.0), max(top, 0.0), min(left + part[0], photo.width), min(top + part[1], photo.height))
    return photo.resize((width, height), Image.Resampling.LANCZOS, box=box)
