"""The embedded judge: it accepts what is true, refuses what is false, and is not fooled by broken pictures.

The truth comes from the scene, which the judge never sees. Every criterion of a prompt is also told as
lies: the same check with one fact changed so that it is false of the scene.
"""

from collections import Counter
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from lens_rl.shapes.judge import Seen, can_read, holds, look
from lens_rl.shapes.letters import WORDS
from lens_rl.shapes.render import FLAWS, flawed, paint, render, to_uint8
from lens_rl.shapes.scene import BACKGROUNDS, COLOURS, LARGE, RELATIONS, SHAPES, Scene, Thing, Word, place, unit
from rubrics.rubric import Rubric
from taxonomy.sampler import sample
from taxonomy.tree import load_tree

SIZES = [(24, 24), (20, 28), (28, 20)]
KINDS = {"colour", "shape", "count", "size", "total", "relation", "text", "background", "structure"}

VALUES = {"background": BACKGROUNDS, "relation": RELATIONS, "text": WORDS, "size": ("small", "large")}


@cache
def world():
    """660 fresh scenes with the criteria of their prompts."""
    random, rubric = np.random.default_rng(0), Rubric.load("shapes")
    drawn = sample(load_tree("shapes"), 660, seed=1)
    return [
        (place(draw.facts, SIZES[n % 3], random), rubric.criteria(draw.text, draw.facts))
        for n, draw in enumerate(drawn)
    ]


def soft(picture, random):
    """What a decoder makes of a picture at best: a little blur, a little noise."""
    return to_uint8(gaussian_filter(picture, (0.4, 0.4, 0)) + random.normal(0, 6, picture.shape))


def is_true(check, scene: Scene) -> bool:
    def of(words):
        return [thing for thing in scene.things if set(words.split()) <= {"object", thing.colour, thing.shape}]

    if check["kind"] == "present":
        return bool(of(check["of"]))
    if check["kind"] == "count":
        return len(of(check["of"])) == check["n"]
    if check["kind"] == "background":
        return scene.background == check["is"]
    if check["kind"] == "structure":
        return True
    if check["kind"] == "text":
        return scene.word is not None and scene.word.text == check["is"]
    if check["kind"] == "size":
        return {thing.radius > LARGE * unit(scene.size) for thing in of(check["of"])} == {check["is"] == "large"}
    sign, axis = {"left of": (1, "x"), "right of": (-1, "x"), "above": (1, "y"), "below": (-1, "y")}[check["is"]]
    pairs = [(one, other) for one in of(check["of"]) for other in of(check["to"])]
    return bool(pairs) and all(sign * getattr(one, axis) < sign * getattr(other, axis) for one, other in pairs)


def lies(check, scene: Scene) -> Iterator[dict]:
    """The check with one fact changed, in every way that makes it false of the scene."""
    changed = []
    for field in ("of", "to"):
        for words in (COLOURS, SHAPES):
            for old in set(check.get(field, "").split()) & set(words):
                changed += [{**check, field: check[field].replace(old, new)} for new in words if new != old]
    if "n" in check:
        changed += [{**check, "n": n} for n in range(6)]
    if "is" in check:
        changed += [{**check, "is": value} for value in VALUES[check["kind"]]]
    return (lie for lie in changed if not is_true(lie, scene))


def shares(picture_of) -> tuple[dict[str, float], dict[str, float]]:
    """Share of truths, and of lies, that are accepted, by kind of criterion."""
    told, believed = Counter(), Counter()
    for scene, criteria in world():
        seen = look(picture_of(scene))
        for criterion in criteria:
            assert criterion.check is not None and is_true(criterion.check, scene)
            claims = [(criterion.check, True), *((lie, False) for lie in lies(criterion.check, scene))]
            for check, truth in claims:
                told[criterion.kind, truth] += 1
                believed[criterion.kind, truth] += holds(check, seen)
    table = {key: believed[key] / told[key] for key in told}
    return ({k: v for (k, truth), v in table.items() if truth}, {k: v for (k, truth), v in table.items() if not truth})


@pytest.mark.parametrize("decoded", [False, True])
def test_truths_are_accepted_and_lies_are_not(decoded):
    random = np.random.default_rng(3)

    truths, false = shares(lambda scene: soft(paint(scene), random) if decoded else render(scene))

    assert set(truths) == KINDS
    assert set(false) == KINDS - {"structure"}
    assert min(truths.values()) >= 0.99, truths
    assert max(false.values()) <= 0.02, false


