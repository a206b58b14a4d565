"""Several questions in one text: nothing is lost, and what is shared is said once."""

import json

from hypothesis import given
from hypothesis import strategies as st

from lens_core.records import Criterion
from lens_rl.judges import wording
from lens_rl.judges.backend import Question
from rubrics.rubric import Rubric

LINES = st.lists(st.sampled_from(["a", "b", "c", ""]), max_size=6).map("\n".join)


@given(st.lists(LINES, min_size=1, max_size=5))
def test_taken_apart_and_put_together(texts):
    shared = wording.shared_lines(texts)
    assert [shared.head + part + shared.tail for part in shared.parts] == texts


@given(LINES, st.lists(st.integers(0, 99), min_size=2, max_size=5, unique=True), LINES)
def test_what_all_begin_with_is_head_and_what_all_end_with_is_tail(head, numbers, tail):
    shared = wording.shared_lines([f"{head}\nquestion {number}?\n{tail}" for number in numbers])
    assert (shared.head, shared.tail) == (f"{head}\n", tail)


def test_of_a_single_text_all_is_head():
    assert wording.shared_lines(["a\nb"]) == wording.Shared("a\nb", ("",), "")


def test_the_prompt_is_said_once_and_each_statement_under_its_name():
    rubric = Rubric.load("lens")
    criteria = [Criterion(f'no. "{n}"', f"Statement {n} holds.", "k") for n in range(3)]
    questions = [Question(c, *rubric.messages("a red\ncircle", c)) for c in criteria]
    text = wording.as_list(questions)
    assert text.count("a red") == 1 and text.endswith(wording.RULE)
    for criterion in criteria:
        assert text.count(criterion.text) == 1 and f"{json.dumps(criterion.name)}: " in text
    assert all(
        criterion.text in wording.as_list([question]) for criterion, question in zip(criteria, questions, strict=True)
    )


def test_the_schema_admits_exactly_the_names_with_a_digit_each():
    schema = wording.schema(["a b", "c"])
    assert schema["required"] == ["a b", "c"] and schema["additionalProperties"] is False
    assert schema["properties"]["c"] == {"type": "integer", "enum": [0, 1]}  # type: ignore[index]
