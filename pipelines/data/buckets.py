"""Into which bucket a picture goes, and how it gets there: the middle of it, made smaller, and text never cut."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from base_model.buckets import TRAINING_BUCKETS, nearest_bucket, parse_size
from lens_core.recipes import RecipeProblem
from lens_core.records import Size
from pipelines.data.pack import Unpackable

QUALITY = 95
"""Of pictures that had to change, as JPEG with full chroma."""
MOST_SQUEEZE = 1.06
"""How much wider or narrower a picture of text may become, since nothing of it may be cut off."""
LEAST_LETTERS = 9.0
"""Pixels an em, below which text can no longer be read in any font."""
LEAST_SIDE, MOST_SIDE = 16, 4096
"""Pixels of a picture that is made or packed."""
SUFFIXES = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}
"""Formats that go into a shard as they are."""


@dataclass(frozen=True)
class Buckets:
    """Sizes to choose from, (height, width), in tiers: a picture goes into the largest that need not enlarge it."""

    tiers: tuple[tuple[Size, ...], ...] = tuple(TRAINING_BUCKETS[base] for base in sorted(TRAINING_BUCKETS))

    @classmethod
    def of(cls, sizes: Sequence[Size]) -> "Buckets":
        """Sizes of the user's own are one tier; without any, the 27 of training are three."""
        return cls((tuple(sizes),)) if sizes else cls()

    def choose(self, size: Size) -> Size:
        """The bucket of a picture of that size: of the nearest shape, in the tier that fits."""
        nearest = [nearest_bucket(size[0] / size[1], tier) for tier in self.tiers]
        fitting = [bucket for bucket in nearest if bucket[0] <= size[0] and bucket[1] <= size[1]]
        return fitting[-1] if fitting else nearest[0]


def sizes_named(words: Sequence[str]) -> tuple[Size, ...]:
    """Sizes as `--size` gives them, each once. Raises RecipeProblem for what is none, or too small or large."""
    sizes = tuple(dict.fromkeys(map(parse_size, words)))
    for height, width in sizes:
        if not LEAST_SIDE <= min(height, width) <= max(height, width) <= MOST_SIDE:
            raise RecipeProblem(f"--size {height}x{width}: sides are of {LEAST_SIDE} to {MOST_SIDE:,} pixels")
    return sizes


def fit_picture(image: np.ndarray, bucket: Size) -> np.ndarray:
    """The largest middle part of the bucket's shape, at its size; uint8 RGB (H, W, 3)."""
    height, width = image.shape[:2]
    scale = max(bucket[0] / height, bucket[1] / width)
    part_h, part_w = min(bucket[0] / scale, height), min(bucket[1] / scale, width)
    left, top = (width - part_w) / 2, (height - part_h) / 2
    return _resized(image, bucket, (left, top, left + part_w, top + part_h))


def fit_text(image: np.ndarray, facts: Mapping[str, Any], bucket: Size) -> tuple[np.ndarray, dict[str, Any]]:
    """A picture of text at the bucket's size, all of it, and its facts with every corner where it then lies.

    Raises Unpackable where it would be squeezed out of shape, or its letters would become too small.
    """
    y_scale, x_scale = bucket[0] / image.shape[0], bucket[1] / image.shape[1]
    if math.exp(abs(math.log(y_scale / x_scale))) > MOST_SQUEEZE:
        raise Unpackable("a picture of text, of another shape than every bucket: give its --size")
    letters = min(text["letters"] for text in facts["texts"]) * min(x_scale, y_scale)
    if letters < LEAST_LETTERS:
        raise Unpackable(f"its letters would be {letters:.1f} pixels small")
    texts = [
        {**text, "lines": [_moved(line, x_scale, y_scale) for line in text["lines"]], "letters": _rounded(letters_of)}
        for text in facts["texts"]
        for letters_of in [text["letters"] * min(x_scale, y_scale)]
    ]
    whole = (0.0, 0.0, float(image.shape[1]), float(image.shape[0]))
    return _resized(image, bucket, whole), {**facts, "size": list(bucket), "texts": texts}


def encode(image: np.ndarray) -> bytes:
    """As JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue()


def _moved(line: Mapping[str, Any], x_scale: float, y_scale: float) -> dict[str, Any]:
    return {**line, "corners": [[_rounded(x * x_scale), _rounded(y * y_scale)] for x, y in line["corners"]]}


def _rounded(pixels: float) -> float:
    return round(pixels, 1)


def _resized(image: np.ndarray, bucket: Size, box: tuple[float, float, float, float]) -> np.ndarray:
    picture = Image.fromarray(image)
    return np.asarray(picture.resize((bucket[1], bucket[0]), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0))
