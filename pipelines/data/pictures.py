"""A picture from a file's bytes, whatever kind of file it is: upright, opaque, RGB; or the reason why not."""

import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MOST_PIXELS = 200_000_000
"""Larger pictures are refused by their header, before anything is decoded."""
BROKEN = (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, MemoryError, Image.DecompressionBombError)
"""What Pillow's decoders raise over damaged files."""


class Unreadable(ValueError):
    """A file that gives no picture to train on; its message is the reason, a few words."""


def open_picture(data: bytes) -> Image.Image:
    """Decode a file completely. Raises Unreadable.

    Turned as its EXIF says, transparency laid on white, CMYK and grey made RGB, 16 bits scaled to 8. Animations are
    refused: which of their frames the caption is about, nobody could say.
    """
    if not data:
        raise Unreadable("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # bombs are refused below, by a bound of our own
            picture = Image.open(io.BytesIO(data))
            if picture.width * picture.height > MOST_PIXELS:
                raise Unreadable(f"too large: {picture.width:,} x {picture.height:,} pixels")
            if (frames := getattr(picture, "n_frames", 1)) > 1 and picture.format != "MPO":
                raise Unreadable(f"animated: {frames} frames")
            picture.load()
            return _as_rgb(ImageOps.exif_transpose(picture))
    except Unreadable:
        raise
    except UnidentifiedImageError as error:
        raise Unreadable("not a picture") from error
    except BROKEN as error:
        raise Unreadable(f"damaged: {' '.join(str(error).split())[:120] or type(error).__name__}") from error


def _as_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # 16 bits, which convert() would cut off at 255
        values_HW = np.clip(np.asarray(picture, dtype=np.int64), 0, 65535)
        return Image.fromarray((values_HW // 257).astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise Unreadable("floating-point pixels")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        ground = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(ground, layer).convert("RGB")
    return picture.convert("RGB")
