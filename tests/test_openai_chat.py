"""The judge behind an OpenAI-compatible endpoint, against a real server: its answers, its faults, its keys."""

import asyncio
import base64
import io
import time

import numpy as np
import pytest
from PIL import Image

from lens_core.recipes import RecipeProblem
from lens_core.records import Criterion, Prompt
from lens_rl.judges.backend import JudgeProblem, Question
from lens_rl.judges.judge import ATTEMPTS, RubricJudge
from lens_rl.judges.openai_chat import OpenAIChatBackend
from lens_rl.judges.store import VerdictStore
from lens_rl.recipe import Judge
from rubrics.rubric import Rubric
from tests.chat_server import Reply, completion, serving

SOON = {"retry-after-ms": "1"}
KEY = "sk-very-secret"
IMAGE = np.full((40, 60, 3), 200, np.uint8)


def question(text="There is a circle."):
    return Question(Criterion("shape", text, "shape"), "You judge pictures.", text)


def backend(served, monkeypatch, **changes):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    settings = {"model": "m", "base_url": served.url, "api_key_env": "JUDGE_KEY", "timeout_seconds": 5.0} | changes
    return OpenAIChatBackend(Judge(**settings))


def ask(served, monkeypatch, questions=1, **changes):
    async def run():
        judge = backend(served, monkeypatch, **changes)
        try:
            picture = judge.prepare(IMAGE)
            replies = await asyncio.gather(*(judge.answer(picture, [question()]) for _ in range(questions)))
            return [reply.answers[0] for reply in replies]
        finally:
            await judge.close()

    return asyncio.run(run())


def test_a_bare_digit_is_a_verdict_with_its_probability(monkeypatch):
    with serving(lambda *_: completion("1", {"1": 0.6, "0": 0.2, "yes": 0.1})) as served:
        (answer,) = ask(served, monkeypatch)
    assert (answer.value, answer.status) == (1, "ok")
    assert answer.p == pytest.approx(0.75) and answer.mass == pytest.approx(0.8)
    assert served.authorizations == [f"Bearer {KEY}"]


def test_the_picture_and_the_question_arrive_as_they_are(monkeypatch):
    with serving(lambda *_: completion("0")) as served:
        ask(served, monkeypatch, longest_side=30)
    system, user = served.requests[0]["messages"]
    picture, text = user["content"]
    assert system["content"] == "You judge pictures." and text["text"] == "There is a circle."
    kind, encoded = picture["image_url"]["url"].split(",")
    assert kind == "data:image/jpeg;base64"
    seen = Image.open(io.BytesIO(base64.b64decode(encoded)))
    assert seen.size == (30, 20)
    assert abs(int(np.asarray(seen).mean()) - 200) <= 1


@pytest.mark.parametrize(
    "reply, status",
    [
        (completion("1."), "invalid"),
        (completion("Yes, 1"), "invalid"),
        (completion(""), "invalid"),
        (completion(None), "invalid"),
        (completion("1", {"1": 0.2, "0": 0.1, "I": 0.7}), "invalid"),
        (completion(None, refusal="I cannot look at this."), "refusal"),
        (Reply({"error": {"message": "overloaded"}}), "invalid"),
        (Reply({"choices": []}), "invalid"),
        (Reply({"error": {"message": "bad request"}}, status=400), "error"),
        (Reply({"error": {"message": "down"}}, status=503, headers=SOON), "error"),
        (Reply(drop=True), "error"),
    ],
)
def test_what_is_no_verdict_is_an_error_and_never_a_zero(monkeypatch, reply, status):
    monkeypatch.setattr("lens_rl.judges.client.TRANSPORT_RETRIES", 1)
    with serving(lambda *_: reply) as served:
        (answer,) = ask(served, monkeypatch)
    assert (answer.value, answer.status) == (None, status)


def test_a_busy_endpoint_is_waited_for(monkeypatch):
    def busy_at_first(number, _):
        return completion("1") if number >= 3 else Reply({"error": {}}, status=429, headers=SOON)

    with serving(busy_at_first) as served:
        (answer,) = ask(served, monkeypatch)
    assert answer.value == 1 and len(served.requests) == 4


def test_a_stall_is_a_timeout(monkeypatch):
    monkeypatch.setattr("lens_rl.judges.client.TRANSPORT_RETRIES", 0)

    def slow(*_):
        time.sleep(0.6)
        return completion("1")

    with serving(slow) as served:
        (answer,) = ask(served, monkeypatch, timeout_seconds=0.2)
    assert (answer.value, answer.status) == (None, "timeout")


