"""Which picture sizes there are: the released inference buckets, the 27 training buckets, and size checks.

A size is (height, width) in pixels. Each bucket of a base exists in both orientations.
"""

import math
from collections.abc import Iterable

from lens_core.records import Size


def _both_ways(*portraits: Size) -> tuple[Size, ...]:
    """The sizes from narrow to wide: the portraits, then their transposes in reverse (a square once)."""
    landscapes = [(w, h) for h, w in reversed(portraits) if h != w]
    return (*portraits, *landscapes)


INFERENCE_BUCKETS: dict[int, tuple[Size, ...]] = {
    1024: _both_ways((1472, 736), (1376, 768), (1248, 832), (1152, 864), (1024, 1024)),
    1440: _both_ways((2080, 1040), (1936, 1088), (1760, 1168), (1616, 1216), (1440, 1440)),
}
"""Base side -> its nine released sizes, tallest first: width:height from 1:2, 9:16, 2:3, 3:4, 1:1 to 2:1."""

TRAINING_BUCKETS: dict[int, tuple[Size, ...]] = {
    512: _both_ways((704, 352), (672, 384), (640, 416), (608, 448), (512, 512)),
    768: _both_ways((1088, 544), (1024, 576), (960, 640), (896, 672), (768, 768)),
    1024: INFERENCE_BUCKETS[1024],
}
"""Base side -> its nine training sizes; 27 in all, every side a multiple of 32."""

SMALL_SQUARES = {4: 24, 8: 32}
"""Size multiple -> usual side of the small models that have it."""


def parse_size(text: str) -> Size:
    """`HxW` as (height, width). Raises ValueError with an example."""
    try:
        height, width = (int(side) for side in text.lower().split("x"))
    except ValueError as error:
        raise ValueError(f"--size {text}: write it as HxW, height first, for example 1024x768") from error
    return height, width


def tokens(size: Size, multiple: int = 16) -> int:
    """How many latent tokens an image of this size has, `multiple` pixels a side each."""
    height, width = grid(size, multiple)
    return height * width


def usual_size(multiple: int = 16) -> Size:
    """The square to draw where no size is given: 1024 pixels, less for models of small tokens."""
    side = SMALL_SQUARES.get(multiple, 1024 // multiple * multiple)
    return side, side


def grid(size: Size, multiple: int = 16) -> tuple[int, int]:
    """The token grid (rows, columns) of a size."""
    check_size(size, multiple)
    return size[0] // multiple, size[1] // multiple


def check_size(size: Size, multiple: int = 16) -> None:
    """Raise ValueError, naming the nearest sizes that would do, unless both sides are positive multiples."""
    if len(size) == 2 and all(side > 0 and side % multiple == 0 for side in size):
        return
    if len(size) != 2:
        raise ValueError(f"size {size!r}: a size is (height, width) in pixels")
    nearest = " and ".join(str(valid) for valid in nearest_sizes(size, multiple))
    raise ValueError(f"size {tuple(size)}: height and width must be multiples of {multiple}; nearest valid: {nearest}")


def nearest_sizes(size: Size, multiple: int = 16) -> list[Size]:
    """The next smaller and the next larger size whose sides are multiples; one, where they are the same."""
    height, width = (max(multiple, side // multiple * multiple) for side in size)
    taller, wider = (max(multiple, math.ceil(side / multiple) * multiple) for side in size)
    return list(dict.fromkeys([(height, width), (taller, wider)]))


def nearest_bucket(aspect: float, buckets: Iterable[Size]) -> Size:
    """The bucket whose height / width is nearest to `aspect`, as a ratio; the first of equals."""
    if aspect <= 0:
        raise ValueError(f"aspect is {aspect}; it is height / width and must be positive")
    return min(buckets, key=lambda size: abs(math.log(size[0] / size[1] / aspect)))
