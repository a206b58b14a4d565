"""The Decisions wire against a real server: one request a picture, answers by name, a refusal costs one verdict."""

import asyncio

import numpy as np
import pytest

from lens_core.records import Criterion
from lens_rl.judges.backend import JudgeProblem, Question, Usage
from lens_rl.judges.openai_decisions import OpenAIDecisionsBackend
from lens_rl.recipe import Judge
from rubrics.rubric import Rubric
from tests.chat_server import Reply, serving

IMAGE = np.full((40, 60, 3), 200, np.uint8)
CRITERIA = [Criterion(name, f"There is a {name}.", "k") for name in ("circle", "square", "star")]
USAGE = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 20},
    "output_tokens": 0,
}


def questions():
    rubric = Rubric.load("lens")
    return [Question(criterion, *rubric.messages("a red thing", criterion)) for criterion in CRITERIA]


def decision(*answers):
    return Reply({"answers": list(answers), "model": "m", "usage": USAGE})


def predicate(name, probability):
    return {"type": "predicate", "name": name, "probability": probability}


def ask(served, request=None):
    async def run():
        section = Judge(backend="openai_decisions", model="m", base_url=served.url, request=request)
        judge = OpenAIDecisionsBackend(section)
        try:
            picture = judge.prepare(IMAGE)
            await judge.check(picture, questions()[0]) if request else None
            return await judge.answer(picture, questions()[: judge.capabilities.questions_per_request])
        finally:
            await judge.close()

    return asyncio.run(run())


def test_answers_are_matched_by_name_and_one_refusal_costs_one_verdict():
    reply = decision(predicate("star", 0.51), {"type": "refusal", "name": "circle"}, predicate("square", 0.5))
    with serving(lambda *_: reply) as served:
        got = ask(served)
    assert [(a.value, a.status, a.p) for a in got.answers] == [(None, "refusal", None), (0, "ok", 0.5), (1, "ok", 0.51)]
    assert got.usage == Usage(1, input_tokens=50, cached_tokens=30, cache_write_tokens=20)


def test_what_is_sent():
    with serving(lambda *_: decision(*(predicate(c.name, 1.0) for c in CRITERIA))) as served:
        ask(served)
    (body,) = served.requests
    assert set(body) == {"model", "input", "questions"}
    assert body["questions"][0] == {"type": "predicate", "name": "circle", "instructions": "There is a circle."}
    image, text = body["input"][1]["content"]
    assert image["type"] == "input_image" and image["image_url"].startswith("data:image/jpeg;base64,")
    assert "a red thing" in text["text"] and "There is a" not in text["text"]


@pytest.mark.parametrize(
    "reply",
    [
        decision(predicate("circle", 1.0), predicate("square", 1.0)),
        decision(*(predicate(c.name, 1.0) for c in CRITERIA), predicate("moon", 1.0)),
        decision(predicate("circle", 1.0), predicate("circle", 1.0), predicate("square", 1.0)),
        decision(*(predicate(None, 1.0) for _ in CRITERIA)),
        decision(*(predicate(c.name, 1.5) for c in CRITERIA)),
        decision(*(predicate(c.name, "0.9") for c in CRITERIA)),
        decision(*(predicate(c.name, True) for c in CRITERIA)),
        decision(*({"type": "choice", "name": c.name} for c in CRITERIA)),
        Reply({"answers": None}),
        Reply({"error": {"message": "overloaded"}}),
    ],
)
def test_what_is_not_exactly_one_probability_a_name_is_no_verdict(reply):
    with serving(lambda *_: reply) as served:
        assert {(answer.value, answer.status) for answer in ask(served).answers} == {(None, "invalid")}


def test_an_endpoint_without_decisions_is_told_before_the_run():
    nothing = Reply({"detail": "Not Found"}, status=404)
    message = r"judge\.model or judge\.base_url: .* or this kind of request"
    with serving(lambda *_: nothing) as served, pytest.raises(JudgeProblem, match=message):
        ask(served, request="per_criterion")