@pytest.mark.parametrize(
    "reply, field",
    [
        (Reply({"error": {"message": f"bad key {KEY}"}}, status=401), "judge.api_key_env"),
        (Reply({"error": {"message": "no such model"}}, status=404), "judge.model"),
        (Reply({"error": {"code": "insufficient_quota"}}, status=429, headers=SOON), "quota"),
    ],
)
def test_what_no_later_question_survives_stops_the_run_and_names_the_field(monkeypatch, reply, field):
    with serving(lambda *_: reply) as served, pytest.raises(JudgeProblem, match=field) as problem:
        ask(served, monkeypatch)
    assert KEY not in str(problem.value)


def test_a_missing_key_or_model_is_named_before_any_request(monkeypatch):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(JudgeProblem, match="environment variable JUDGE_KEY is not set"):
        OpenAIChatBackend(Judge(model="m", api_key_env="JUDGE_KEY"))
    with pytest.raises(RecipeProblem, match=r"judge\.model is missing"):
        OpenAIChatBackend(Judge(base_url="http://127.0.0.1:1/v1", api_key_env="JUDGE_KEY"))


def test_nothing_stored_is_asked_again(monkeypatch, tmp_path):
    """Through the rubric judge and its store: errors are asked again, verdicts are not, also by a new process."""
    criteria = tuple(Criterion(f"c{n}", f"Statement {n} holds.", "k") for n in range(4))
    prompt = Prompt("p", "a circle", criteria=criteria)

    def judged(reply):
        with serving(reply) as served:
            judge = RubricJudge(
                backend(served, monkeypatch), Rubric.load("lens"), VerdictStore(tmp_path / "v.sqlite"), concurrency=2
            )
            try:
                return judge.submit(prompt, IMAGE).result(timeout=30), len(served.requests)
            finally:
                judge.close()

    def half(_, body):
        text = body["messages"][1]["content"][1]["text"]
        return completion("1") if "Statement 0" in text or "Statement 2" in text else completion("?")

    first, asked = judged(half)
    assert [verdict.value for verdict in first] == [1, None, 1, None] and asked == 2 + 2 * ATTEMPTS
    second, asked = judged(lambda *_: completion("0"))
    assert [verdict.value for verdict in second] == [1, 0, 1, 0] and asked == 2
    assert [verdict.cached for verdict in second] == [True, False, True, False]
    assert KEY.encode() not in (tmp_path / "v.sqlite").read_bytes()


def test_no_more_requests_at_once_than_the_recipe_allows(monkeypatch, tmp_path):
    def slow(*_):
        time.sleep(0.05)
        return completion("1")

    prompt = Prompt("p", "a circle", criteria=tuple(Criterion(f"c{n}", f"Statement {n}.", "k") for n in range(12)))
    with serving(slow) as served:
        judge = RubricJudge(
            backend(served, monkeypatch), Rubric.load("lens"), VerdictStore(tmp_path / "v.sqlite"), concurrency=3
        )
        try:
            assert len(judge.submit(prompt, IMAGE).result(timeout=30)) == 12 and served.most_at_once == 3
        finally:
            judge.close()


MANY = [
    Question(Criterion(name, f"There is a {name}.", "k"), "You judge.", f"Prompt.\nA {name}?") for name in ("a b", "c")
]


def ask_many(served, monkeypatch, **changes):
    async def run():
        judge = backend(served, monkeypatch, request="per_image", **changes)
        try:
            return await judge.answer(judge.prepare(IMAGE), MANY)
        finally:
            await judge.close()

    return asyncio.run(run())


def test_all_criteria_of_a_picture_in_one_request(monkeypatch):
    with serving(lambda *_: completion('{"c": 0, "a b": 1}')) as served:
        reply = ask_many(served, monkeypatch)
    assert [answer.value for answer in reply.answers] == [1, 0]
    (body,) = served.requests
    schema = body["response_format"]["json_schema"]
    assert schema["strict"] is True and schema["schema"]["required"] == ["a b", "c"]
    assert "logprobs" not in body and reply.usage.requests == 1 and reply.usage.tokens == 91
    system, user = body["messages"]
    assert system == {"role": "system", "content": "You judge."}
    assert [part["type"] for part in user["content"]] == ["image_url", "text"]


