"""Rubric files: strict, rendered into criteria with unique names, and told to a judge with the prompt quoted."""

import json
import time
from itertools import islice

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lens_core.recipes import RecipeProblem
from lens_core.records import Criterion
from lens_core.templates import TemplateProblem
from rubrics.rubric import RUBRICS, Rubric
from taxonomy.sampler import draws
from taxonomy.tree import load_tree

ONE = {"name": "colour", "kind": "colour", "text": "A {{ shape }} of {{ prompt }} is {{ colour }}."}
SMALL = {"name": "small", "facts": ["shape", "colour", "n"], "criteria": [ONE]}


def written(folder, judge_text=None, **changes):
    """A file of the small rubric; `one__text` changes that field of its one criterion."""
    data = yaml.safe_load(yaml.safe_dump(SMALL))
    for field, value in changes.items():
        section, _, inner = field.partition("__")
        if section == "one":
            data["criteria"][0][inner] = value
        else:
            data[section] = value
    if judge_text is not None:
        (folder / "judge.j2").write_text(judge_text)
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump(data))
    return str(file)


def test_criteria_are_rendered_for_a_prompt(tmp_path):
    check = {"kind": "count", "of": "{{ colour }} {{ shape }}", "n": "{{ n }}", "deep": {"list": ["{{ n }}", 2, None]}}
    rubric = Rubric.load(written(tmp_path, one__check=check))

    found = rubric.criteria("a red circle", {"shape": "circle", "colour": "red", "n": 3})

    rendered = {"kind": "count", "of": "red circle", "n": 3, "deep": {"list": [3, 2, None]}}
    assert found == (Criterion("colour", "A circle of a red circle is red.", "colour", rendered),)


def test_when_decides_whether_a_criterion_applies(tmp_path):
    rubric = Rubric.load(written(tmp_path, one__when="n is defined and n > 1", one__text="x"))

    assert rubric.criteria("p", {}) == rubric.criteria("p", {"n": 1}) == ()
    assert [criterion.text for criterion in rubric.criteria("p", {"n": 2})] == ["x"]


PARENT = {"name": "dog", "kind": "object", "when": "n is defined", "text": "There is a dog."}
CHILD = {"name": "hat", "kind": "object", "requires": "dog", "weight": 2, "text": "The dog wears a hat."}


def test_weight_and_parent_go_with_a_criterion(tmp_path):
    dog, hat = Rubric.load(written(tmp_path, criteria=[PARENT, CHILD])).criteria("p", {"n": 1})

    assert (dog.weight, dog.requires) == (1.0, None)
    assert (hat.weight, hat.requires) == (2.0, "dog")


def test_a_child_applies_only_where_its_parent_does(tmp_path):
    """So a condition on facts is written once, also for a grandchild, whatever the order in the file."""
    brim = {"name": "brim", "kind": "object", "requires": "hat", "when": "n > 1", "text": "The hat has a brim."}
    rubric = Rubric.load(written(tmp_path, criteria=[brim, CHILD, PARENT]))

    assert rubric.criteria("p", {}) == ()
    assert [one.name for one in rubric.criteria("p", {"n": 1})] == ["hat", "dog"]
    assert [one.name for one in rubric.criteria("p", {"n": 2})] == ["brim", "hat", "dog"]


def test_facts_with_examples_are_facts(tmp_path):
    listed = Rubric.load(written(tmp_path))
    with_examples = Rubric.load(written(tmp_path, facts={"shape": ["circle"], "colour": [], "n": [1, 2]}))

    facts = {"shape": "square", "colour": "blue"}
    assert listed.criteria("p", facts) == with_examples.criteria("p", facts)


@pytest.mark.parametrize("name", sorted(file.stem for file in RUBRICS.glob("*.yaml")))
def test_every_shipped_rubric_loads_and_has_its_own_hash(name):
    rubric = Rubric.load(name)

    assert rubric.name == name
    assert rubric.hash == Rubric.load(name).hash
    assert len({Rubric.load(file.stem).hash for file in RUBRICS.glob("*.yaml")}) == len(list(RUBRICS.glob("*.yaml")))


def test_the_general_rubric_needs_no_facts():
    criteria = Rubric.load("lens").criteria("a panda with a placard", {})

    assert {criterion.kind for criterion in criteria} >= {"object count", "attribute", "placement", "action", "text"}
    assert [criterion.name for criterion in criteria if criterion.kind == "structure"] == ["structural integrity"]


@pytest.mark.parametrize("category", load_tree("shapes").categories, ids=lambda category: category.name)
def test_the_rubric_of_the_shapes_fits_every_prompt_of_its_tree(category):
    rubric, tree = Rubric.load("shapes"), load_tree("shapes")
    for draw in islice(draws(tree, category, 0), 200):
        criteria = rubric.criteria(draw.text, draw.facts)
        kinds = [criterion.kind for criterion in criteria]

        assert all(criterion.check for criterion in criteria)
        assert len({json.dumps(criterion.check, sort_keys=True) for criterion in criteria}) >= len(criteria) - 1
        assert {"colour", "shape", "count", "total", "background", "structure"} <= set(kinds)
        assert ("relation" in kinds) == ("relation" in draw.facts)
        assert kinds.count("count") == sum(fact.startswith("count") for fact in draw.facts)
        assert kinds.count("colour") == len({value for fact, value in draw.facts.items() if fact.startswith("colour")})
        assert kinds.count("shape") == len({value for fact, value in draw.facts.items() if fact.startswith("shape")})
        assert all(criterion.text[0].isupper() and criterion.text.endswith(".") for criterion in criteria)


