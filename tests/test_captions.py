"""Captions of the embedded world: dense ones say every fact in the prompts' own words, brief ones the objects."""

from itertools import islice

import pytest

from lens_rl.shapes.captions import captions
from lens_rl.shapes.letters import WORDS
from lens_rl.shapes.scene import BACKGROUNDS, COLOURS, RELATIONS, SHAPES, kinds
from taxonomy.sampler import draws
from taxonomy.tree import load_tree

TREE = load_tree("shapes")
VOCABULARY = {
    *["one", "two", "three", "four", "on", "a", "and", "background", "small", "large", "the", "word"],
    *SHAPES,
    *TREE.words["plural"].values(),
    *(f'"{word}"' for word in WORDS),
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
            assert all(f"{kind.colour} {kind.shape}" in text for kind in kinds(draw.facts))
        for text in said["dense"]:
            assert f"{draw.facts['background']} background" in text
            assert all(str(draw.facts.get(fact, "")) in text for fact in ("relation", "word", "size", "size2"))
        assert said == captions(TREE, draw)
