"""Pictures as they travel: small enough, the same text every time, and the colours still there."""

import base64
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lens_rl.judges.picture import encode
from lens_rl.judges.profiles import Pictures

SIDES = st.integers(1, 90)


def decoded(picture):
    return Image.open(io.BytesIO(base64.b64decode(picture.url.split(",")[1])))


@given(SIDES, SIDES, SIDES, st.sampled_from(["jpeg", "webp"]))
def test_no_side_is_longer_than_allowed_and_small_pictures_stay(height, width, longest, format):
    image = np.zeros((height, width, 3), np.uint8)
    picture = encode(image, Pictures(format=format, longest_side=longest, most_tokens=1), longest)
    sent = decoded(picture)
    assert (sent.height, sent.width) == picture.size and max(picture.size) <= longest
    assert picture.url.startswith(f"data:image/{format};base64,")
    if max(height, width) <= longest:
        assert picture.size == (height, width)


def test_the_same_picture_is_the_same_text():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    how = Pictures(longest_side=50, most_tokens=1)
    assert encode(image, how, 50) == encode(image.copy(), how, 50)


@pytest.mark.parametrize("colour", [(220, 40, 40), (50, 80, 230), (245, 205, 30)])
def test_colours_of_thin_lines_survive(colour):
    """With half the chroma, which is JPEG's habit, a line of one pixel would be off by forty."""
    image = np.full((32, 32, 3), 245, np.uint8)
    image[::4] = colour
    seen = np.asarray(decoded(encode(image, Pictures(longest_side=32, most_tokens=1), 32))).astype(int)
    assert np.abs(seen[::4] - colour).mean() < 10
