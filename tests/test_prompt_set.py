"""Prompt files: what is written comes back, and every bad file is refused with its line and field."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lens_core.recipes import RecipeProblem
from lens_core.records import Criterion, Prompt
from taxonomy.prompt_set import load_prompts, set_hash, write_prompts

words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)
leaves = st.integers() | st.booleans() | words
checks = st.none() | st.dictionaries(words, leaves | st.lists(leaves, max_size=2), max_size=3)
weights = st.just(1.0) | st.floats(0.1, 10)
criteria = st.lists(st.builds(Criterion, words, words, words, checks, weights), max_size=3, unique_by=lambda c: c.name)
facts = st.dictionaries(words, words | st.integers(), max_size=3)
prompts = st.lists(
    st.builds(Prompt, words, words, words, st.lists(words, max_size=2).map(tuple), criteria.map(tuple), facts),
    min_size=1,
    max_size=4,
    unique_by=lambda prompt: prompt.id,
)


@given(prompts)
def test_what_is_written_comes_back(tmp_path_factory, written):
    file = tmp_path_factory.mktemp("prompts") / "set.jsonl"

    manifest = write_prompts(file, written)

    assert load_prompts(file) == written
    assert manifest == set_hash(load_prompts(file)) == write_prompts(file, written)


def test_parents_are_written_and_read(tmp_path):
    family = (
        Criterion("dog", "There is a dog.", "object"),
        Criterion("hat", "It has a hat.", "object", requires="dog"),
    )
    write_prompts(tmp_path / "set.jsonl", [Prompt("a", "a dog", criteria=family)])

    assert load_prompts(tmp_path / "set.jsonl")[0].criteria == family


def test_the_hash_tells_sets_apart():
    one, two = Prompt("a", "a red circle"), Prompt("b", "a red circle")

    assert len({set_hash([one]), set_hash([two]), set_hash([one, two]), set_hash([two, one])}) == 4


def test_a_text_file_has_a_prompt_a_line(tmp_path):
    file = tmp_path / "set.txt"
    file.write_bytes("\ufeffa red circle\r\n\r\n  ein blaues Dreieck auf wei\u00df \n".encode())

    found = load_prompts(file)

    assert [prompt.text for prompt in found] == ["a red circle", "ein blaues Dreieck auf wei\u00df"]
    assert len({prompt.id for prompt in found}) == 2
    assert all(prompt.criteria == () for prompt in found)


def test_prompts_without_an_id_get_one_from_their_text(tmp_path):
    file = tmp_path / "set.jsonl"
    file.write_text('{"text": "a red circle"}\n{"text": "a blue circle"}\n')
    first = load_prompts(file)

    file.write_text('{"text": "a blue circle"}\n{"text": "a red circle"}\n')

    assert load_prompts(file) == first[::-1]


GOOD = {"id": "1", "text": "a red circle", "criteria": [{"name": "red", "text": "It is red."}]}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1, 2]", ":2: a line must be an object"),
        ('"text"', ":2: a line must be an object"),
        ("null", ":2: a line must be an object"),
        ("{text: a}", ":2: .*every line is one JSON object"),
        ("[" * 5000, ":2: .*every line is one JSON object"),
        ("{}", ":2: text: Field required"),
        (json.dumps({**GOOD, "id": "2", "text": 7}), r":2: text: .*\(got 7\)"),
        (json.dumps({**GOOD, "id": "2", "text": "  "}), ":2: text is empty"),
        (json.dumps({**GOOD, "id": "2", "txt": "a"}), ":2: unknown field 'txt' .did you mean 'text'"),
        (json.dumps({**GOOD, "id": "2", "criteria": [{"name": "a"}]}), ":2: criteria.0.text: Field required"),
        (
            json.dumps({**GOOD, "id": "2", "criteria": [{"name": "a", "text": "b", "kinds": "c"}]}),
            ":2: unknown field 'criteria.0.kinds' .did you mean 'kind'",
        ),
        (json.dumps({**GOOD, "id": "2", "criteria": GOOD["criteria"] * 2}), ":2: criteria: two are named 'red'"),
        (json.dumps(GOOD), ":2: id '1' .* stands in line 1 already"),
        ('{"text": "\\ud800"}', ":2: "),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    file = tmp_path / "set.jsonl"
    file.write_text(json.dumps(GOOD) + "\n" + line + "\n")

    with pytest.raises(RecipeProblem, match=r"set\.jsonl" + message):
        load_prompts(file)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("set.jsonl", b"", "is empty"),
        ("set.txt", b"\n  \n", "is empty"),
        ("set.jsonl", bytes(range(256)), "is not UTF-8 text"),
        ("set.txt", b"a\0b", "is a binary file"),
        ("set.csv", b"a red circle", "should end in .jsonl"),
        ("set", b"a red circle", "should end in .jsonl"),
    ],
)
def test_a_bad_file_is_refused(tmp_path, name, content, message):
    file = tmp_path / name
    file.write_bytes(content)

    with pytest.raises(RecipeProblem, match=message):
        load_prompts(file)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    (tmp_path / "folder.jsonl").mkdir()

    for path in (tmp_path / "folder.jsonl", tmp_path / "absent.txt", Path(tmp_path / "file.txt" / "deep.txt")):
        with pytest.raises(RecipeProblem, match="cannot be read: "):
            load_prompts(path)


def test_two_equal_lines_of_text_are_one_too_many(tmp_path):
    file = tmp_path / "set.txt"
    file.write_text("a red circle\na blue circle\na red circle\n")

    with pytest.raises(RecipeProblem, match=r"set\.txt:3: .*stands in line 1 already"):
        load_prompts(file)
