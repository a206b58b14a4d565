"""Reading labels: the closed form of p and mass, and JSON objects that are exactly what was asked for."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lens_rl.judges import labels

LOGPROBS = st.floats(-30.0, 0.0)
NAMES = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=6, unique=True)


def choice(content, options=None, **rest):
    top = [{"token": token, "logprob": logprob} for token, logprob in (options or {}).items()]
    logprobs = {"content": [{**top[0], "top_logprobs": top}]} if top else None
    return {"message": {"content": content}, "logprobs": logprobs, **rest}


@given(LOGPROBS, LOGPROBS)
def test_p_is_a_sigmoid_and_mass_a_sum(l1, l0):
    answer = labels.from_logprobs(l1, l0)
    mass = math.exp(l1) + math.exp(l0)
    assert answer.p == pytest.approx(1 / (1 + math.exp(l0 - l1)))
    assert answer.mass == pytest.approx(min(mass, 1.0))
    assert answer.status == ("ok" if mass >= labels.MIN_LABEL_MASS else "invalid")
    if answer.status == "ok":
        assert answer.value == (l1 > l0)


def test_even_odds_are_a_no_and_nothing_known_is_nothing():
    assert labels.from_logprobs(math.log(0.5), math.log(0.5)).value == 0
    assert labels.from_logprobs(-math.inf, -math.inf).status == "invalid"
    assert labels.from_logprobs(math.log(0.9), -math.inf).p == 1.0


def test_spellings_of_a_label_are_one_label():
    answer = labels.from_choice(choice("1", {"1": math.log(0.4), " 1": math.log(0.2), "0": math.log(0.3)}))
    assert answer.p == pytest.approx(2 / 3) and answer.mass == pytest.approx(0.9)


def test_the_token_that_was_sampled_counts_where_the_list_lacks_it():
    content = [{"token": "0", "logprob": math.log(0.8), "top_logprobs": []}]
    assert labels.from_choice({"message": {"content": "0"}, "logprobs": {"content": content}}).value == 0


@pytest.mark.parametrize("content", ["yes", "10", "1.", "", None, "1 because"])
def test_what_is_no_digit_is_no_answer(content):
    assert labels.from_choice(choice(content)).status == "invalid"


def test_a_digit_without_probabilities_is_an_answer():
    assert labels.from_choice(choice(" 1\n")) == labels.Answer(1)


def test_who_declines_is_heard():
    assert labels.refused({"message": {"content": None, "refusal": "no"}})
    assert labels.refused(choice("1", finish_reason="content_filter"))
    assert not labels.refused(choice("1", finish_reason="length"))


@given(NAMES, st.data())
def test_an_object_with_exactly_the_names_is_read_by_name(names, data):
    values = {name: data.draw(st.integers(0, 1)) for name in names}
    shuffled = dict(data.draw(st.permutations(list(values.items()))))
    assert [answer.value for answer in labels.from_object(json.dumps(shuffled), names)] == [values[n] for n in names]


@given(NAMES, st.data())
def test_anything_else_is_no_answer_to_any(names, data):
    good = dict.fromkeys(names, 1)
    one = data.draw(st.sampled_from(names))
    bad = data.draw(
        st.sampled_from(
            [
                json.dumps({name: 1 for name in names if name != one}),
                json.dumps(good | {one + "!" * 9: 1}),
                *(json.dumps(good | {one: value}) for value in (2, -1, True, 1.0, "1", None, [1], {"a": 1})),
                json.dumps(good)[:-1],
                "Here you are: " + json.dumps(good),
                json.dumps(good) + " 1",
                json.dumps([1] * len(names)),
                json.dumps([[name, 1] for name in names]),
                "{" + ", ".join(f"{json.dumps(name)}: 1" for name in [*names, one]) + "}",
                "",
                "[" * 100_000,
                f"{{{json.dumps(one)}: {'9' * 5000}}}",
            ]
        )
    )
    assert {answer.status for answer in labels.from_object(bad, names)} == {"invalid"}
