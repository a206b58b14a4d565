"""Eyes for the embedded world: what is in a picture, decided from its pixels alone.

Every pixel is explained as background mixed with one colour; connected pixels of one colour are an
object; each object is the shape whose drawing fits it best (analysis by synthesis). A picture whose
best re-drawing leaves something unexplained is structurally broken.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from lens_rl.shapes.render import AREA, CENTROID_DROP, coverage, paint
from lens_rl.shapes.scene import BACKGROUNDS, COLOURS, RELATIONS, SHAPES, Scene, Thing

MIN_AREA = 5.0
"""Pixels; smaller spots are no objects, but they do break the structure."""
MAX_MISFIT = 0.22
"""Largest share of an object's area that may disagree with its best drawing."""
MAX_RESIDUAL = 90.0
"""Largest distance in RGB of one pixel from the best re-drawing of the whole picture, ..."""
MAX_SMOOTH_RESIDUAL = 45.0
"""... of a 2x2 mean, and ..."""
MAX_MEAN_RESIDUAL = 18.0
"""... of all pixels on average."""
RELATION_SLACK = 0.5
"""Pixels by which centres must be apart before one object is left of another."""

_COLOUR_NAMES, _COLOUR_RGB = list(COLOURS), np.array(list(COLOURS.values()), dtype=float)
_GROUND_NAMES, _GROUND_RGB = list(BACKGROUNDS), np.array(list(BACKGROUNDS.values()), dtype=float)
_RADIUS_STEPS = np.array([0.92, 1.0, 1.08])[:, None, None, None, None]
_OFFSETS = np.array([-0.35, 0.0, 0.35])


@dataclass(frozen=True, slots=True)
class Seen:
    """What a picture shows: a scene, and whether the scene explains the whole picture."""

    scene: Scene
    whole: bool

    def count(self, of: str) -> int:
        """Objects of a description: `object`, a shape, a colour, or a colour and a shape."""
        return len(self.find(of))

    def find(self, of: str) -> list[Thing]:
        words = of.split()
        return [
            thing
            for thing in self.scene.things
            if all(word in ("object", thing.colour, thing.shape) for word in words)
        ]


def look(image: np.ndarray) -> Seen:
    """Everything the judge knows of a picture, uint8 RGB (height, width, 3)."""
    pixels = image.astype(float)
    ground = _background(pixels)
    alpha, colour, _ = _unmix(pixels, _GROUND_RGB[ground])
    things: list[Thing] = []
    whole = True
    for index in range(len(_COLOUR_NAMES)):
        solid = (alpha > 0.5) & (colour == index)
        labels, found = ndimage.label(solid, structure=np.ones((3, 3)))
        for label in range(1, found + 1):
            fitted = _fit(labels == label, _mix_of(pixels, _GROUND_RGB[ground], _COLOUR_RGB[index]), index)
            if fitted is None:
                whole &= int((labels == label).sum()) < 2
                continue
            thing, misfit = fitted
            things.append(thing)
            whole &= misfit <= MAX_MISFIT
    scene = Scene(tuple(things), _GROUND_NAMES[ground], image.shape[:2])
    return Seen(scene, bool(whole and things and _explains(scene, pixels)))


def holds(check: Mapping[str, Any], seen: Seen) -> bool:
    """Whether a criterion's check holds of what was seen."""
    kind = check["kind"]
    if kind == "present":
        return seen.count(check["of"]) > 0
    if kind == "count":
        return seen.count(check["of"]) == check["n"]
    if kind == "background":
        return seen.scene.background == check["is"]
    if kind == "structure":
        return seen.whole
    return _related(seen.find(check["of"]), check["is"], seen.find(check["to"]))


def can_read(check: Mapping[str, Any]) -> str | None:
    """Why `holds` could not decide this check, or None."""
    fields = _FIELDS.get(check.get("kind", ""))
    if fields is None:
        return f"its check has kind {check.get('kind')!r}; the shapes judge reads {', '.join(_FIELDS)}"
    if missing := [field for field in fields if field not in check]:
        return f"its check lacks {', '.join(missing)}"
    for field, value in check.items():
        allowed = _VALUES.get((check["kind"], field))
        if field in ("of", "to"):
            known = {"object", *SHAPES, *COLOURS}
            if unknown := [word for word in str(value).split() if word not in known]:
                return f"its check asks for {' '.join(unknown)!r}, which is not in the shapes world"
        elif allowed is not None and value not in allowed:
            return f"its check says {value!r}; known here: {', '.join(allowed)}"
        elif field == "n" and not isinstance(value, int):
            return f"its check counts {value!r}, which is no number"
    return None


