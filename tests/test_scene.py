"""Scenes show the facts they were placed for, clearly, on every size of picture."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lens_rl.shapes.letters import DOT, GRID, WORDS, word_size, written
from lens_rl.shapes.render import area, coverage, pixel_centres
from lens_rl.shapes.scene import LARGE, RELATION_MARGIN, RELATIONS, kinds, place, unit
from taxonomy.sampler import draws
from taxonomy.tree import load_tree

TREE = load_tree("shapes")
FACTS = [next(draws(TREE, category, 0, start)).facts for category in TREE.categories for start in range(40)]
sizes = st.sampled_from([(32, 32), (24, 40), (40, 24), (24, 24), (64, 48)])


@given(st.sampled_from(FACTS), sizes, st.integers(0, 2**32))
def test_the_objects_are_those_of_the_facts(facts, size, seed):
    scene = place(facts, size, np.random.default_rng(seed))

    wanted = [(kind.colour, kind.shape) for kind in kinds(facts) for _ in range(kind.count)]
    assert [(thing.colour, thing.shape) for thing in scene.things] == wanted
    assert (scene.background, scene.size) == (facts["background"], size)
    assert scene == place(facts, size, np.random.default_rng(seed))


@given(st.sampled_from(FACTS), sizes, st.integers(0, 2**32))
def test_sizes_are_told_apart(facts, size, seed):
    scene = place(facts, size, np.random.default_rng(seed))

    said = [kind.extent for kind in kinds(facts) for _ in range(kind.count)]
    for extent, thing in zip(said, scene.things, strict=True):
        if extent:
            assert (
                (thing.radius / unit(size) > LARGE + 0.4)
                if extent == "large"
                else (thing.radius / unit(size) < LARGE - 0.4)
            )


@given(st.sampled_from([f for f in FACTS if "word" in f]), sizes, st.integers(0, 2**32))
def test_a_word_is_whole_and_apart_from_the_objects(facts, size, seed):
    scene = place(facts, size, np.random.default_rng(seed))

    assert scene.word is not None and scene.word.text == facts["word"]
    height, width = word_size(scene.word.text)
    assert DOT <= scene.word.row <= size[0] - height - DOT and DOT <= scene.word.column <= size[1] - width - DOT
    assert scene.word.row % GRID == scene.word.column % GRID == DOT
    rows, columns = pixel_centres(size)
    box = (
        slice(scene.word.row - 1, scene.word.row + height + 1),
        slice(scene.word.column - 1, scene.word.column + width + 1),
    )
    for thing in scene.things:
        assert coverage(thing.shape, rows - thing.y, columns - thing.x, thing.radius)[box].max() == 0


def test_every_word_can_be_written_and_no_two_look_alike():
    for word in WORDS:
        assert written(word).shape == word_size(word)
    for one, other in combinations(WORDS, 2):
        if word_size(one) == word_size(other):
            assert np.abs(written(one) - written(other)).sum() >= 4 * DOT**2, (one, other)


@given(st.sampled_from(FACTS), sizes, st.integers(0, 2**32))
def test_objects_are_whole_and_apart(facts, size, seed):
    scene = place(facts, size, np.random.default_rng(seed))

    fine = 8
    rows, columns = (centres / fine for centres in pixel_centres((size[0] * fine, size[1] * fine)))
    inked = [
        np.argwhere(coverage(t.shape, (rows - t.y) * fine, (columns - t.x) * fine, t.radius * fine) > 0.5) / fine
        for t in scene.things
    ]
    for thing, points in zip(scene.things, inked, strict=True):
        assert len(points) / fine**2 == pytest.approx(area(thing.shape, thing.radius), rel=0.05)
        assert points.min() > 0
        assert (points.max(axis=0) + 1 / fine < size).all()
    for one, other in combinations(inked, 2):
        gap = np.sqrt(((one[::3, None] - other[None, ::3]) ** 2).sum(axis=-1)).min()
        assert gap >= 1.5


@given(st.sampled_from([f for f in FACTS if "relation" in f]), sizes, st.integers(0, 2**32))
def test_relations_hold_by_a_margin(facts, size, seed):
    scene = place(facts, size, np.random.default_rng(seed))

    n = facts["count"]
    axis = "x" if facts["relation"] in ("left of", "right of") else "y"
    first, second = ([getattr(t, axis) for t in things] for things in (scene.things[:n], scene.things[n:]))
    if facts["relation"] in ("right of", "below"):
        first, second = second, first
    assert max(first) + RELATION_MARGIN * unit(size) <= min(second) + 1e-9


def test_sizes_and_places_vary():
    random = np.random.default_rng(0)
    things = [place(FACTS[n], (32, 32), random).things[0] for n in range(40)]

    assert np.ptp([thing.radius for thing in things]) > 1.2
    assert np.ptp([thing.y for thing in things]) > 12


def test_impossible_wishes_are_refused():
    random = np.random.default_rng(0)
    with pytest.raises(ValueError, match="do not fit on 4x4 pixels"):
        place(FACTS[0], (4, 4), random)
    with pytest.raises(ValueError, match="word HI does not fit on 32x12 pixels"):
        place({**FACTS[0], "word": "HI"}, (32, 12), random)
    with pytest.raises(ValueError, match="at least one object"):
        place({"background": "white"}, (32, 32), random)
    with pytest.raises(ValueError, match=f"'near'; this world knows: {', '.join(RELATIONS)}"):
        place({**FACTS[0], "relation": "near"}, (32, 32), random)
    with pytest.raises(ValueError, match="'STOP'; this world writes: HI, GO"):
        place({**FACTS[0], "word": "STOP"}, (32, 32), random)
