"""Colours by name, and which of them can be read on what."""

from random import Random

import numpy as np

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "white": (248, 248, 246),
    "black": (18, 18, 20),
    "dark grey": (72, 72, 76),
    "light grey": (204, 204, 206),
    "red": (196, 32, 38),
    "dark red": (112, 14, 24),
    "orange": (240, 132, 24),
    "yellow": (250, 212, 40),
    "green": (34, 140, 64),
    "dark green": (14, 70, 40),
    "light blue": (150, 204, 240),
    "blue": (32, 92, 200),
    "dark blue": (16, 34, 92),
    "purple": (116, 48, 148),
    "pink": (244, 160, 190),
    "brown": (112, 70, 38),
    "beige": (236, 222, 190),
}
LEAST_CONTRAST = 4.5
"""Of letters with what is behind them: what WCAG 2.2 (1.4.3) asks of text on screens."""
EXTREMES = (2.0, 98.0)
"""Percentiles of brightness behind a text that its colour must stand out from."""


def some_colour(random: Random) -> tuple[str, Colour]:
    """A name and a shade of it."""
    name = random.choice(list(COLOURS))
    return name, shade(COLOURS[name], random)


def shade(colour: Colour, random: Random) -> Colour:
    """Near enough to keep its name."""
    red, green, blue = (min(max(part + random.randint(-8, 8), 0), 255) for part in colour)
    return red, green, blue


def luminance(rgb: np.ndarray) -> np.ndarray:
    """Relative luminance in [0, 1] of sRGB colours (..., 3) in [0, 255], by the formula of WCAG 2.2."""
    linear = np.asarray(rgb, dtype=np.float32) / 255
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)


def contrast(one: float, other: float) -> float:
    """Of two luminances: from 1, the same, to 21, black on white."""
    darker, brighter = sorted((one, other))
    return (brighter + 0.05) / (darker + 0.05)


def readable_on(behind: np.ndarray) -> list[str]:
    """Names of the colours that stand out from all of some pixels, uint8 RGB (..., 3)."""
    dark, bright = np.percentile(luminance(behind), EXTREMES)
    found = []
    for name, colour in COLOURS.items():
        own = float(luminance(np.array(colour)))
        outside = own < dark or own > bright
        if outside and min(contrast(own, dark), contrast(own, bright)) >= LEAST_CONTRAST:
            found.append(name)
    return found


GROUNDS = tuple(name for name, colour in COLOURS.items() if readable_on(np.array(colour)))
"""The colours on which others can be read; those in the middle, such as green, bear none."""