_FIELDS = {
    "present": ("of",),
    "count": ("of", "n"),
    "relation": ("of", "is", "to"),
    "background": ("is",),
    "structure": (),
}
_VALUES = {("relation", "is"): RELATIONS, ("background", "is"): tuple(BACKGROUNDS)}


def _related(first: list[Thing], relation: str, second: list[Thing]) -> bool:
    """Whether every first thing stands so to every second one; false where one of them is missing."""
    if not first or not second:
        return False
    if relation in ("right of", "below"):
        first, second = second, first
    axis = "x" if relation in ("left of", "right of") else "y"
    return max(getattr(t, axis) for t in first) + RELATION_SLACK < min(getattr(t, axis) for t in second)


def _background(pixels: np.ndarray) -> int:
    """The background that most pixels are near to."""
    distance = np.linalg.norm(pixels[:, :, None] - _GROUND_RGB, axis=-1)
    near = (distance < 60.0).reshape(-1, len(_GROUND_NAMES)).sum(axis=0)
    return int(near.argmax())


def _unmix(pixels: np.ndarray, ground: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each pixel as (1 - alpha) ground + alpha colour: alpha, index of the colour, what is left over."""
    direction_C3 = _COLOUR_RGB - ground
    offset = pixels - ground
    alpha_C = offset @ direction_C3.T / (direction_C3**2).sum(axis=1)
    alpha_C = alpha_C.clip(0.0, 1.15)
    left_C = np.linalg.norm(offset[:, :, None] - alpha_C[..., None] * direction_C3, axis=-1)
    colour = left_C.argmin(axis=-1)
    take = np.ogrid[: pixels.shape[0], : pixels.shape[1]]
    return alpha_C[take[0], take[1], colour], colour, left_C[take[0], take[1], colour]


def _mix_of(pixels: np.ndarray, ground: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """How much of one colour each pixel holds, in [0, 1]."""
    direction = colour - ground
    return ((pixels - ground) @ direction / (direction @ direction)).clip(0.0, 1.0)


def _fit(solid: np.ndarray, alpha: np.ndarray, colour: int) -> tuple[Thing, float] | None:
    """The best drawing of one connected spot, and the share of it that does not fit; None for a speck."""
    rows, columns = np.nonzero(solid)
    top, bottom = max(rows.min() - 2, 0), min(rows.max() + 3, solid.shape[0])
    left, right = max(columns.min() - 2, 0), min(columns.max() + 3, solid.shape[1])
    window = slice(top, bottom), slice(left, right)
    # Its soft edge belongs to an object, but not the soft edge of a neighbour.
    near = ndimage.binary_dilation(solid[window], structure=np.ones((3, 3)))
    seen = alpha[window] * near
    mass = seen.sum()
    if mass < MIN_AREA:
        return None
    y_grid, x_grid = np.arange(top, bottom)[:, None] + 0.5, np.arange(left, right)[None, :] + 0.5
    y, x = (seen * y_grid).sum() / mass, (seen * x_grid).sum() / mass
    best: tuple[float, Thing] | None = None
    for shape in SHAPES:
        radius = np.sqrt(mass / AREA[shape]) * _RADIUS_STEPS
        centre_y = y - CENTROID_DROP[shape] * radius + _OFFSETS[:, None, None, None]
        centre_x = x + _OFFSETS[:, None, None]
        drawn = coverage(shape, y_grid - centre_y, x_grid - centre_x, radius)
        error = np.abs(drawn - seen).sum(axis=(-2, -1))
        r, i, j = np.unravel_index(int(error.argmin()), error.shape)
        if best is None or error[r, i, j] < best[0]:
            size = float(radius[r].item())
            place_y = float(y - CENTROID_DROP[shape] * size + _OFFSETS[i])
            best = float(error[r, i, j]), Thing(shape, _COLOUR_NAMES[colour], place_y, float(x + _OFFSETS[j]), size)
    assert best is not None
    return best[1], best[0] / float(mass)


def _explains(scene: Scene, pixels: np.ndarray) -> bool:
    """Whether re-drawing the scene gives back the picture, up to softness and slight noise."""
    difference = pixels - paint(scene)
    distance = np.linalg.norm(difference, axis=-1)
    smooth = np.linalg.norm(ndimage.uniform_filter(difference, (2, 2, 0)), axis=-1)
    return bool(
        distance.max() <= MAX_RESIDUAL
        and smooth.max() <= MAX_SMOOTH_RESIDUAL
        and distance.mean() <= MAX_MEAN_RESIDUAL
    )
