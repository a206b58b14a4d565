"""Eyes for the embedded world: what is in a picture, decided from its pixels alone.

Every pixel is explained as background mixed with one colour; connected pixels of one colour are an
object; each object is the shape whose drawing fits it best (analysis by synthesis). A picture whose
best re-drawing leaves something unexplained is structurally broken.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy import ndimage

from lens_rl.shapes.letters import WORDS, word_size, written
from lens_rl.shapes.render import AREA, CENTROID_DROP, coverage, paint
from lens_rl.shapes.scene import BACKGROUNDS, COLOURS, INK, LARGE, RELATIONS, SHAPES, Scene, Thing, Word, unit

MIN_AREA = 12.0
"""Square units; smaller spots are no objects, but they do break the structure."""
MAX_SPOTS = 12
"""Spots that are looked at, the largest first, so that a picture of noise costs no more than others."""
MAX_MISFIT = 0.28
"""Largest share of an object's area that may disagree with its best drawing."""
MAX_WRONG_PIXELS = 5
"""Of a word: pixels that are ink and should not be, or the other way round; a dot has four."""
MIN_GROUND = 0.3
"""Least share of a picture that is its background; where there is less, the background is UNCLEAR."""
UNCLEAR = "unclear"
MIN_APART = 0.85
"""Least distance of two centres, in sums of their radii."""
MAX_RESIDUAL = 90.0
"""Largest distance in RGB of one pixel from the best re-drawing of the whole picture, ..."""
MAX_SMOOTH_RESIDUAL = 42.0
"""... of a 2x2 mean, and ..."""
MAX_MEAN_RESIDUAL = 20.0
"""... of all pixels on average."""
RELATION_SLACK = 0.8
"""Units by which centres must be apart before one object is left of another."""

_COLOUR_NAMES, _COLOUR_RGB = list(COLOURS), np.array(list(COLOURS.values()), dtype=float)
_GROUND_NAMES, _GROUND_RGB = list(BACKGROUNDS), np.array(list(BACKGROUNDS.values()), dtype=float)
_PALETTES = [np.array([*COLOURS.values(), INK[name]], dtype=float) for name in _GROUND_NAMES]
"""Per background: what may be drawn on it, the colours and at last the ink."""
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
            thing for thing in self.scene.things if all(word in ("object", thing.colour, thing.shape) for word in words)
        ]


def look(image: np.ndarray) -> Seen:
    """Everything the judge knows of a picture, uint8 RGB (height, width, 3)."""
    pixels = image.astype(float)
    size = (image.shape[0], image.shape[1])
    ground, share = _background(pixels)
    alpha, colour, _ = _unmix(pixels, _GROUND_RGB[ground], _PALETTES[ground])
    word, whole = _read(np.where(colour == len(COLOURS), alpha, 0.0))
    spots = _spots(alpha, colour)
    whole = whole and len(spots) <= MAX_SPOTS and share >= MIN_GROUND
    things: list[Thing] = []
    for index, solid in spots[:MAX_SPOTS]:
        mix = _mix_of(pixels, _GROUND_RGB[ground], _COLOUR_RGB[index])
        fitted = _fit(solid, mix, index, MIN_AREA * unit(size) ** 2)
        if fitted is None:
            whole = whole and int(solid.sum()) < 2
            continue
        thing, misfit = fitted
        things.append(thing)
        whole = whole and misfit <= MAX_MISFIT
    background = _GROUND_NAMES[ground] if share >= MIN_GROUND else UNCLEAR
    scene = Scene(tuple(things), background, size, word)
    return Seen(scene, whole and bool(things) and _apart(things) and _explains(scene, pixels))


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
    if kind == "text":
        return seen.scene.word is not None and seen.scene.word.text == check["is"]
    if kind == "size":
        limit, things = LARGE * unit(seen.scene.size), seen.find(check["of"])
        return bool(things) and all((thing.radius >= limit) == (check["is"] == "large") for thing in things)
    slack = RELATION_SLACK * unit(seen.scene.size)
    return _related(seen.find(check["of"]), check["is"], seen.find(check["to"]), slack)


def can_read(check: Mapping[str, Any]) -> str | None:
    """Why `holds` could not decide this check, or None."""
    kind = check.get("kind")
    fields = _FIELDS.get(kind) if isinstance(kind, str) else None
    if fields is None:
        return f"its check has kind {kind!r}; the shapes judge reads {', '.join(_FIELDS)}"
    if missing := [field for field in fields if field not in check]:
        return f"its check lacks {', '.join(missing)}"
    if unknown := sorted(set(check) - {"kind", *fields}):
        return f"its check has {', '.join(unknown)}, which a {kind} check does not take"
    return next((reason for field in fields if (reason := _unreadable(str(kind), field, check[field]))), None)


def _unreadable(kind: str, field: str, value: Any) -> str | None:
    """Why one field of a check could not be decided, or None."""
    if field in ("of", "to"):
        words = str(value).split()
        if unknown := [word for word in words if word not in ("object", *SHAPES, *COLOURS)]:
            return f"its check asks for {' '.join(unknown)!r}, which is not in the shapes world"
        if len(words) != 1 and not (len(words) == 2 and words[0] in COLOURS and words[1] not in COLOURS):
            return f"its check asks for {value!r}; say a colour, a shape, or both as in 'red circle'"
    elif field == "n" and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        return f"its check counts {value!r}; n is a whole number, 0 or more"
    elif field == "is" and value not in _VALUES[kind]:
        return f"its check says {value!r}; known here: {', '.join(_VALUES[kind])}"
    return None