@pytest.mark.parametrize(
    "reply, status",
    [
        (completion('{"a b": 1}'), "invalid"),
        (completion('{"a b": 1, "c": 0, "d": 1}'), "invalid"),
        (completion('{"a b": 1, "c": true}'), "invalid"),
        (completion('{"a b": 1, "c": 0'), "invalid"),
        (completion('Sure: {"a b": 1, "c": 0}'), "invalid"),
        (completion(None), "invalid"),
        (completion(None, refusal="No."), "refusal"),
        (Reply({"error": {"message": "overloaded"}}), "invalid"),
        (Reply({"error": {"message": "bad request"}}, status=400), "error"),
    ],
)
def test_a_request_that_cannot_be_used_costs_all_its_verdicts_and_no_zero(monkeypatch, reply, status):
    with serving(lambda *_: reply) as served:
        answers = ask_many(served, monkeypatch).answers
    assert [(answer.value, answer.status) for answer in answers] == [(None, status)] * 2


def test_the_first_thing_sent_is_what_never_changes(monkeypatch):
    """Two criteria of a picture: the bodies are equal up to the criterion, so that a server reuses the prefix."""
    criteria = [Criterion(f"c{n}", f"Statement {n}.", "k") for n in range(2)]
    rubric = Rubric.load("lens")
    with serving(lambda *_: completion("1")) as served:
        judge = backend(served, monkeypatch)
        picture = judge.prepare(IMAGE)
        bodies = [judge.request(picture, [Question(c, *rubric.messages("a circle", c))]) for c in criteria]
    first, second = (body["messages"] for body in bodies)
    assert first[0] == second[0] and first[1]["content"][0] == second[1]["content"][0]
    texts = [messages[1]["content"][1]["text"] for messages in (first, second)]
    assert texts[0].index("a circle") < texts[0].index("Statement 0") and texts[0] != texts[1]


@pytest.mark.parametrize("request_shape", ["per_criterion", "per_image"])
def test_the_worst_case_is_one(monkeypatch, request_shape):
    """More tokens than any tokenizer can make of what is sent, for every try that the client may make."""
    tries = 6
    with serving(lambda *_: completion("1")) as served:
        judge = backend(served, monkeypatch, request=request_shape)
        worst = judge.worst_case(judge.prepare(IMAGE), MANY[:1])
        body = judge.request(judge.prepare(IMAGE), MANY[:1])
    texts = [body["messages"][0]["content"], body["messages"][1]["content"][1]["text"]]
    assert worst.requests == tries
    assert worst.input_tokens >= tries * (sum(len(text.encode()) for text in texts) + 4096)
    assert worst.output_tokens == tries * body["max_tokens"]


def check(served, monkeypatch, **changes):
    async def run():
        judge = backend(served, monkeypatch, **changes)
        try:
            return await judge.check(judge.prepare(IMAGE), question())
        finally:
            await judge.close()

    return asyncio.run(run())


@pytest.mark.parametrize(
    "reply, changes, message",
    [
        (Reply({"error": {"message": f"bad key {KEY}"}}, status=401), {}, r"judge\.api_key_env: .*rejected the key"),
        (Reply({"error": {"message": "Image too large"}}, status=400), {}, r"Image too large.*judge\.longest_side"),
        (Reply("too large", status=413), {}, r"judge\.longest_side"),
        (completion("Gladly!"), {}, r"judge\.model: m .* does not answer as it was asked.*Gladly!"),
        (completion("1"), {"probabilities": True}, r"judge\.probabilities: .* sends none for m"),
        (Reply({"error": {"message": "down"}}, status=503, headers=SOON), {}, r"judge\.base_url: .*503: down"),
        (Reply({"tokens": [1, 2]}), {"profile": "qwen-vl"}, r"judge\.model: '1' is 2 tokens to m"),
        (Reply({"detail": "?"}), {"profile": "qwen-vl"}, r"judge\.profile: .*/tokenize.*judge\.profile=generic"),
    ],
)
def test_what_keeps_a_judge_from_working_is_told_before_the_run(monkeypatch, reply, changes, message):
    with serving(lambda *_: reply) as served, pytest.raises(JudgeProblem, match=message) as problem:
        check(served, monkeypatch, **changes)
    assert KEY not in str(problem.value)


def test_one_bad_reply_does_not_condemn_a_judge(monkeypatch):
    with serving(lambda number, _: completion("?" if number < 2 else "1", {"1": 1.0})) as served:
        usage = check(served, monkeypatch)
    assert usage.requests == len(served.requests) == 3 and usage.tokens == 3 * 91


def test_an_endpoint_that_is_not_there_is_told_before_the_run(monkeypatch):
    monkeypatch.setattr("lens_rl.judges.client.TRANSPORT_RETRIES", 0)
    with serving(lambda *_: completion("1")) as served:
        pass
    with pytest.raises(JudgeProblem, match=r"judge\.base_url: http://127.* does not answer: Connection error"):
        check(served, monkeypatch)
