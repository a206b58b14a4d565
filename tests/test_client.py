"""The language-model client against a real server: what it counts, what it tries again, and where its key goes."""

import asyncio
import json
import logging
import random
import socket
import threading
import time

import pytest

from lens_core.asking import AskModel, ModelProblem
from lens_rl.judges import client
from lens_rl.judges.backend import JudgeProblem, Usage
from lens_rl.judges.client import ChatModel, ModelClient
from lens_rl.recipe import Endpoint
from tests.chat_server import Reply, completion, serving

SOON = {"retry-after-ms": "1"}
KEY = "sk-very-secret"
TALK = [{"role": "user", "content": "Hello."}]


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)


def endpoint(url, **changes):
    return Endpoint(**({"base_url": url, "model": "m", "api_key_env": "JUDGE_KEY", "timeout_seconds": 5.0} | changes))


def exchanges(served, number=1, **changes):
    async def run():
        one = ModelClient(endpoint(served.url, **changes), where="judge", problem=JudgeProblem)
        try:
            body = {"model": "m", "messages": TALK}
            return await asyncio.gather(*(one.post("/chat/completions", body) for _ in range(number)))
        finally:
            await one.close()

    return asyncio.run(run())


def test_every_try_is_counted_as_the_server_counts_it():
    """Under a mix of faults that the transport tries again, some of them for good."""
    chance, lock = random.Random(3), threading.Lock()
    faults = [
        Reply({"error": {}}, status=429, headers=SOON),
        Reply({"error": {}}, status=500, headers=SOON),
        Reply({"error": {}}, status=503, headers=SOON),
        Reply({"error": {}}, status=400),
    ]

    def sometimes(*_):
        with lock:
            return chance.choice(faults) if chance.random() < 0.4 else completion("1")

    with serving(sometimes) as served:
        done = exchanges(served, number=150)
    assert sum(exchange.usage.requests for exchange in done) == len(served.requests) > 200
    assert sum(exchange.usage.unreported for exchange in done) == 0
    assert all((exchange.body is None) == (exchange.error is not None) for exchange in done)


def test_a_cut_connection_is_tried_again_and_may_have_been_charged():
    with serving(lambda number, _: Reply(drop=True) if number < 2 else completion("1")) as served:
        (exchange,) = exchanges(served)
    assert exchange.body is not None and exchange.usage == Usage(requests=3, unreported=2)


