"""Captions of the embedded world: dense ones say every fact in the prompts' own words, brief ones the objects."""

from itertools import islice

import pytest

from lens_rl.shapes.captions import captions
from lens_rl.shapes.scene import BACKGROUNDS, COLOURS, RELATIONS, SHAPES, kinds
from taxonomy.sampler import draws
from taxonomy.tree import load_tree

TREE = load_tree("shapes")
VOCABULARY = {
    *["one", "two", "three", "on", "a", "and", "background"],
    *(word + s for word in SHAPES for s in ("", "s")),
    *COLOURS,
    *BACKGROUNDS,
    *" ".join(RELATIONS).split(),
}


@pytest.mark.parametrize("category", TREE.categories, ids=lambda category: category.name)
def test_captions_say_the_facts_in_few_words(category):
    for draw in islice(draws(TREE, category, 0), 60):
        said = captions(TREE, draw)

        assert said["dense"] == TREE.templates[draw.category].texts(draw.facts)
        assert draw.text in said["dense"] and len(set(said["dense"])) >= 2
        assert said["brief"] and not set(said["brief"]) & set(said["dense"])
        for text in (*said["dense"], *said["brief"]):
            assert set(text.replace(",", "").split()) <= VOCABULARY
            assert all(f"{colour} {shape}" in text for _, colour, shape in kinds(draw.facts))
        for text in said["dense"]:
            assert f"{draw.facts['background']} background" in text
            assert str(draw.facts.get("relation", "")) in text
        assert said == captions(TREE, draw)
