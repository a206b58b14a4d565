"""Pictures of scenes: the right colours in the right places, soft edges, and flaws that can be told."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lens_rl.shapes.letters import written
from lens_rl.shapes.render import CENTROID_DROP, FLAWS, area, coverage, flawed, paint, pixel_centres, render
from lens_rl.shapes.scene import BACKGROUNDS, COLOURS, INK, SHAPES, Scene, Thing, Word

shapes, colours = st.sampled_from(SHAPES), st.sampled_from(list(COLOURS))
centres, radii = st.floats(8, 12), st.floats(3.1, 6.2)


@given(shapes, centres, centres, radii)
def test_a_shape_covers_its_area_around_its_centroid(shape, y, x, radius):
    rows, columns = pixel_centres((20, 20))

    covered = coverage(shape, rows - y, columns - x, radius)

    assert covered.min() >= 0 and covered.max() == 1
    # Corners are drawn a little fuller than they are, by about a pixel in all, whatever the radius.
    assert covered.sum() == pytest.approx(area(shape, radius), abs=1.1)
    assert (covered * rows).sum() / covered.sum() == pytest.approx(y + CENTROID_DROP[shape] * radius, abs=0.15)
    assert (covered * columns).sum() / covered.sum() == pytest.approx(x, abs=0.1)


@given(shapes, radii)
def test_the_edge_is_as_soft_as_supersampling_would_make_it(shape, radius):
    rows, columns = pixel_centres((20, 20))
    fine_rows, fine_columns = (centres / 16 for centres in pixel_centres((320, 320)))

    sampled = coverage(shape, (fine_rows - 10.2) * 16, (fine_columns - 9.7) * 16, radius * 16) > 0.5
    slow = sampled.reshape(20, 16, 20, 16).mean(axis=(1, 3))

    # Corners are drawn a little fuller than they are; along the sides the two agree.
    difference = np.abs(coverage(shape, rows - 10.2, columns - 9.7, radius) - slow)
    assert difference.max() < 0.45
    assert difference.sum() < 0.1 * slow.sum()


@given(shapes, colours, st.sampled_from(list(BACKGROUNDS)), st.sampled_from([(20, 20), (16, 24), (24, 16)]))
def test_colours_are_those_of_the_palette(shape, colour, background, size):
    picture = render(Scene((Thing(shape, colour, 8.0, 9.0, 3.5),), background, size))

    assert picture.shape == (*size, 3) and picture.dtype == np.uint8
    assert tuple(picture[8, 8]) == COLOURS[colour]
    assert tuple(picture[0, 0]) == tuple(picture[-1, -1]) == BACKGROUNDS[background]


def test_shapes_are_told_apart_by_eye_and_by_number():
    rows, columns = pixel_centres((20, 20))
    drawn = {shape: coverage(shape, rows - 10, columns - 10, 3.0) for shape in SHAPES}

    assert np.abs(drawn["circle"] - drawn["square"]).sum() > 3
    assert np.abs(drawn["circle"] - drawn["triangle"]).sum() > 6


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_a_word_is_drawn_pixel_by_pixel(background):
    picture = render(Scene((), background, (24, 24), Word("UP", 4, 6)))

    ink = (picture == INK[background]).all(axis=-1)
    assert (ink[4:14, 6:20] == written("UP").astype(bool)).all()
    assert ink.sum() == written("UP").sum()
    assert np.abs(np.subtract(INK[background], BACKGROUNDS[background])).min() > 100


@pytest.mark.parametrize("flaw", FLAWS)
def test_flaws_change_the_picture_and_are_seeded(flaw):
    things = (Thing("circle", "red", 5.5, 6.0, 3.2), Thing("triangle", "blue", 14.0, 13.0, 3.4))
    scene = Scene(things, "grey", (20, 20))

    picture = flawed(scene, flaw, np.random.default_rng(0))

    assert picture.shape == (20, 20, 3) and picture.dtype == np.uint8
    assert np.abs(picture - paint(scene)).max() > 30
    assert (picture == flawed(scene, flaw, np.random.default_rng(0))).all()


def test_an_unknown_flaw_is_refused():
    with pytest.raises(ValueError, match="'melted' is none of cut, merged"):
        flawed(Scene((Thing("circle", "red", 5.0, 5.0, 3.0),), "white", (20, 20)), "melted", np.random.default_rng(0))
