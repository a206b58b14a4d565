"""The plane that a panel lies in: turned, tilted in perspective, and inside the picture."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random

import cv2
import numpy as np
from PIL import Image

from lens_core.records import Size
from pipelines.data.text.layouts import Layout

FLAT_SHARE = 0.35
"""Of the pictures in which nothing is turned or tilted."""
Point = tuple[float, float]


@dataclass(frozen=True)
class Plane:
    """A panel of (width, height) pixels, and where its corners lie in the picture, clockwise from the top left."""

    width: float
    height: float
    corners: tuple[Point, ...]
    degrees: float
    """That the panel is turned by, clockwise."""

    @cached_property
    def matrix(self) -> np.ndarray:
        """The homography from the panel's pixels to the picture's, 3 x 3."""
        panel = [(0.0, 0.0), (self.width, 0.0), (self.width, self.height), (0.0, self.height)]
        rows, values = [], []
        for (x, y), (u, v) in zip(panel, self.corners, strict=True):
            rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
            values += [u, v]
        return np.append(np.linalg.solve(np.array(rows), np.array(values)), 1.0).reshape(3, 3)

    def project(self, points: Sequence[Point]) -> list[Point]:
        """Points of the panel as they lie in the picture."""
        found = np.column_stack([np.array(points, dtype=float), np.ones(len(points))]) @ self.matrix.T
        return [(float(x / w), float(y / w)) for x, y, w in found]

    def lay(self, panel: Image.Image, picture: Image.Image) -> None:
        """Put a panel, RGBA, into a picture, RGBA, where the plane lies in it."""
        across, down = zip(*self.corners, strict=True)
        left, top = max(math.floor(min(across)), 0), max(math.floor(min(down)), 0)
        size = min(math.ceil(max(across)), picture.width) - left, min(math.ceil(max(down)), picture.height) - top
        shift = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1]], dtype=float)
        # Premultiplied, so that what is transparent lends no colour to the edges of letters.
        flat = cv2.warpPerspective(np.asarray(panel.convert("RGBa")), shift @ self.matrix, size, flags=cv2.INTER_CUBIC)
        flat[..., :3] = np.minimum(flat[..., :3], flat[..., 3:])
        picture.alpha_composite(Image.frombytes("RGBa", size, flat.tobytes()).convert("RGBA"), (left, top))


def draw_plane(random: Random, layout: Layout, size: Size) -> Plane:
    """A place for a panel of that layout in a picture of (height, width)."""
    height, width = size[0] * random.uniform(*layout.height), size[1] * random.uniform(*layout.width)
    flat = random.random() < FLAT_SHARE
    degrees = 0.0 if flat else random.uniform(-layout.tilt, layout.tilt)
    depth = 0.0 if flat else layout.depth
    corners = []
    for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
        near = (x * width / 2 * (1 - random.uniform(0, depth)), y * height / 2 * (1 - random.uniform(0, depth)))
        corners.append(_turned(near, math.radians(degrees)))
    reach = [max(abs(corner[axis]) for corner in corners) * 2 for axis in (0, 1)]
    shrink = min(1.0, size[1] / reach[0], size[0] / reach[1])
    free = [side - shrink * part for side, part in zip(size[::-1], reach, strict=True)]
    across, down = (side / 2 + random.uniform(-0.5, 0.5) * rest for side, rest in zip(size[::-1], free, strict=True))
    placed = tuple((across + shrink * x, down + shrink * y) for x, y in corners)
    return Plane(max(width * shrink, 1.0), max(height * shrink, 1.0), placed, degrees)


def _turned(point: Point, angle: float) -> Point:
    x, y = point
    return x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle)
