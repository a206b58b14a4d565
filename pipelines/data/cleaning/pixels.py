"""One full decode, and everything that pixels alone say about an image.

The decode is the test of corruption: a header, Pillow's `verify` and some faster decoders pass a JPEG that is cut in
half.
"""

import hashlib
import io
import warnings
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pipelines.data.cleaning.reading import Unreadable

SIDE = 512
"""Longest side, in pixels, at which sharpness, entropy and light are measured: large and small images compare."""
MOST_PIXELS = 178_956_970
"""More are a decompression bomb: 13,377 x 13,377, half a gigabyte once decoded."""
HASH_SIDE = 16
"""A perceptual hash is the sign of HASH_SIDE**2 = 256 low frequencies."""
HASH_INPUT = 64
ORIENTATION = 0x0112
EIGHT_BITS = 255

warnings.filterwarnings("ignore", module=r"PIL\b")  # What matters is in the row; `MOST_PIXELS` is where bombs end.
cv2.setNumThreads(1)  # Images are the unit of parallel work.


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A decoded image: uint8 RGB (H, W, 3), upright, perhaps smaller than it is stored."""

    rgb: np.ndarray
    height: int
    """As stored, after EXIF rotation."""
    width: int
    format: str
    notes: str
    """What had to be changed: cmyk, 16-bit, alpha, rotated, in this order with commas."""


def decode(content: bytes, longest: int) -> Picture:
    """Decode all of an image; a JPEG at the smallest scale whose longest side is at least `longest`.

    Alpha is laid over white, 16 bits are cut to their upper 8, EXIF rotation is applied. Raises Unreadable, and
    nothing else, for whatever is no still image.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            return _picture(image, longest)
    except Unreadable:
        raise
    except UnidentifiedImageError as error:
        raise Unreadable(f"not an image: {_looks_like(content)}") from error
    except Image.DecompressionBombError as error:
        raise Unreadable(f"decompression bomb: more than {MOST_PIXELS:,} pixels") from error
    except MemoryError as error:
        raise Unreadable("does not fit in memory") from error
    except Exception as error:  # Decoders of broken files raise everything from OSError to struct.error.
        told = str(error) or type(error).__name__
        raise Unreadable("truncated" if "truncated" in told else f"cannot be decoded: {told}") from error


def _picture(image: Image.Image, longest: int) -> Picture:
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise Unreadable(f"decompression bomb: {height:,} x {width:,} pixels")
    kind = image.format or "?"
    if kind != "MPO" and (frames := getattr(image, "n_frames", 1)) > 1:
        raise Unreadable(f"not one still image: {frames} frames")
    scale = longest / max(width, height)
    if kind in ("JPEG", "MPO") and scale < 1:
        # A scaled decode reads the stream to its end as a full one does, and finds the same faults.
        image.draft(None, (round(width * scale), round(height * scale)))  # pyright: ignore[reportArgumentType]
    sixteen = "16" in image.mode or any("16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    image.load()
    turned = _orientation(image)
    notes = {
        "cmyk": image.mode == "CMYK",
        "16-bit": sixteen,
        "alpha": image.has_transparency_data,
        "rotated": turned != 1,
    }
    if turned >= 5:
        width, height = height, width
    rgb = _rgb(ImageOps.exif_transpose(image) if turned != 1 else image)
    return Picture(np.asarray(rgb), height, width, kind, ",".join(name for name, holds in notes.items() if holds))


def _orientation(image: Image.Image) -> int:
    """1 to 8; 1, upright, where the EXIF data say nothing that can be understood."""
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except Exception:  # Broken metadata do not spoil the pixels.
        return 1
    return found if found in range(1, 9) else 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() >= 1 << 16:
            raise Unreadable("pixels of 32 bits")
        image = Image.fromarray((values.astype(np.uint32) >> 8).astype(np.uint8))
    if image.mode == "F":
        raise Unreadable("pixels are floating-point numbers")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        paper.alpha_composite(image)
        image = paper
    return image.convert("RGB")


def _looks_like(content: bytes) -> str:
    start = content[:512].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head")):
        return "a web page"
    if start.startswith((b"<?xml", b"<svg")):
        return "XML or SVG"
    if not content.strip(b"\0"):
        return "nothing but zeros"
    try:
        content[:512].decode("ascii")
    except UnicodeDecodeError:
        return "of no known format"
    return "text"


def measure(content: bytes) -> dict[str, Any]:
    """The row of one image, under the names of `scores.PIXELS`. Raises Unreadable."""
    picture = decode(content, SIDE)
    rgb = shrink(picture.rgb, SIDE)
    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    value = cv2.max(cv2.max(rgb[..., 0], rgb[..., 1]), rgb[..., 2])
    darkest, brightest = percentiles(value, (0.01, 0.99))
    return {
        "sha256": hashlib.sha256(content).digest(),
        "bytes": len(content),
        "format": picture.format,
        "notes": picture.notes,
        "height": picture.height,
        "width": picture.width,
        "sharpness": sharpness(gray),
        "entropy": entropy(gray),
        "luminance": float(value.mean()) / EIGHT_BITS,
        "darkest": darkest / EIGHT_BITS,
        "brightest": brightest / EIGHT_BITS,
        "hash": perceptual_hash(gray),
    }


def shrink(image: np.ndarray, longest: int) -> np.ndarray:
    """The image with its longest side at most `longest` pixels, by averages over areas; never enlarged."""
    height, width = image.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def sharpness(gray: np.ndarray) -> float:
    """Variance of the Laplacian of uint8 (H, W) over the variance of the grey itself.

    The quotient says how much of the contrast is in the finest detail. Unlike the bare variance it does not fall when
    an image is darkened. 0 for one grey.
    """
    spread = float(cv2.meanStdDev(gray)[1][0, 0]) ** 2
    detail = float(cv2.meanStdDev(cv2.Laplacian(gray, cv2.CV_16S))[1][0, 0]) ** 2
    return detail / spread if spread > 0 else 0.0


def entropy(gray: np.ndarray) -> float:
    """Shannon entropy of the histogram of uint8 (H, W), in bits: 0 for one grey, 8 for all equally often."""
    counts = cv2.calcHist([gray], [0], None, [256], [0, 256]).ravel()
    shares = counts[counts > 0] / gray.size
    return float(-(shares * np.log2(shares)).sum())


def percentiles(values: np.ndarray, shares: tuple[float, ...]) -> list[int]:
    """The least uint8 value that at least this share of (H, W) does not exceed, by the histogram."""
    below = np.cumsum(cv2.calcHist([values], [0], None, [256], [0, 256]).ravel())
    return [int(np.searchsorted(below, share * values.size)) for share in shares]


def perceptual_hash(gray: np.ndarray) -> bytes:
    """256 bits: which low frequencies of the cosine transform lie above their median.

    The wider the picture is squeezed, the less a resize or a new compression shows.
    """
    small = cv2.resize(gray, (HASH_INPUT, HASH_INPUT), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:HASH_SIDE, :HASH_SIDE].ravel()
    return np.packbits(low > np.median(low[1:])).tobytes()
