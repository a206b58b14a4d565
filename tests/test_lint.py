"""The linter: forty planted faults, each found by its code where it stands, and silence over all that is shipped."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lens_core.recipes import RecipeProblem
from pipelines.rubric import findings
from rubrics.comparing import contradict, disagreement, same
from rubrics.lint import Finding, Sample, lint
from rubrics.rubric import RUBRICS, read_rubric
from rubrics.samples import MOST, samples_of
from rubrics.statements import faults_of

SOUND = """\
name: sound
judge: judge.j2
facts:
  colour: [red, black and white]
  count: [1, 2]
  hat: [a bowler, a crown]
words:
  number: {1: one, 2: two}
criteria:
  - name: dog
    kind: object
    text: There is a dog.
  - name: colour
    kind: colour
    requires: dog
    text: The dog is {{ colour }}.
    check: {kind: colour, of: dog, is: "{{ colour }}"}
  - name: count
    kind: count
    text: There {{ 'is' if count == 1 else 'are' }} exactly {{ number[count] }} bone{{ 's' if count > 1 }}.
    check: {kind: count, of: bone, n: "{{ count }}"}
  - name: hat
    kind: attribute
    when: hat is defined
    requires: dog
    text: The dog wears {{ hat }}.
"""
JUDGE = (RUBRICS / "judge.j2").read_text(encoding="utf-8")

TEXT, LAST = "    text: There is a dog.", "    text: The dog wears {{ hat }}."
MANY = "".join(f"  - {{name: dog {n}, kind: object, text: There is dog {n} x{n}.}}\n" for n in range(11, 40))
PLANTED = [
    # what is changed, into what, the code it must be found by, and a word of the line that it must be found on
    ("name: sound", "nmae: sound", "field", None),
    ("criteria:\n", "criteria: [\n", "field", "name: dog"),
    (TEXT, "    txt: There is a dog.", "field", "txt"),
    ("facts:\n", "words: {}\nfacts:\n", "field", "words"),
    ("  count: [1, 2]", "  count: [1, 2]\n  number: [1]", "field", None),
    ("requires: dog\n    text: The dog is", "requires: dig\n    text: The dog is", "requires", None),
    ("  - name: dog\n", "  - name: dog\n    requires: colour\n", "requires", None),
    ("judge: judge.j2", "judge: other.j2", "judge-missing", None),
    ("{{ colour }}.", "{{ colr }}.", "unknown-variable", "colr"),
    ("when: hat is defined", "when: hut is defined", "unknown-variable", "hut"),
    ('is: "{{ colour }}"', 'is: "{{ colur }}"', "unknown-variable", "colur"),
    ("{{ colour }}.", "{{ colour }.", "template", "colour }."),
    ("when: hat is defined", "when: hat is", "template", "hat is"),
    ("{{ colour }}.", "{{ colour.upper() }}.", "sandbox", "upper"),
    ("{{ colour }}.", "{{ colour | uper }}.", "sandbox", "uper"),
    (TEXT, TEXT.replace("There is a dog.", "'{{ prompt }} has a dog.'"), "bare-prompt", "prompt }}"),
    ("name: dog", "name: 'the {{ colour }} dog'", "requires", None),
    ("name: count", 'name: "count\\nof bones"', "name", "count"),
    ("name: count", "name: hat", "field", None),
    (LAST, LAST + "\n  - {name: dog, kind: object, text: A bone lies on the floor.}", "doubled-name", "A bone"),
    ("  hat: [a bowler, a crown]", "  hat: [a bowler, a crown]\n  coat: [red]", "unused", "coat"),
    ("  number: {1: one, 2: two}", "  number: {1: one, 2: two}\n  idle: {1: one}", "unused", "idle"),
    ("  colour: [red, black and white]", "  colour: []", "no-values", "facts"),
    ("kind: count\n    text", "kind: colours\n    text", "kind", "colours"),
    ("check: {kind: colour, of", "check: {sort: colour, of", "check-kind", "sort"),
    ("when: hat is defined", "when: 1 < 2", "constant-when", "1 < 2"),
    ("when: hat is defined", "when: hat == 'a beret'", "never", "beret"),
    ("'s' if count > 1", "'s' if count > 2", "dead-branch", "count > 2"),
    ("{{ hat }}.", "{% if hat == 'a beret' %}nothing{% else %}{{ hat }}{% endif %}.", "dead-branch", "beret"),
    ("    when: hat is defined\n", "    when: hat is not defined\n", "missing-fact", "hat }}"),
    ("{1: one, 2: two}", "{1: one}", "fails", "number[count]"),
    (TEXT, "    text: Is there a dog?", "question", "Is there"),
    (TEXT, "    text: Check that there is a dog.", "instruction", "Check"),
    (TEXT, "    text: The dog fits the prompt on a scale from 1 to 5.", "grade", "scale"),
    (TEXT, "    text: The dog looks nice.", "vague", "nice"),
    (TEXT, "    text: There is a dog and the sky is blue.", "two-facts", "sky"),
    (TEXT, "    text: There is a dog and a cat.", "two-facts", "cat"),
    (TEXT, "    text: The dog is wet and hungry.", "two-facts", "hungry"),
    (TEXT, "    text: If there is a dog, it is alone.", "open-condition", "alone"),
    (TEXT, "    text: There is not a dog that is not alone.", "double-negative", "alone"),
    (TEXT, "    text: A dog.", "fragment", "A dog"),
    (TEXT, "    text: ''", "empty", "text: ''"),
    (TEXT, f"    text: There is a dog{' near a dog' * 30}.", "long", "near"),
    (TEXT, "    text: 'There is a {colour} dog.'", "braces", "{colour}"),
    (LAST, LAST + "\n  - {name: again, kind: object, text: A dog can be seen.}", "doubled", "again"),
    (LAST, LAST + "\n  - {name: none, kind: object, text: There is no dog.}", "contradiction", "none"),
    (LAST, LAST + "\n  - {name: green, kind: colour, text: The dog is green.}", "contradiction", "green"),
    ('of: bone, n: "{{ count }}"', 'of: bone, n: "{{ count + 1 }}"', "check-differs", "bone, n"),
    ('of: bone, n: "{{ count }}"', 'of: stick, n: "{{ count }}"', "check-differs", "stick"),
    ("  - name: dog\n", "  - name: dog\n    weight: 9\n", "heavy", "weight"),
    ("criteria:\n", "criteria:\n" + MANY, "too-many", None),
]  # fmt: skip

JUDGES = [
    ("{{ prompt | tojson }}", "", "judge-prompt", None),
    ("{{ prompt | tojson }}", "{{ prompt }}", "judge-quotes", None),
    ("{{ criterion.text }}", "", "judge-criterion", None),
    ("1", "yes", "judge-answer", None),
    ("{% else %}", "{% endif %}{% if part == 'usr' %}", "judge-empty", None),
    ('part == "system"', 'part == "sytem"', "dead-branch", "sytem"),
    ("You check one picture", "For {{ criterion.name }} you check one picture", "judge-system", None),
    ("{{ criterion.name }}", "{{ criteria.name }}", "unknown-variable", "criteria.name"),
    ("{% endif %}", "", "template", None),
    ("{{ criterion.name }}", "{{ criterion.__class__ }}", "template", None),
    ("{{ criterion.name }}", "{% include 'x' %}", "sandbox", "include"),
    ("You check one picture", "You check one picture. " * 400, "judge-long", None),
]


def linted(folder: Path, rubric: str = SOUND, judge: str = JUDGE) -> list[Finding]:
    (folder / "judge.j2").write_text(judge)
    (folder / "sound.yaml").write_text(rubric)
    return lint(str(folder / "sound.yaml"))


def found(findings: list[Finding], code: str, word: str | None) -> bool:
    """Whether the code is among them, on a line that holds the word."""
    return any(
        one.code == code and (word is None or word in Path(one.file).read_text().splitlines()[one.line - 1])
        for one in findings
    )


def test_the_sound_rubric_is_sound(tmp_path):
    assert linted(tmp_path) == []


def test_a_wrong_field_is_one_finding(tmp_path):
    findings = linted(tmp_path, "name: x\ncriteria:\n  - {name: a, kind: b, text: c, weigth: 2}\n")

    assert [(one.code, one.line) for one in findings] == [("field", 3)]
    assert "did you mean 'weight'" in findings[0].message


def test_a_rubric_that_is_not_there_is_no_finding(tmp_path):
    with pytest.raises(RecipeProblem, match="does not exist"):
        lint(str(tmp_path / "absent.yaml"))


@pytest.mark.parametrize(
    ("old", "new", "code", "word"), PLANTED, ids=[f"{code}: {new.strip()[:40]}" for _, new, code, _ in PLANTED]
)
def test_a_planted_fault_is_found(tmp_path, old, new, code, word):
    assert SOUND.count(old) >= 1
    findings = linted(tmp_path, SOUND.replace(old, new, 1))

    assert found(findings, code, word), findings
    assert all(one.message and one.fix and one.line >= 1 for one in findings)


@pytest.mark.parametrize(("old", "new", "code", "word"), JUDGES, ids=[f"{j[2]}: {j[1][:30]}" for j in JUDGES])
def test_a_fault_of_the_judge_template_is_found(tmp_path, old, new, code, word):
    findings = linted(tmp_path, judge=JUDGE.replace(old, new))

    assert found(findings, code, word), findings


def test_at_least_forty_faults_are_planted_under_many_codes():
    assert len(PLANTED) + len(JUDGES) >= 40
    assert len({code for _, _, code, _ in (*PLANTED, *JUDGES)}) >= 30


@pytest.mark.parametrize("name", sorted(file.stem for file in RUBRICS.glob("*.yaml")))
def test_the_shipped_rubrics_are_silent(name):
    assert [str(one) for one in findings(name)] == []


def test_the_rubric_of_the_documents_is_sound(tmp_path):
    page = (Path(__file__).parent.parent / "docs/write-a-rubric.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```yaml\n(.*?)^```", page, re.M | re.S)

    assert linted(tmp_path, example) == []


def test_every_code_is_in_the_documents():
    page = (Path(__file__).parent.parent / "docs/write-a-rubric.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `([a-z-]+)` \|", page, re.M))

    assert {code for _, _, code, _ in (*PLANTED, *JUDGES)} <= documented


SAYS = st.sampled_from(["The cat", "The dog", "A red ball", "Every lemon"])
SIDES = st.sampled_from([("left of", "right of"), ("above", "below")])


@given(SAYS, SAYS, SIDES)
def test_place_told_from_either_side_is_one_fact(one, other, sides):
    here, there = sides
    statement = f"{one} is {here} {other.lower()}."

    assert same(statement, f"{other} is {there} {one.lower()}.")
    if one != other:
        assert contradict(statement, f"{other} is {here} {one.lower()}.")
        assert not same(statement, f"{other} is {here} {one.lower()}.")


@given(st.integers(0, 10), st.integers(0, 10))
def test_counts_agree_with_their_checks_only_where_they_are_equal(said, checked):
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    text = f"There are exactly {words[said]} red apples."
    check = {"kind": "count", "of": "red apple", "n": checked}

    assert (disagreement(text, check) is None) == (said == checked)
    assert contradict(text, f"There are exactly {words[checked]} red apples.") == (said != checked)


@pytest.mark.parametrize(
    "text",
    [
        "The flag is black and white.",
        'The sign reads "Is it good and ready?"',
        "Exactly three lemons lie on the table.",
        "The tabby cat is left of the vase.",
        "Every text in quotation marks can be read letter for letter; if there is none, this holds.",
        "Nothing is missing, doubled or fused, and no limb is bent against its joint.",
        "The woman holds the umbrella over the child.",
        "Salt and pepper shakers stand side by side.",
    ],
)
def test_plain_statements_are_left_in_peace(text):
    assert faults_of(text) == []


def test_a_negation_in_the_name_of_a_thing_is_none():
    assert disagreement("There is a no entry sign.", {"kind": "present", "of": "no entry sign"}) is None
    assert disagreement("There is no sign.", {"kind": "present", "of": "sign"}) is not None


def test_criteria_for_prompts_without_facts_are_tried_too(tmp_path):
    general = "  - {name: general, kind: object, when: colour is not defined, text: Everything is there.}\n"
    rubric = SOUND.replace("  - name: dog", general + "  - name: dog").replace(
        "requires: dog", "when: colour is defined", 1
    )
    given = [
        Sample("a dog", {"colour": "red", "count": 1, "hat": "a crown"}),
        Sample("b", {"colour": "red", "count": 2}),
    ]
    (tmp_path / "judge.j2").write_text(JUDGE)
    (tmp_path / "r.yaml").write_text(rubric)

    assert "never" not in {one.code for one in lint(str(tmp_path / "r.yaml"), given)}


def test_facts_are_not_taken_for_the_author_s_words():
    assert faults_of("The plate holds nice and very good ham.", {"dish": "nice and very good ham"}) == []


def test_many_facts_are_sampled_alike_every_time(tmp_path):
    facts = {f"f{n}": list(range(9)) for n in range(6)}
    criteria = [{"name": name, "kind": "k", "text": f"There is {{{{ {name} }}}}."} for name in facts]
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"name": "r", "facts": facts, "criteria": criteria}))
    file = read_rubric(str(tmp_path / "r.yaml")).file

    tried = samples_of(file)

    assert tried == samples_of(file) and len(tried) == MOST
    assert all({sample.facts[name] for sample in tried} == set(range(9)) for name in facts)