@pytest.mark.parametrize("decoded", [False, True])
@pytest.mark.parametrize("flaw", FLAWS)
def test_broken_pictures_are_seen_to_be_broken(flaw, decoded):
    random = np.random.default_rng(4)
    pictures = (flawed(scene, flaw, random) for scene, _ in world())

    accepted = [look(soft(picture.astype(float), random) if decoded else picture).whole for picture in pictures]

    assert np.mean(accepted) <= 0.02


@pytest.mark.parametrize("size", SIZES)
def test_what_is_seen_is_what_was_drawn(size):
    for scene, _ in world():
        if scene.size != size:
            continue
        seen = look(render(scene)).scene
        assert seen.background == scene.background
        assert len(seen.things) == len(scene.things)
        assert seen.word == scene.word
        for drawn in scene.things:
            found = min(seen.things, key=lambda thing: np.hypot(thing.y - drawn.y, thing.x - drawn.x))
            assert (drawn.shape, drawn.colour) == (found.shape, found.colour)
            assert np.abs([drawn.y - found.y, drawn.x - found.x, drawn.radius - found.radius]).max() < 0.75


@pytest.mark.parametrize("height_width", [(1, 1), (20, 20), (64, 48)])
def test_pictures_without_a_scene_are_looked_at_all_the_same(height_width):
    random = np.random.default_rng(5)
    for picture in (
        random.integers(0, 256, (*height_width, 3)),
        np.zeros((*height_width, 3)),
        np.full((*height_width, 3), (0, 255, 255)),
        np.full((*height_width, 3), COLOURS["red"]),
    ):
        seen = look(picture.astype(np.uint8))
        assert not holds({"kind": "structure"}, seen)
        assert not holds({"kind": "background", "is": "grey"}, seen)
        assert not holds({"kind": "relation", "of": "red circle", "is": "above", "to": "blue square"}, seen)


def test_the_picture_is_not_changed_by_looking():
    picture = render(world()[0][0])
    before = picture.copy()

    look(picture)

    assert (picture == before).all()


def test_a_misspelt_word_is_not_read():
    def drawn(word):
        return render(Scene((Thing("circle", "red", 24.0, 24.0, 4.0),), "white", (32, 32), Word(word, 4, 4)))

    picture = drawn("GO")
    assert holds({"kind": "text", "is": "GO"}, look(picture)) and look(picture).whole
    picture[4:14, 12:18] = drawn("HI")[4:14, 4:10]
    assert not look(picture).whole
    assert not any(holds({"kind": "text", "is": word}, look(picture)) for word in WORDS)


def test_a_relation_needs_every_pair():
    def at(colour, x):
        return Thing("circle", colour, 8.0, x, 3.0)

    scene = Scene((at("red", 4.0), at("red", 12.0), at("blue", 20.0)), "white", (16, 24))
    mixed = Scene((at("red", 4.0), at("red", 20.0), at("blue", 12.0)), "white", (16, 24))
    left = {"kind": "relation", "of": "red circle", "is": "left of", "to": "blue circle"}

    assert holds(left, Seen(scene, True))
    assert not holds(left, Seen(mixed, True))
    assert holds({**left, "of": "blue circle", "is": "right of", "to": "red circle"}, Seen(scene, True))


@pytest.mark.parametrize(
    ("check", "reason"),
    [
        ({}, "kind None"),
        ({"kind": ["count"]}, "kind"),
        ({"kind": "colour"}, "reads present, count"),
        ({"kind": "count", "of": "red circle"}, "lacks n"),
        ({"kind": "count", "of": "red circle", "n": "two"}, "counts 'two'"),
        ({"kind": "count", "of": "red circle", "n": True}, "counts True"),
        ({"kind": "count", "of": "red circle", "n": -1}, "counts -1"),
        ({"kind": "count", "of": "red circles", "n": 1}, "'circles'"),
        ({"kind": "present", "of": ""}, "asks for ''"),
        ({"kind": "present", "of": "red blue"}, "asks for 'red blue'"),
        ({"kind": "present", "of": "circle red"}, "asks for 'circle red'"),
        ({"kind": "present", "of": "circle", "n": 1}, "has n"),
        ({"kind": "relation", "of": "circle", "is": "near", "to": "square"}, "says 'near'"),
        ({"kind": "background", "is": "red"}, "says 'red'"),
        ({"kind": "text", "is": "STOP"}, "says 'STOP'"),
        ({"kind": "size", "of": "red circle", "is": "huge"}, "says 'huge'"),
    ],
)
def test_checks_it_cannot_read_get_a_reason(check, reason):
    assert reason in (can_read(check) or "")


def test_it_reads_every_check_of_its_rubric():
    assert {can_read(criterion.check) for _, criteria in world() for criterion in criteria} == {None}
