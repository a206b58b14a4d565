"""Text in pictures: every letter in its place, in its colour, readable, and said in the caption as it is drawn."""

import math
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipelines.data.text.backgrounds import PATTERNS, Background, draw_background
from pipelines.data.text.drawing import NothingFits, draw_text
from pipelines.data.text.layouts import LAYOUTS, POSTER, SIGN, SLIDE
from pipelines.data.text.palette import COLOURS, GROUNDS, LEAST_CONTRAST, contrast, luminance, readable_on, shade
from pipelines.data.text.plane import draw_plane
from pipelines.data.text.scripts import Text, own_vocabularies, script_of
from pipelines.data.text.setting import fit
from pipelines.data.text.wording import captions, quoted
from tests.typefaces import COVERED, FACES, inside, vocabulary

SIZE = (384, 512)
SEEDS = st.integers(0, 2**32)


def drawn(seed, layout=SIGN, name="latin", size=SIZE):
    random = Random(seed)
    return draw_text(random, layout, size, draw_background(random, size), vocabulary(name), COVERED[name])


def bare(seed, ground="white"):
    """A poster that is nothing but letters on one colour, in any perspective."""
    layout = replace(POSTER, surface=0.0, tilt=12.0, depth=0.1)
    background = Background(Image.new("RGB", SIZE[::-1], COLOURS[ground]), "plain")
    return draw_text(Random(seed), layout, SIZE, background, vocabulary("latin"), COVERED["latin"])


@pytest.mark.parametrize("seed", range(12))
def test_the_ink_is_where_the_ground_truth_says(seed):
    """No pixel outside the polygons differs from the ground, and every polygon is filled to its four sides."""
    picture = bare(seed)
    spread = 3 * picture.blur + max(block.pixels for block in picture.blocks) / 18 + 2  # shadows lie beside letters
    polygons = [line.polygon for block in picture.blocks for line in block.lines]
    ink = np.abs(np.asarray(picture.picture).astype(int) - COLOURS["white"]).max(-1) > 24
    assert not (ink & (np.asarray(inside(polygons, SIZE, spread)) == 0)).any()
    for polygon in polygons:
        corners = np.array(polygon)
        y, x = np.nonzero(ink & (np.asarray(inside([polygon], SIZE)) > 0))
        along, down = corners[1] - corners[0], corners[3] - corners[0]
        for side in (along, down):
            places = (np.stack([x, y], 1) - corners[0]) @ side / (side @ side)
            slack = 0.06 + (3 + 2 * picture.blur) / np.linalg.norm(side)
            assert places.min() < slack and places.max() > 1 - slack


@pytest.mark.parametrize("seed", range(8))
def test_letters_have_the_colour_that_is_said(seed):
    picture = bare(seed)
    for block in picture.blocks:
        part = np.asarray(picture.picture)[np.asarray(inside([line.polygon for line in block.lines], SIZE)) > 0]
        distance = {name: np.abs(part.astype(int) - colour).sum(-1).min() for name, colour in COLOURS.items()}
        if not picture.blur:
            assert distance[block.colour] <= 3 * 8 + 12
        assert block.colour in readable_on(np.array(COLOURS[block.behind or "white"]))


@given(SEEDS, st.sampled_from(sorted(COVERED)), st.sampled_from(sorted(LAYOUTS)))
def test_nothing_is_drawn_that_a_font_lacks_or_that_leaves_the_picture(seed, name, layout):
    picture = drawn(seed, LAYOUTS[layout], name)
    for block in picture.blocks:
        assert not block.face.lacks(block.text)
        joint = vocabulary(name).script.joint
        assert joint.join(line.text for line in block.lines) == block.text
        for x, y in (corner for line in block.lines for corner in line.polygon):
            assert -1 <= x <= SIZE[1] + 1 and -1 <= y <= SIZE[0] + 1


@given(SEEDS, st.sampled_from(sorted(COVERED)), st.sampled_from(sorted(LAYOUTS)))
def test_captions_hold_every_text_letter_for_letter(seed, name, layout):
    picture = drawn(seed, LAYOUTS[layout], name)
    said = captions(picture, Random(seed))
    assert all(quoted(block.text) in said["dense"][0] for block in picture.blocks)
    assert any(quoted(block.text) in said["brief"][0] for block in picture.blocks)
    assert "  " not in said["dense"][0] and "None" not in said["dense"][0]
    for block in picture.blocks:
        assert block.colour in said["dense"][0] and block.face.looks in said["dense"][0]


def test_the_same_seed_gives_the_same_picture():
    one, two, other = drawn(5, SLIDE), drawn(5, SLIDE), drawn(6, SLIDE)
    assert one.picture.tobytes() == two.picture.tobytes() != other.picture.tobytes()
    assert one.blocks == two.blocks != other.blocks


