"""Category trees: strict files, clear errors, facts to texts and scenes."""

import pytest
import yaml

from lens_core.recipes import RecipeProblem
from taxonomy.tree import TREES, load_any_tree, load_tree

SMALL = {
    "name": "small",
    "lists": {"colour": ["red", "blue"], "fruit": ["apple", "pear"]},
    "words": {"number": {"1": "one", "2": "two"}},
    "phrases": {"fruits": "{{ number[n] }} {{ colour }} {{ fruit }}{{ 's' if n > 1 }}"},
    "categories": [
        {
            "name": "fruit",
            "quota": 1.0,
            "dimensions": ["count"],
            "slots": {"n": [1, 2], "colour": "colour", "fruit": "fruit"},
            "where": "colour == 'red' or fruit == 'pear'",
            "text": ["{{ fruits }}", "a bowl of {{ fruits }}"],
            "scene": "{{ fruits }}",
        }
    ],
}


def written(folder, **changes):
    """A file of the small tree; `categories__slots` changes that field of its one category."""
    data = yaml.safe_load(yaml.safe_dump(SMALL))
    for field, value in changes.items():
        section, _, inner = field.partition("__")
        if inner:
            data[section][0][inner] = value
        else:
            data[section] = value
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump(data))
    return str(file)


def test_facts_become_texts_and_a_scene(tmp_path):
    tree = load_tree(written(tmp_path))
    fruit = tree.templates["fruit"]
    facts = {"n": 2, "colour": "red", "fruit": "apple"}

    assert fruit.texts(facts) == ["two red apples", "a bowl of two red apples"]
    assert fruit.scene(facts) == "two red apples"
    assert fruit.allows(facts) and not fruit.allows({**facts, "colour": "blue"})
    assert tree.values(tree.categories[0], "colour") == ("red", "blue")
    assert tree.values(tree.categories[0], "n") == (1, 2)


@pytest.mark.parametrize("name", sorted(file.stem for file in TREES.glob("*.yaml")))
def test_every_shipped_tree_loads(name):
    assert load_any_tree(name).categories


def test_shapes_keep_to_their_small_vocabulary():
    tree = load_tree("shapes")
    facts = {"count": 2, "colour": "red", "shape": "circle", "relation": "left of", "background": "white"}
    facts |= {"count2": 1, "colour2": "blue", "shape2": "square"}
    said = tree.templates["two kinds in relation"].texts(facts)

    assert "two red circles left of one blue square on a white background" in said
    assert all(text == text.lower() and text.isascii() for text in said)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colours": {}}, r"small\.yaml:\d+: unknown field 'colours'"),
        ({"categories__txt": ["a"]}, r"small\.yaml:\d+: unknown field 'categories.0.txt' .did you mean 'text'"),
        ({"categories__quota": 0.5}, "quotas of the categories add up to 0.5, not to 1"),
        ({"categories__quota": "all"}, r"categories\.0\.quota: .*\(got 'all'\)"),
        ({"categories__quota": 0}, r"categories\.0\.quota"),
        ({"categories__text": []}, r"categories\.0\.text"),
        ({"categories__slots": {}}, r"categories\.0\.slots"),
        ({"lists": {"colour": [], "fruit": ["apple"]}}, r"lists\.colour"),
        ({"lists": {"colour": ["red", "red"], "fruit": ["apple"]}}, "list 'colour' has 'red' twice"),
        ({"lists": {"colour": [True, False], "fruit": ["apple"]}}, r"lists\.colour\.0"),
        ({"categories__slots": {"n": [1], "colour": "color", "fruit": "fruit"}}, "'colour' names no list 'color'"),
        ({"categories__slots": {"my n": [1]}}, "slot 'my n' is no name"),
        ({"categories__slots": {"number": [1]}}, "slot 'number' has the name of a table"),
        ({"categories__text": ["{{ fruit"]}, "small, category 'fruit', text: unexpected end"),
        ({"categories__text": ["{{ froot }}"]}, "text: unknown variable froot; known here: colour, fruit, fruits"),
        ({"categories__scene": "{{ froot }}"}, "scene: unknown variable froot"),
        ({"categories__where": "m > 1"}, "where: unknown variable m; known here: colour, fruit, n"),
        ({"categories__where": "n >"}, "category 'fruit', where: "),
        ({"phrases": {"fruits": "{{ colr }}"}}, "phrase 'fruits' asks for colr, which is a slot of no category"),
        ({"categories": []}, r"small\.yaml:\d+: categories"),
        ({"categories": SMALL["categories"] * 2}, "add up to 2, not to 1"),
        (
            {"categories": [{**SMALL["categories"][0], "quota": 0.5}] * 2},
            "two categories are named 'fruit'",
        ),
    ],
)
def test_mistakes_are_named(tmp_path, changes, message):
    with pytest.raises(RecipeProblem, match=message):
        load_tree(written(tmp_path, **changes))


def test_an_unknown_tree_is_named_with_the_nearest():
    with pytest.raises(RecipeProblem, match=r"unknown tree 'shape' .did you mean 'shapes'"):
        load_tree("shape")