def test_nobody_at_home_was_never_asked(monkeypatch):
    monkeypatch.setattr(client, "TRANSPORT_RETRIES", 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"

    async def run():
        one = ModelClient(endpoint(url), where="judge", problem=JudgeProblem)
        try:
            return await one.post("/chat/completions", {})
        finally:
            await one.close()

    exchange = asyncio.run(run())
    assert exchange.error is not None and exchange.usage == Usage()


def test_a_reply_that_trickles_meets_the_deadline(monkeypatch):
    """Each byte comes in time, the whole does not."""
    monkeypatch.setattr(client, "TRANSPORT_RETRIES", 0)
    listener = socket.create_server(("127.0.0.1", 0))

    def trickle():
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
        try:
            for _ in range(100):
                connection.sendall(b" ")
                time.sleep(0.05)
        except OSError:
            pass
        connection.close()

    thread = threading.Thread(target=trickle, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"

    async def run():
        one = ModelClient(endpoint(url, timeout_seconds=0.4), where="judge", problem=JudgeProblem)
        try:
            started = time.perf_counter()
            return await one.post("/chat/completions", {}), time.perf_counter() - started
        finally:
            await one.close()

    exchange, seconds = asyncio.run(run())
    thread.join(10)
    listener.close()
    assert type(exchange.error).__name__ == "APITimeoutError" and seconds < 4
    assert exchange.usage == Usage(requests=1, unreported=1)


@pytest.mark.parametrize("body", [b"", b'{"choices": [', b"<html>", b"[1]"])
def test_a_body_that_cannot_be_read_is_none_and_may_have_been_charged(body):
    listener = socket.create_server(("127.0.0.1", 0))

    def answer():
        connection, _ = listener.accept()
        connection.recv(65536)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        connection.close()

    threading.Thread(target=answer, daemon=True).start()

    async def run():
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        one = ModelClient(endpoint(url), where="judge", problem=JudgeProblem)
        try:
            return await one.post("/chat/completions", {})
        finally:
            await one.close()

    exchange = asyncio.run(run())
    listener.close()
    assert exchange.body is None and exchange.error is None and exchange.usage == Usage(requests=1, unreported=1)


def test_no_quota_is_not_waited_for():
    with serving(lambda *_: Reply({"error": {"code": "insufficient_quota"}}, status=429, headers=SOON)) as served:
        (exchange,) = exchanges(served)
    assert exchange.error is not None and len(served.requests) == 1


def test_a_client_belongs_to_one_event_loop():
    with serving(lambda *_: completion("hi")) as served:
        model = ChatModel(endpoint(served.url))
        asyncio.run(model.ask(TALK))
        with pytest.raises(RuntimeError, match="belongs to the event loop"):
            asyncio.run(model.ask(TALK))
        asyncio.run(model.close())


@pytest.mark.parametrize(
    "reply",
    [
        Reply({"error": {"message": f"Incorrect API key provided: {KEY}."}}, status=401),
        Reply({"error": {"message": f"no access for {KEY}"}}, status=403),
        Reply({"error": {"message": f"no model for {KEY}"}}, status=404),
        Reply({"error": {"message": f"bad request {KEY}"}}, status=400),
        Reply(f"proxy says {KEY}", status=400),
    ],
)
def test_the_key_is_in_no_message_no_log_and_no_traceback(reply, caplog):
    import traceback

    caplog.set_level(logging.DEBUG)
    with serving(lambda *_: reply) as served, pytest.raises(ModelProblem) as problem:
        ask(served)
    assert served.authorizations == [f"Bearer {KEY}"]
    shown = "".join(traceback.format_exception(problem.value))
    assert KEY not in shown and KEY not in caplog.text and KEY not in repr(problem.value)


def ask(served, schema=None, **changes):
    async def run():
        async with ChatModel(endpoint(served.url, **changes)) as model:
            asked: AskModel = model
            return await asked.ask(TALK, schema), model

    return asyncio.run(run())


def test_a_chat_model_answers_and_counts():
    with serving(lambda *_: completion("Good day.")) as served:
        text, model = ask(served)
    assert text == "Good day." and model.name == "m"
    assert model.usage == Usage(requests=1, input_tokens=90, output_tokens=1)
    assert served.requests[0] == {"model": "m", "messages": TALK}


A = {"type": "object", "properties": {"a": {"type": "string"}}}


@pytest.mark.parametrize(
    "schema, strict",
    [
        (A | {"required": ["a"], "additionalProperties": False}, True),
        (A | {"additionalProperties": False}, False),
        ({"type": "array", "items": A | {"required": ["a"]}}, False),
    ],
)
def test_a_schema_is_strict_where_it_can_be(schema, strict):
    with serving(lambda *_: completion('{"a": "b"}')) as served:
        assert json.loads(ask(served, schema)[0]) == {"a": "b"}
    sent = served.requests[0]["response_format"]["json_schema"]
    assert sent["schema"] == schema and sent["strict"] is strict


@pytest.mark.parametrize(
    "reply, message",
    [
        (completion(None, refusal="I would rather not."), "m refused: I would rather not"),
        (completion(""), "m sent an empty reply"),
        (Reply({"error": {"message": "overloaded"}}), "m sent no chat completion"),
        (Reply({"error": {"message": "down"}}, status=503, headers={"x-should-retry": "false"}), "HTTP 503: down"),
    ],
)
def test_a_reply_that_is_none_is_a_problem(reply, message):
    with serving(lambda *_: reply) as served, pytest.raises(ModelProblem, match=message):
        ask(served)


def test_a_reply_without_an_end_is_a_problem():
    cut = completion("Once upon")
    cut.body["choices"][0]["finish_reason"] = "length"
    with serving(lambda *_: cut) as served, pytest.raises(ModelProblem, match="ran out of room"):
        ask(served)


def test_a_missing_key_is_named_with_the_remedy(monkeypatch):
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(
        ModelProblem, match=r"writer\.api_key_env: the environment variable JUDGE_KEY is not set; export"
    ):
        ChatModel(Endpoint(model="m", api_key_env="JUDGE_KEY"), where="writer")


def test_a_key_of_openai_is_shown_to_nobody_else(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(lambda *_: completion("hi")) as served:
        ask(served, api_key_env=None)
    assert KEY not in served.authorizations[0]
    refused = Reply({"error": {"message": "who are you?"}}, status=401)
    with serving(lambda *_: refused) as served, pytest.raises(ModelProblem, match=r"without a key: name its variable"):
        ask(served, api_key_env=None)


def test_openai_is_where_the_recipe_says_and_not_where_the_environment_does(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://elsewhere.example/v1")
    assert ModelClient(endpoint(None), where="judge", problem=JudgeProblem).url == client.OPENAI


def test_tokens_are_told_apart_by_what_they_cost():
    usage = {"prompt_tokens": 100, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 60}}
    assert client.chat_tokens({"usage": usage}) == Usage(0, 40, 60, 0, 7)
    for missing in ({}, {"usage": None}, {"usage": "many"}, {"usage": {"prompt_tokens": None}}):
        assert client.chat_tokens(missing) == Usage(unreported=1)
