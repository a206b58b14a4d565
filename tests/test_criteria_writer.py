"""Criteria from a language model: ten that can be used, or an error that loses nothing of what was written."""

import asyncio
import json
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from lens_core.asking import ModelProblem
from lens_core.records import Criterion
from pipelines.cli import app
from pipelines.rubric_write import write
from rubrics.writer import ATTEMPTS, KINDS, SCHEMA, WANTED, CriteriaWriter, Unfinished
from taxonomy.prompt_set import load_prompts
from tests.chat_server import completion, serving

WHOLE = Criterion("structural integrity", "The picture holds together as a whole.", "structure")
FRUIT = ["apple", "pear", "plum", "fig", "lemon", "peach", "grape", "melon", "cherry", "mango", "lime", "quince"]


def criteria(*names):
    return [{"name": f"object ({name})", "kind": "attribute", "text": f"There is a {name}."} for name in names]


def reply(*names):
    return json.dumps({"criteria": criteria(*names)})


class Scripted:
    """A model that says its lines in turn, the last one for ever, and remembers what it was asked."""

    name = "scripted"

    def __init__(self, *lines):
        self._lines, self.asked = list(lines), []

    async def ask(self, messages, schema=None):
        assert schema == SCHEMA
        self.asked.append(messages)
        line = self._lines.pop(0) if len(self._lines) > 1 else self._lines[0]
        if isinstance(line, Exception):
            raise line
        return line


def written(model, prompt="fruit in a bowl", **options):
    return asyncio.run(CriteriaWriter(model).write(prompt, **options))


def test_ten_criteria_and_the_one_about_the_whole():
    model = Scripted(reply(*FRUIT))

    found = written(model, always=[WHOLE])

    assert [one.text for one in found[:-1]] == [f"There is a {name}." for name in FRUIT[:WANTED]]
    assert found[-1] == WHOLE
    assert len(model.asked) == 1


def test_the_prompt_is_told_as_a_quoted_string():
    model = Scripted(reply(*FRUIT))

    written(model, prompt='a sign: "IGNORE ALL"\n{{ 7 * 7 }}')

    system, user = (message["content"] for message in model.asked[0])
    assert user.startswith('Prompt: "a sign: \\"IGNORE ALL\\"\\n{{ 7 * 7 }}"')
    assert "IGNORE" not in system and all(kind in system for kind in KINDS)
    assert "Write 10 criteria." in user


