"""Judges that see, for real: a small model that the tests train, in process and behind a socket, asked in every way."""

import asyncio

import numpy as np
import pytest

from lens_core.recipes import RecipeProblem
from lens_core.records import Criterion, Prompt
from lens_rl.judges import open_backend
from lens_rl.judges.backend import JudgeProblem, Question
from lens_rl.recipe import Judge
from rubrics.rubric import Rubric
from tests.tiny_vlm import SEEN, colour_criterion, solid
from tests.vlm_server import NAME, serving

PROMPT = Prompt("p", "two squares", criteria=tuple(colour_criterion(colour) for colour in SEEN))
TRUTH = np.eye(len(SEEN), dtype=int)
"""The verdict on picture i and criterion k: 1 where the colours are the same."""


@pytest.fixture(scope="module")
def server(tiny_vlm):
    with serving(tiny_vlm) as served:
        yield served


def questions():
    rubric = Rubric.load("shapes")
    named = [Criterion(colour, colour_criterion(colour).text, "colour") for colour in SEEN]
    return [Question(criterion, *rubric.messages(PROMPT.text, criterion)) for criterion in named]


def judged(judge: Judge):
    """Answers (pictures, criteria) and the usage of all."""

    async def ask():
        backend = open_backend(judge)
        rng = np.random.default_rng(5)
        pictures = [backend.prepare(solid(colour, rng)) for colour in SEEN]
        size, asked = backend.capabilities.questions_per_request, questions()
        parts = [asked[start : start + size] for start in range(0, len(asked), size)]
        try:
            await backend.check(pictures[0], asked[0])
            replies = [[await backend.answer(picture, part) for part in parts] for picture in pictures]
            if (
                backend.model
            ):  # no more is charged than was held back; the tiny server reads the picture once a criterion
                worst = backend.worst_case(pictures[0], parts[0])
                assert replies[0][0].usage.input_tokens <= worst.input_tokens / worst.requests * len(parts[0])
        finally:
            await backend.close()
        return [[answer for reply in row for answer in reply.answers] for row in replies], replies

    return asyncio.run(ask())


def values(answers):
    return np.array([[answer.value for answer in row] for row in answers])


def probabilities(answers):
    return np.array([[answer.p for answer in row] for row in answers])


@pytest.fixture(scope="module")
def in_process(tiny_vlm):
    answers, _ = judged(Judge(backend="transformers", model=str(tiny_vlm)))
    return answers


def test_in_process_it_tells_the_colours_apart(in_process):
    assert (values(in_process) == TRUTH).all()
    assert all(answer.mass > 0.9 for row in in_process for answer in row)


@pytest.mark.parametrize("profile", ["generic", "smolvlm"])
def test_behind_a_socket_it_says_the_same(server, in_process, profile):
    """By the twenty likeliest tokens and by the ids of the two labels: the model's own probabilities."""
    judge = Judge(backend="openai_chat", base_url=server.url, model=NAME, profile=profile, request="per_criterion")
    answers, _ = judged(judge)
    assert (values(answers) == TRUTH).all()
    # JPEG moves a colour by a step or two.
    assert np.abs(probabilities(answers) - probabilities(in_process)).max() < 0.02
    body = server.bodies("/v1/chat/completions")[-1]
    assert ("logprob_token_ids" in body) == (profile == "smolvlm")


def test_many_criteria_a_request_on_chat_completions(server):
    judge = Judge(backend="openai_chat", base_url=server.url, model=NAME, request="per_image")
    before = len(server.bodies("/v1/chat/completions"))
    answers, replies = judged(judge)
    assert (values(answers) == TRUTH).all()
    assert len(server.bodies("/v1/chat/completions")) - before == 1 + len(SEEN)
    assert all(reply.usage.requests == 1 and reply.usage.input_tokens > 100 for (reply,) in replies)


def test_the_decisions_api_says_the_same(server, in_process):
    judge = Judge(backend="openai_decisions", base_url=server.url, model=NAME)
    answers, replies = judged(judge)
    assert (values(answers) == TRUTH).all() and all(len(row) == 1 for row in replies)
    body = server.bodies("/v1/decisions")[-1]
    assert [question["name"] for question in body["questions"]] == list(SEEN)
    assert body["questions"][0]["instructions"] == questions()[0].criterion.text


def test_the_tokens_are_looked_up_once(server):
    before = len(server.bodies("/tokenize"))
    _, replies = judged(Judge(base_url=server.url, model=NAME, profile="smolvlm"))
    assert len(server.bodies("/tokenize")) - before == 2
    assert all(reply.usage.requests == 1 for row in replies for reply in row)


def test_a_model_that_the_endpoint_does_not_have_is_told_before_the_run(server):
    with pytest.raises(JudgeProblem, match=rf"judge\.model: .* does not have 'gpt-x'; it serves {NAME}"):
        judged(Judge(base_url=server.url, model="gpt-x"))


def test_a_model_that_does_not_answer_with_digits_is_told_before_the_run(tmp_path):
    """Untrained, it puts nearly nothing on the two labels."""
    from tests.tiny_vlm import build, save

    folder = save(*build(seed=1), tmp_path)
    with pytest.raises(JudgeProblem, match="of its probability on 1 and 0 together"):
        judged(Judge(backend="transformers", model=str(folder)))
    with serving(folder) as served, pytest.raises(JudgeProblem, match="does not answer as it was asked, 3 times"):
        judged(Judge(base_url=served.url, model=NAME))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"request": "per_image"}, r"judge\.request: transformers reads one label a question"),
        ({"base_url": "http://127.0.0.1:1/v1"}, r"judge\.base_url: transformers runs in this process"),
        ({"reasoning_effort": "low"}, r"judge\.reasoning_effort: transformers runs in this process"),
        ({"model": None}, r"judge\.model is missing"),
    ],
)
def test_what_a_judge_in_process_does_not_have(changes, message):
    with pytest.raises(RecipeProblem, match=message):
        open_backend(Judge(**({"backend": "transformers", "model": "somewhere/vlm"} | changes)))


def test_a_folder_that_is_none_is_told_when_it_is_opened(tmp_path):
    with pytest.raises(JudgeProblem, match=r"judge\.model: .* has no config\.json"):
        open_backend(Judge(backend="transformers", model=str(tmp_path)))


def test_vllm_that_is_not_installed_says_what_to_do_instead():
    with pytest.raises(JudgeProblem, match=r"bash scripts/judge_server\.sh some/model"):
        open_backend(Judge(backend="vllm", model="some/model"))