def test_counts_are_said_in_words():
    facts = {"count": 2, "colour": "red", "shape": "circle", "background": "white"}

    said = {criterion.name: criterion.text for criterion in Rubric.load("shapes").criteria("", facts)}

    assert said["count"] == "There are exactly two red circles."
    assert said["total"] == "There are exactly two objects in all."


@given(st.text(), st.text(min_size=1), st.text(min_size=1))
def test_the_prompt_reaches_a_judge_as_a_quoted_string(prompt, name, text):
    system, user = Rubric.load("lens").messages(prompt, Criterion(name, text, "kind"))

    first_line = user.splitlines()[0]
    assert json.loads(first_line.removeprefix("Prompt of the picture: ")) == prompt
    assert text.strip() in user and name.strip() in user
    assert "1" in system and "0" in system and "only in part" in system
    assert system == Rubric.load("lens").messages("another", Criterion("a", "b", "c"))[0]


def test_the_hash_covers_criteria_and_judge(tmp_path):
    first = Rubric.load(written(tmp_path))
    criteria_changed = Rubric.load(written(tmp_path, one__text="Another."))
    judge_changed = Rubric.load(written(tmp_path, judge_text="{{ part }} {{ prompt }}"))

    assert len({first.hash, criteria_changed.hash, judge_changed.hash}) == 3
    assert first.template_hash == criteria_changed.template_hash != judge_changed.template_hash


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"one__txt": "a"}, r"small\.yaml:\d+: unknown field 'criteria.0.txt' .did you mean 'text'"),
        ({"criteria": []}, r"small\.yaml:\d+: criteria"),
        ({"one__kind": 3}, r"small\.yaml:\d+: criteria\.0\.kind: .*\(got 3\)"),
        ({"one__text": "{{ colr }}"}, r"small\.yaml, criterion 'colour', text: unknown variable colr; known here: "),
        ({"one__check": {"of": "{{ colr }}"}}, r"criterion 'colour', check\.of: unknown variable colr"),
        ({"one__when": "colr is defined"}, "criterion 'colour', when: unknown variable colr"),
        ({"one__when": "n >"}, "criterion 'colour', when: "),
        ({"one__text": "{{ n"}, "criterion 'colour', text: "),
        ({"facts": ["shape", "colour", "prompt"]}, "facts and words: a name is given twice"),
        ({"facts": ["n", "n", "shape", "colour"]}, "facts: 'n' is given twice"),
        ({"one__weight": 0}, r"criteria\.0\.weight: .*\(got 0\)"),
        ({"one__weight": "heavy"}, r"criteria\.0\.weight: .*\(got 'heavy'\)"),
        ({"one__requires": "color"}, "'colour' requires 'color', which does not exist .did you mean 'colour'"),
        ({"one__requires": "colour"}, "'colour' requires 'colour': take one `requires` out of the circle"),
        ({"criteria": [PARENT | {"requires": "hat"}, CHILD]}, "'dog' requires 'hat' requires 'dog': take one"),
        ({"criteria": [PARENT, CHILD, CHILD | {"requires": None}]}, "named 'hat' and require different ones"),
        ({"judge": "../small.yaml"}, r"judge: .*\(got '\.\./small\.yaml'\)"),
        ({"judge": "/etc/passwd"}, r"judge: .*\(got '/etc/passwd'\)"),
        ({"judge": "absent.j2"}, r"small\.yaml: judge: there is no template absent\.j2"),
    ],
)
def test_mistakes_are_named(tmp_path, changes, message):
    with pytest.raises((RecipeProblem, TemplateProblem), match=message):
        Rubric.load(written(tmp_path, **changes))


def test_a_step_of_judge_messages_takes_no_time():
    """11,520 messages in half a second of one core, on the best of three tries: neighbours may disturb."""
    rubric = Rubric.load("lens")
    criteria = [Criterion(f"name {n}", f"There are {n} apples.", "count") for n in range(11_520)]

    def seconds():
        started = time.process_time()
        assert len({rubric.messages("a bowl of apples", one) for one in criteria}) == len(criteria)
        return time.process_time() - started

    assert min(seconds() for _ in range(3)) < 0.5


def test_mistakes_that_only_a_prompt_brings_out_are_named(tmp_path):
    twice = Rubric.load(written(tmp_path, criteria=[{"name": "a", "kind": "b", "text": "c"}] * 2))
    with pytest.raises(RecipeProblem, match="criteria of prompt 'p': two are named 'a'"):
        twice.criteria("p", {})
    with pytest.raises(
        TemplateProblem, match=r"small\.yaml, criterion 'colour', text: 'colour' is undefined; .*has no fact colour"
    ):
        Rubric.load(written(tmp_path)).criteria("p", {"shape": "circle"})
    silent = Rubric.load(written(tmp_path, judge_text="{% if part == 'user' %}{{ prompt }}{% endif %}"))
    with pytest.raises(RecipeProblem, match="renders no text for part 'system'"):
        silent.messages("p", Criterion("a", "b", "c"))
    (tmp_path / "judge.j2").write_bytes(b"\xff")
    with pytest.raises(RecipeProblem, match=r"judge\.j2 cannot be read as UTF-8"):
        Rubric.load(written(tmp_path))
    with pytest.raises(RecipeProblem, match=r"unknown rubric 'shape' .did you mean 'shapes'"):
        Rubric.load("shape")