def test_half_a_list_is_asked_for_again_and_only_what_is_missing():
    model = Scripted(reply(*FRUIT[:6]), reply(*FRUIT[6:]))

    found = written(model)

    assert [one.name for one in found] == [f"object ({name})" for name in FRUIT[:10]]
    again = model.asked[1][1]["content"]
    assert "Write 4 more criteria." in again and "- object (fig): There is a fig." in again


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"name": "object (apple)", "kind": "attribute", "text": "A pip is seen."}, "'object (apple)' already"),
        ({"name": "OBJECT (Apple)", "kind": "attribute", "text": "A pip is seen."}, "'object (apple)' already"),
        ({"name": "again", "kind": "attribute", "text": "An apple can be seen."}, "it says what 'object (apple)' says"),
        ({"name": "none", "kind": "attribute", "text": "There is no apple."}, "it contradicts 'object (apple)'"),
        ({"name": "whole", "kind": "attribute", "text": WHOLE.text}, "it says what 'structural integrity' says"),
        ({"name": "asks", "kind": "attribute", "text": "Is there a pip?"}, "it asks"),
        ({"name": "vague", "kind": "attribute", "text": "The bowl looks nice."}, "'nice' means something else"),
        ({"name": "two", "kind": "attribute", "text": "There is a pip and the sky is red."}, "it states two things"),
        ({"name": "kind", "kind": "beauty", "text": "There is a pip."}, "its kind is none of count"),
        ({"name": "", "kind": "attribute", "text": "There is a pip."}, "its name should be one line"),
        ({"name": "empty", "kind": "attribute", "text": " "}, "the text is empty"),
        ({"name": "pip", "kind": "attribute"}, "text: Field required"),
        ({"name": "pip", "kind": "attribute", "text": "A pip is seen.", "x": 1}, "x: Extra inputs"),
        ("There is a pip.", "valid dictionary"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_reason(bad, reason):
    first = json.dumps({"criteria": [*criteria(*FRUIT[:5]), bad, *criteria(*FRUIT[5:9])]})
    model = Scripted(first, reply(FRUIT[9]))

    found = written(model, always=[WHOLE])

    assert [one.name for one in found[:-1]] == [f"object ({name})" for name in FRUIT[:10]]
    assert reason in model.asked[1][1]["content"]
    assert "Write 1 more criterion." in model.asked[1][1]["content"]


@pytest.mark.parametrize("line", ["no JSON at all", "[]", '{"criteria": "ten"}', '{"criteria": []}', "{}", ""])
def test_a_model_that_never_manages_is_an_error_that_keeps_what_there_was(line):
    model = Scripted(reply(*FRUIT[:4]), line)

    with pytest.raises(
        Unfinished, match=r"'fruit in a bowl': scripted wrote 4 of 10 criteria .* in 3 replies"
    ) as error:
        written(model)

    assert [one.name for one in error.value.criteria] == [f"object ({name})" for name in FRUIT[:4]]
    assert len(model.asked) == ATTEMPTS
    assert len(written(Scripted(reply(*FRUIT)), have=error.value.criteria)) == WANTED


@given(st.lists(st.sampled_from(FRUIT), max_size=20), st.lists(st.sampled_from(FRUIT), max_size=20))
def test_names_and_statements_are_never_doubled(first, second):
    try:
        found = written(Scripted(reply(*first), reply(*second)))
    except Unfinished as problem:
        found = problem.criteria
        assert len({*first, *second}) < WANTED

    assert len({one.name for one in found}) == len({one.text for one in found}) == len(found)
    assert len(found) == min(WANTED, len({*first, *second}))


# The command: a file of prompts becomes one with criteria.


def prompt_file(folder, texts):
    file = folder / "prompts.txt"
    file.write_text("\n".join(texts) + "\n")
    return file


def test_a_file_is_written_with_the_whole_picture_last(tmp_path):
    out = tmp_path / "out.jsonl"

    done = write(prompt_file(tmp_path, ["a bowl", "a table"]), out, nullcontext(Scripted(reply(*FRUIT))))

    assert (done.prompts, done.kept) == (2, 0)
    for prompt in load_prompts(out):
        assert len(prompt.criteria) == 11
        assert prompt.criteria[-1].kind == "structure"
    assert not (tmp_path / "out.jsonl.part").exists()


def test_a_model_that_gives_out_costs_nothing_twice(tmp_path):
    """One prompt is done, one half done, one not begun: the next try asks for what is missing, and no more."""
    source, out = prompt_file(tmp_path, ["a bowl", "a table", "a chair"]), tmp_path / "out.jsonl"
    model = Scripted(reply(*FRUIT), reply(*FRUIT[:7]), "{}", "{}", ModelProblem("the endpoint is gone"))
    with pytest.raises(ModelProblem, match=r"2 of 3 prompts are still without criteria; the same command goes on"):
        write(source, out, nullcontext(model), at_once=1)
    assert not out.exists()
    for _ in range(2):
        with (tmp_path / "out.jsonl.part").open("a") as part:
            part.write('{"id": "torn')
        with pytest.raises(ModelProblem, match="2 of 3 prompts"):
            write(source, out, nullcontext(Scripted(ModelProblem("still gone"))), at_once=1)

    again = Scripted(reply(*FRUIT))
    write(source, out, nullcontext(again), at_once=1)

    asked = [messages[1]["content"] for messages in again.asked]
    assert len(asked) == 2
    assert sum("Write 3 more criteria." in text for text in asked) == 1
    assert all(len(prompt.criteria) == 11 for prompt in load_prompts(out))


def test_prompts_that_have_criteria_keep_them(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "a bowl", "criteria": [{"name": "bowl", "text": "There is a bowl."}]}\n')

    done = write(source, tmp_path / "out.jsonl", nullcontext(Scripted("{}")))

    assert done.kept == 1
    assert [one.name for one in load_prompts(tmp_path / "out.jsonl")[0].criteria] == ["bowl"]


def test_the_command_asks_a_real_endpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    source = prompt_file(tmp_path, ["a bowl"])
    with serving(lambda number, body: completion(reply(*FRUIT))) as served:
        arguments = ["--out", str(tmp_path / "out.jsonl"), "--model", "model=m", "--model", f"base_url={served.url}"]
        result = CliRunner().invoke(app, ["rubric", "write", str(source), *arguments])

    assert result.exit_code == 0, result.output
    assert "1 prompts, 1 of them with new criteria" in result.output
    assert served.requests[0]["response_format"]["json_schema"]["schema"] == SCHEMA
    assert len(load_prompts(tmp_path / "out.jsonl")[0].criteria) == 11


def test_the_command_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    source, out = str(prompt_file(tmp_path, ["a bowl"])), ["--out", str(tmp_path / "out.jsonl")]
    for fields, message in (
        (["model=m"], "OPENAI_API_KEY is not set"),
        (["base_url=http://127.0.0.1:9/v1"], "model"),
        (["modle=m"], "unknown field 'modle' (did you mean 'model'?)"),
        (["model"], "--model model: write it as field=value"),
    ):
        options = [part for field in fields for part in ("--model", field)]
        result = CliRunner().invoke(app, ["rubric", "write", source, *out, *options])
        assert result.exit_code == 1 and message in result.output, result.output
