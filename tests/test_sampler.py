"""Draws from a tree: exact quotas, nothing twice, the same every time, splits that share no scene."""

from collections import Counter
from itertools import islice

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_core.recipes import RecipeProblem
from taxonomy.sampler import SHARES, draws, sample, sample_splits, split_of
from taxonomy.tree import load_tree
from tests.test_tree import SMALL, written

SHAPES = load_tree("shapes")


@settings(max_examples=15)
@given(st.integers(0, 300), st.integers(0, 2**40))
def test_quotas_are_kept_and_nothing_is_drawn_twice(n, seed):
    drawn = sample(SHAPES, n, seed)

    assert len(drawn) == n == len({draw.id for draw in drawn})
    assert len({tuple(sorted(draw.facts.items())) for draw in drawn}) == n
    counts = Counter(draw.category for draw in drawn)
    for category in SHAPES.categories:
        assert abs(counts[category.name] - category.quota * n) < 1
    assert drawn == sample(SHAPES, n, seed)


@pytest.mark.parametrize("category", SHAPES.categories, ids=lambda category: category.name)
def test_a_stream_goes_on_where_it_stopped(category):
    whole = list(islice(draws(SHAPES, category, 7), 30))

    assert list(islice(draws(SHAPES, category, 7, start=12), 18)) == whole[12:]
    assert list(islice(draws(SHAPES, category, 8), 30)) != whole


@pytest.mark.parametrize("category", SHAPES.categories, ids=lambda category: category.name)
def test_draws_say_what_their_facts_are(category):
    for draw in islice(draws(SHAPES, category, 0), 100):
        templates = SHAPES.templates[draw.category]
        assert templates.allows(draw.facts)
        assert draw.text in templates.texts(draw.facts)
        assert draw.scene == templates.scene(draw.facts)
        assert draw.dimensions == category.dimensions
        assert 1 <= sum(value for name, value in draw.facts.items() if name.startswith("count")) <= 4


def test_splits_share_no_scene_and_have_their_shares():
    splits = sample_splits(SHAPES, {"train": 1024, "validation": 64, "test": 256}, seed=0)

    scenes = {split: {draw.scene for draw in drawn} for split, drawn in splits.items()}
    assert not scenes["train"] & scenes["test"]
    assert not scenes["train"] & scenes["validation"]
    assert not scenes["validation"] & scenes["test"]
    assert all(draw.split == split for split, drawn in splits.items() for draw in drawn)
    counts = Counter(split_of(f"scene {n}") for n in range(20_000))
    for split, share in SHARES.items():
        assert counts[split] / 20_000 == pytest.approx(share, abs=0.01)


def test_one_scene_however_it_is_said_stays_in_one_split():
    red, blue = ("red", "circle"), ("blue", "square")

    def scene(category, first, second, **more):
        facts = {"count": 1, "colour": first[0], "shape": first[1], "background": "white", **more}
        facts |= {"count2": 1, "colour2": second[0], "shape2": second[1]}
        return SHAPES.templates[category].scene(facts)

    said = {
        scene("two kinds in relation", red, blue, relation="left of"),
        scene("two kinds in relation", blue, red, relation="right of"),
        scene("two kinds", red, blue),
        scene("two kinds", blue, red),
    }
    assert len(said) == 1
    assert scene("two kinds", red, ("blue", "circle")) not in said


def test_an_exhausted_category_says_so(tmp_path):
    tree = load_tree(written(tmp_path))

    assert len(sample(tree, 6, 0)) == 6
    with pytest.raises(RecipeProblem, match="'fruit' has only 6 different prompts, but its quota asks for 7"):
        sample(tree, 7, 0)
    with pytest.raises(RecipeProblem, match="in the test split"):
        sample(tree, 6, 0, "test")
    with pytest.raises(RecipeProblem, match="-1 prompts"):
        sample(tree, -1, 0)


def test_a_condition_that_never_holds_is_an_error_and_no_endless_loop(tmp_path):
    tree = load_tree(written(tmp_path, categories__where="n > 2"))

    with pytest.raises(RecipeProblem, match="break its condition 'n > 2': loosen `where`"):
        sample(tree, 1, 0)


def test_other_trees_with_equal_words_draw_differently(tmp_path):
    one = load_tree(written(tmp_path))
    other_file = tmp_path / "other.yaml"
    other_file.write_text(yaml.safe_dump({**SMALL, "name": "other"}))
    other = load_tree(str(other_file))

    first, second = (list(islice(draws(tree, tree.categories[0], 0), 30)) for tree in (one, other))
    assert [draw.facts for draw in first] != [draw.facts for draw in second]
    assert not {draw.id for draw in first} & {draw.id for draw in second}
