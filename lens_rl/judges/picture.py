"""A picture as it travels: made small enough, compressed once, and the same text in every request about it."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from lens_rl.judges.profiles import Pictures


@dataclass(frozen=True, slots=True)
class Picture:
    """A data URL. Servers know a picture again by its bytes, so all criteria are asked about this one text."""

    url: str
    size: tuple[int, int]
    """(height, width) as sent."""


def encode(image: np.ndarray, how: Pictures, longest_side: int) -> Picture:
    """An image, uint8 RGB (height, width, 3), no side longer than `longest_side` pixels."""
    picture = Image.fromarray(image)
    picture.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    # Full chroma in JPEG: half of it would smear the colours that criteria ask for. WebP has no such choice.
    chroma = {"subsampling": 0} if how.format == "jpeg" else {}
    picture.save(buffer, how.format.upper(), quality=how.quality, **chroma)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Picture(f"data:image/{how.format};base64,{data}", (picture.height, picture.width))
