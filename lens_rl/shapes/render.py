"""How a scene looks: anti-aliased pixels, from the distance of each pixel to the edge of a shape.

The judge fits these same functions to what it sees. `flawed` makes pictures that look broken.
"""

from dataclasses import replace

import numpy as np
from scipy.ndimage import gaussian_filter

from lens_core.records import Size
from lens_rl.shapes.letters import written
from lens_rl.shapes.scene import BACKGROUNDS, COLOURS, INK, Scene, unit

FLAWS = ("cut", "merged", "speckled", "noisy", "blurred", "ghost", "two-coloured")

SQUARE_HALF = 0.84
"""Half side of a square, in radii."""
TRIANGLE_TOP, TRIANGLE_BASE, TRIANGLE_HALF = -1.0, 0.75, 1.05
"""Top, base line and half base of the upright triangle, in radii."""
CROSS_HALF, CROSS_ARM = 0.96, 0.34
"""Half length and half width of the two bars of a cross, in radii."""


def render(scene: Scene) -> np.ndarray:
    """uint8 RGB (height, width, 3)."""
    return to_uint8(paint(scene))


def paint(scene: Scene) -> np.ndarray:
    """The same as float64 in [0, 255]."""
    picture = np.empty((*scene.size, 3))
    picture[:] = BACKGROUNDS[scene.background]
    rows, columns = pixel_centres(scene.size)
    for thing in scene.things:
        alpha = coverage(thing.shape, rows - thing.y, columns - thing.x, thing.radius)[..., None]
        picture = (1 - alpha) * picture + alpha * np.array(COLOURS[thing.colour])
    if scene.word:
        ink = written(scene.word.text)[..., None]
        rows = slice(scene.word.row, scene.word.row + ink.shape[0])
        columns = slice(scene.word.column, scene.word.column + ink.shape[1])
        picture[rows, columns] = (1 - ink) * picture[rows, columns] + ink * np.array(INK[scene.background])
    return picture


def coverage(shape: str, dy: np.ndarray, dx: np.ndarray, radius: np.ndarray | float) -> np.ndarray:
    """How much of each pixel a shape covers, in [0, 1]; dy, dx from its centre, all in pixels, broadcast."""
    return np.clip(0.5 - _distance(shape, dy, dx, radius), 0.0, 1.0)


def area(shape: str, radius: float) -> float:
    """Pixels that a shape covers."""
    return AREA[shape] * radius**2


def pixel_centres(size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Row and column positions of the pixel centres, (height, 1) and (1, width)."""
    return np.arange(size[0])[:, None] + 0.5, np.arange(size[1])[None, :] + 0.5


def to_uint8(picture: np.ndarray) -> np.ndarray:
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)


def flawed(scene: Scene, flaw: str, random: np.random.Generator) -> np.ndarray:
    """The scene, clearly broken in one way: uint8 RGB (height, width, 3)."""
    picture = paint(scene)
    ground = np.array(BACKGROUNDS[scene.background], dtype=float)
    rows, columns = pixel_centres(scene.size)
    used = {thing.colour for thing in scene.things}
    thing = scene.things[random.integers(len(scene.things))]
    if flaw == "cut":
        near = np.hypot(rows - thing.y, columns - thing.x) < thing.radius * 1.5
        # Not the lower half: what is left of a triangle would be a whole, smaller triangle.
        side = [rows < thing.y, columns > thing.x, columns < thing.x][random.integers(3)]
        picture[near & side] = ground
    elif flaw == "merged":
        # The twin lies towards the middle, so that the edge of the picture does not hide it.
        towards = np.arctan2(scene.size[0] / 2 - thing.y, scene.size[1] / 2 - thing.x)
        angle = towards + random.uniform(-np.pi / 3, np.pi / 3)
        y, x = thing.y + thing.radius * np.sin(angle), thing.x + thing.radius * np.cos(angle)
        twin = replace(scene, things=(*scene.things, replace(thing, y=y, x=x)))
        picture = paint(twin)
    elif flaw == "speckled":
        for place in random.integers(0, scene.size[0] * scene.size[1], 12):
            picture[divmod(place, scene.size[1])] = random.integers(0, 256, 3)
    elif flaw == "noisy":
        picture = picture + random.normal(0, 32, picture.shape)
    elif flaw == "blurred":
        softness = 2.4 * unit(scene.size)
        picture = gaussian_filter(picture, (softness, softness, 0))
    elif flaw == "ghost":
        reach = 4 * unit(scene.size)
        y, x = random.uniform(reach, scene.size[0] - reach), random.uniform(reach, scene.size[1] - reach)
        veil = 0.45 * coverage("circle", rows - y, columns - x, reach)[..., None]
        # A colour that no object has, or the ghost might hide inside one.
        other = next(colour for colour in random.permutation(list(COLOURS)) if colour not in used)
        picture = (1 - veil) * picture + veil * np.array(COLOURS[other])
    elif flaw == "two-coloured":
        other = [colour for colour in COLOURS if colour != thing.colour]
        other = other[random.integers(len(other))]
        half = coverage(thing.shape, rows - thing.y, columns - thing.x, thing.radius) * (rows > thing.y)
        picture = (1 - half[..., None]) * picture + half[..., None] * np.array(COLOURS[other])
    else:
        raise ValueError(f"flaw {flaw!r} is none of {', '.join(FLAWS)}")
    return to_uint8(picture)


def _distance(shape: str, dy: np.ndarray, dx: np.ndarray, radius: np.ndarray | float) -> np.ndarray:
    """Signed distance to the edge in pixels, negative inside (exact inside and along the sides)."""
    if shape == "circle":
        return np.hypot(dy, dx) - radius
    if shape == "square":
        return np.maximum(np.abs(dy), np.abs(dx)) - SQUARE_HALF * radius
    if shape == "cross":
        tall = np.maximum(np.abs(dy) - CROSS_HALF * radius, np.abs(dx) - CROSS_ARM * radius)
        wide = np.maximum(np.abs(dx) - CROSS_HALF * radius, np.abs(dy) - CROSS_ARM * radius)
        return np.minimum(tall, wide)
    slope = TRIANGLE_HALF / (TRIANGLE_BASE - TRIANGLE_TOP)
    side = (np.abs(dx) - slope * (dy - TRIANGLE_TOP * radius)) / np.hypot(1.0, slope)
    return np.maximum(side, dy - TRIANGLE_BASE * radius)


AREA = {
    "circle": np.pi,
    "square": 4 * SQUARE_HALF**2,
    "triangle": TRIANGLE_HALF * (TRIANGLE_BASE - TRIANGLE_TOP),
    "cross": 8 * CROSS_HALF * CROSS_ARM - 4 * CROSS_ARM**2,
}
"""Area of each shape of radius 1."""

CENTROID_DROP = {
    "circle": 0.0,
    "square": 0.0,
    "triangle": TRIANGLE_TOP + 2 / 3 * (TRIANGLE_BASE - TRIANGLE_TOP),
    "cross": 0.0,
}
"""How far below its centre a shape's centroid lies, in radii."""
