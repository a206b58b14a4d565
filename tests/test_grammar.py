"""The offline writer: every fact in its words, no order that leaves one out, and English that agrees in number."""

import re

import pytest

from lens_core.recipes import RecipeProblem
from lens_core.templates import TemplateProblem
from taxonomy.briefs import briefs
from taxonomy.faithful import outside, unstated
from taxonomy.grammar import Grammar, phrases
from taxonomy.tree import load_any_tree
from tests.small_tree import write_small_tree


def loaded(folder, seed=0, **changes):
    tree = load_any_tree(str(write_small_tree(folder, **changes)))
    return tree, Grammar.load(tree, seed)


def test_every_fact_is_said_and_the_same_every_time(tmp_path):
    tree, grammar = loaded(tmp_path)
    for seed in range(30):
        drawn = list(briefs(tree, 12, seed))
        texts = grammar.write(drawn)
        assert texts == Grammar.load(tree, 0).write(drawn)
        for brief, text in zip(drawn, texts, strict=True):
            assert unstated(text, brief) == {}
            for name in ("setting", "style", "view", "light", "depth", "attribute"):
                assert str(brief.facts.get(name, "")).casefold() in text.casefold()


def test_sentences_begin_with_a_capital_and_end_once(tmp_path):
    tree, grammar = loaded(tmp_path)
    for text in grammar.write(list(briefs(tree, 12, 1))):
        assert all(sentence[0].isupper() or sentence[0] == '"' for sentence in text.split(". "))
        assert text.endswith(".") and ".." not in text and "  " not in text
        assert not re.search(r"\ba [aeio]|\ban [^aeiou8h]", text)


def test_number_and_verb_agree(tmp_path):
    tree, _ = loaded(tmp_path)
    for seed in range(20):
        for brief in briefs(tree, 12, seed):
            said = phrases(brief)
            several = brief.facts["count"] != 1
            assert (said["be"], said["have"], said["it"], said["s"]) == (
                ("are", "have", "they", "") if several else ("is", "has", "it", "s")
            )
            assert ("all" in said, "alone" in said) == (several, not several)
            assert said["subject"].endswith(str(brief.facts["items" if several else "item"]))
            if brief.facts["count"] == 2:
                assert said["each"] == "both" and said["all"] == f"both {brief.facts['items']}"


BEAST = "words__manners__beast__"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head__grammar": "wordz"}, "unknown grammar 'wordz'"),
        ({"head__grammar": "absent.yaml"}, r"absent\.yaml cannot be read"),
        ({"words__manners__beast": None}, r"words\.yaml:\d+: manners\.beast"),
        ({BEAST + "orders": [["opening", "relaton"]]}, "no part 'relaton' .did you mean 'relation'"),
        ({BEAST + "parts__relation": ["{{ thing }} {{ relaton }}"]}, "part 'relation': unknown variable relaton"),
        ({BEAST + "parts__relation": ["{{ thing"]}, "manner 'beast', part 'relation'"),
        ({BEAST + "parts": {}}, r"words\.yaml:\d+: manners\.beast\.parts"),
        ({BEAST + "partz": {}}, "unknown field 'manners.beast.partz' .did you mean 'parts'"),
    ],
)
def test_mistakes_in_a_grammar_are_named(tmp_path, changes, message):
    with pytest.raises((RecipeProblem, TemplateProblem), match=message):
        loaded(tmp_path, **changes)


def test_a_manner_that_the_grammar_lacks_is_named(tmp_path):
    manners = {"best": {"orders": [["a"]], "parts": {"a": ["{{ subject }}"]}}}
    with pytest.raises(RecipeProblem, match=r"no manner 'beast', which the tree has .did you mean 'best'"):
        loaded(tmp_path, words__manners=manners)


def test_facts_that_no_order_states_together_are_named(tmp_path):
    tree, grammar = loaded(tmp_path, words__manners__beast__orders=[["opening", "frame", "whole"]])
    with pytest.raises(RecipeProblem, match=r"manner 'beast': no order states .*other, relation.* together"):
        grammar.write(list(briefs(tree, 12, 0)))


@pytest.mark.slow
def test_the_shipped_grammar_writes_thirty_to_sixty_words():
    tree = load_any_tree("lens")
    drawn = list(briefs(tree, tree.size, 0))
    texts = Grammar.load(tree, 0).write(drawn)

    assert not [text for text, brief in zip(texts, drawn, strict=True) if unstated(text, brief)]
    assert sum(outside(text) > 0 for text in texts) < 0.005 * tree.size
    assert max(map(outside, texts)) <= 5