def test_pictures_too_small_for_letters_are_refused_and_not_scribbled_on():
    with pytest.raises(NothingFits, match="no letters of 20 pixels fit a sign of 24 x 24 pixels"):
        drawn(0, SIGN, size=(24, 24))


@given(SEEDS)
def test_a_plane_lies_inside_the_picture_and_maps_corners_to_corners(seed):
    random = Random(seed)
    plane = draw_plane(random, random.choice(list(LAYOUTS.values())), SIZE)
    panel = [(0, 0), (plane.width, 0), (plane.width, plane.height), (0, plane.height)]
    for (x, y), (u, v) in zip(plane.project(panel), plane.corners, strict=True):
        assert math.isclose(x, u, abs_tol=1e-6) and math.isclose(y, v, abs_tol=1e-6)
        assert -1e-6 <= u <= SIZE[1] + 1e-6 and -1e-6 <= v <= SIZE[0] + 1e-6


@pytest.mark.parametrize("seed", range(6))
def test_a_dot_on_the_panel_comes_to_lie_where_it_is_projected(seed):
    plane = draw_plane(Random(seed), SIGN, SIZE)
    panel = Image.new("RGBA", (round(plane.width), round(plane.height)))
    spot = (panel.width // 3, panel.height // 4)
    panel.paste((255, 0, 0, 255), (spot[0] - 2, spot[1] - 2, spot[0] + 3, spot[1] + 3))
    picture = Image.new("RGBA", SIZE[::-1], "white")
    plane.lay(panel, picture)
    weight = 255.0 - np.asarray(picture)[..., 1]
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    centre = ((x * weight).sum() / weight.sum(), (y * weight).sum() / weight.sum())
    (wanted,) = plane.project([spot])
    assert math.dist(centre, wanted) < 1.0


WORDS = st.lists(st.text("abcdefghij", min_size=1, max_size=9), min_size=1, max_size=9)


@given(WORDS, st.integers(60, 500), st.integers(30, 300), st.sampled_from(FACES[:4]))
def test_what_is_set_fits_its_room_and_loses_nothing(words, width, height, face):
    text = Text(tuple(words))
    setting = fit(text, face, (width, height), wish=48.0, least=14.0, rtl=False)
    if setting is None:
        assert fit(text, face, (10_000, 10_000), wish=14.0, least=14.0, rtl=False) is not None
        return
    assert " ".join(setting.lines) == str(text) and 14 <= setting.pixels <= 48
    placed = setting.placed((0, 0, width, height), centred=True)
    assert all(line.box[0] >= -1 and line.box[2] <= width + 1 for line in placed)
    assert placed[0].box[1] >= -1 and placed[-1].box[3] <= height + 1


def test_contrast_by_known_values():
    white, black, grey = (float(luminance(np.array([value] * 3))) for value in (255, 0, 119))
    assert contrast(white, black) == pytest.approx(21.0, abs=1e-3) == contrast(black, white)
    assert contrast(white, grey) == pytest.approx(4.48, abs=0.01)  # just short of what WCAG asks for


@given(SEEDS, st.sampled_from(GROUNDS))
def test_chosen_colours_stand_out(seed, ground):
    behind = np.array([shade(COLOURS[ground], Random(seed + turn)) for turn in range(20)])
    for name in readable_on(behind):
        for pixel in behind[np.argsort(luminance(behind))[1:-1]]:
            got = contrast(float(luminance(np.array(COLOURS[name]))), float(luminance(pixel)))
            assert got > LEAST_CONTRAST - 0.05
    assert not readable_on(np.array([COLOURS["white"], COLOURS["black"]] * 50))


@pytest.mark.parametrize("kind", PATTERNS)
def test_patterns_have_their_size_and_their_colours(kind):
    picture = PATTERNS[kind][0](Random(1), (60, 90), COLOURS["red"], COLOURS["white"])
    assert picture.size == (90, 60) and picture.mode == "RGB"
    low, high = np.minimum(COLOURS["red"], COLOURS["white"]), np.maximum(COLOURS["red"], COLOURS["white"])
    assert (np.asarray(picture) >= low - 8).all() and (np.asarray(picture) <= high + 8).all()


def test_lines_of_ones_own_are_sorted_by_script_and_kept():
    found = {one.name: one.lines for one in own_vocabularies(["Straße 5", "", " 東京タワー ", "Улица", "12:30"], "t")}
    assert found == {"latin": ("Straße 5", "12:30"), "japanese": ("東京タワー",), "cyrillic": ("Улица",)}
    (kept,) = own_vocabularies(["two  spaces"], "t")
    assert str(kept.write(Random(0), 1)) == "two  spaces"
    assert script_of("東京") == "chinese" and script_of("東京へ") == "japanese" and script_of("!?") is None