_FIELDS = {
    "present": ("of",),
    "count": ("of", "n"),
    "relation": ("of", "is", "to"),
    "size": ("of", "is"),
    "text": ("is",),
    "background": ("is",),
    "structure": (),
}
_VALUES = {"relation": RELATIONS, "background": tuple(BACKGROUNDS), "text": WORDS, "size": ("small", "large")}


def _related(first: list[Thing], relation: str, second: list[Thing], slack: float) -> bool:
    """Whether every first thing stands so to every second one; false where one of them is missing."""
    if not first or not second:
        return False
    if relation in ("right of", "below"):
        first, second = second, first
    axis = "x" if relation in ("left of", "right of") else "y"
    return max(getattr(t, axis) for t in first) + slack < min(getattr(t, axis) for t in second)


def _background(pixels: np.ndarray) -> tuple[int, float]:
    """The background that most pixels are near to, and their share."""
    distance = np.linalg.norm(pixels[:, :, None] - _GROUND_RGB, axis=-1)
    near = (distance < 60.0).reshape(-1, len(_GROUND_NAMES)).mean(axis=0)
    return int(near.argmax()), float(near.max())


def _unmix(pixels: np.ndarray, ground: np.ndarray, palette_C3: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each pixel as (1 - alpha) ground + alpha colour: alpha, index of the colour, what is left over."""
    direction_C3 = palette_C3 - ground
    offset = pixels - ground
    alpha_C = offset @ direction_C3.T / (direction_C3**2).sum(axis=1)
    alpha_C = alpha_C.clip(0.0, 1.15)
    left_C = np.linalg.norm(offset[:, :, None] - alpha_C[..., None] * direction_C3, axis=-1)
    colour = left_C.argmin(axis=-1)
    take = np.ogrid[: pixels.shape[0], : pixels.shape[1]]
    return alpha_C[take[0], take[1], colour], colour, left_C[take[0], take[1], colour]


def _spots(alpha: np.ndarray, colour: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Connected pixels of one colour, largest first: index of the colour and mask, (height, width)."""
    spots: list[tuple[int, np.ndarray]] = []
    for index in range(len(_COLOUR_NAMES)):
        solid = (alpha > 0.5) & (colour == index)
        if not solid.any():
            continue
        labels = np.empty(solid.shape, np.int32)
        ndimage.label(solid, np.ones((3, 3)), output=labels)
        spots += [(index, labels == label) for label in range(1, int(labels.max()) + 1)]
    return sorted(spots, key=lambda spot: int(spot[1].sum()), reverse=True)


def _read(ink: np.ndarray) -> tuple[Word | None, bool]:
    """The word that some ink spells, or None, and whether all of the ink is accounted for; `ink` is 0 to 1 a pixel."""
    rows, columns = np.nonzero(ink > 0.5)
    if len(rows) < 2:
        return None, True
    solid = ink > 0.5
    best: tuple[int, Word] | None = None
    for text in WORDS:
        height, width = word_size(text)
        letters = written(text) > 0.5
        for row in range(max(rows.min() - 1, 0), min(rows.min() + 2, ink.shape[0] - height + 1)):
            for column in range(max(columns.min() - 1, 0), min(columns.min() + 2, ink.shape[1] - width + 1)):
                window = solid[row : row + height, column : column + width]
                # Ink outside of the word is wrong as well.
                wrong = int((window != letters).sum() + solid.sum() - window.sum())
                if best is None or wrong < best[0]:
                    best = wrong, Word(text, int(row), int(column))
    read = best is not None and best[0] <= MAX_WRONG_PIXELS
    return (best[1] if best and read else None), read


def _mix_of(pixels: np.ndarray, ground: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """How much of one colour each pixel holds, in [0, 1]."""
    direction = colour - ground
    return ((pixels - ground) @ direction / (direction @ direction)).clip(0.0, 1.0)


def _fit(solid: np.ndarray, alpha: np.ndarray, colour: int, min_area: float) -> tuple[Thing, float] | None:
    """The best drawing of one connected spot, and the share of it that does not fit; None for a speck."""
    rows, columns = np.nonzero(solid)
    top, bottom = max(rows.min() - 2, 0), min(rows.max() + 3, solid.shape[0])
    left, right = max(columns.min() - 2, 0), min(columns.max() + 3, solid.shape[1])
    window = slice(top, bottom), slice(left, right)
    # Its soft edge belongs to an object, but not the soft edge of a neighbour.
    near = ndimage.binary_dilation(solid[window], structure=np.ones((3, 3)))
    seen = alpha[window] * near
    mass = seen.sum()
    if mass < min_area:
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


def _apart(things: list[Thing]) -> bool:
    """Whether no object is drawn into another, as the two halves of a two-coloured one would be."""
    return all(
        np.hypot(one.y - other.y, one.x - other.x) >= MIN_APART * (one.radius + other.radius)
        for one, other in combinations(things, 2)
    )


def _explains(scene: Scene, pixels: np.ndarray) -> bool:
    """Whether re-drawing the scene gives back the picture, up to softness and slight noise."""
    difference = pixels - paint(scene)
    distance = np.linalg.norm(difference, axis=-1)
    smooth = np.linalg.norm(ndimage.uniform_filter(difference, 2, axes=(0, 1)), axis=-1)
    return bool(
        distance.max() <= MAX_RESIDUAL and smooth.max() <= MAX_SMOOTH_RESIDUAL and distance.mean() <= MAX_MEAN_RESIDUAL
    )
