"""A judge's endpoint that fails as endpoints do, at stated rates, and counts what it saw: a process of its own.

    python -m tests.fault_server '{"rate": 0.3, "seed": 1}'

prints its port. It speaks chat completions in both request shapes. What it says of a picture and a question is a hash
of the two. `GET /seen` gives its count; `POST /behave` changes its behaviour while it runs.
"""

import asyncio
import contextlib
import hashlib
import json
import random
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

PROMPT_TOKENS, COMPLETION_TOKENS = 90, 3
"""What each completion says it took."""


@dataclass
class Behaviour:
    """How the server behaves; what is not a fault is answered after `latency` seconds."""

    rate: float = 0.0
    """Share of requests that meet a fault, each kind as often as the others."""
    kinds: tuple[str, ...] = ()
    """Empty: all of them."""
    seed: int = 0
    latency: float = 0.0
    stall: float = 3.0
    """Seconds that a stalled request hangs: longer than the client's deadline."""
    at_most: int | None = None
    """Requests taken at once; more are told 429."""
    prompt_tokens: int = PROMPT_TOKENS


@dataclass
class Seen:
    """What the server counted. `said` and `tokens` are of replies that carried a usage."""

    requests: int = 0
    said: int = 0
    tokens: int = 0
    most_at_once: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    """By kind."""
    asked: list[str] = field(default_factory=list)
    """Key of each question that came, however it ended."""


def truth(key: str) -> int:
    """The right answer to a question about a picture."""
    return hashlib.sha256(key.encode()).digest()[0] % 2


CAPTION = "caption"
"""Name of the question of a request that wants a caption."""
LONG_REPLY = 100
"""Tokens from which on a text without a schema is a caption."""


def questions_of(body: dict[str, Any]) -> dict[str, str]:
    """Name to key: in `per_image` the names of the schema, else the one question under the name "" ."""
    picture, text = body["messages"][1]["content"]
    sha = hashlib.sha256(picture["image_url"]["url"].encode()).hexdigest()[:16]
    if "response_format" not in body:
        if body.get("max_tokens", 0) >= LONG_REPLY:
            return {CAPTION: sha}
        return {"": f"{sha} {text['text']}"}
    names = body["response_format"]["json_schema"]["schema"]["properties"]
    return {name: f"{sha} {name}" for name in names}


class FaultServer:
    def __init__(self, behaviour: Behaviour):
        self.seen = Seen()
        self.at_once = 0
        self.behave(behaviour)

    def behave(self, behaviour: Behaviour) -> None:
        self.behaviour, self.random = behaviour, random.Random(behaviour.seed)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        questions = questions_of(body)
        self.seen.requests += 1
        self.seen.asked += questions.values()
        if self.behaviour.at_most is not None and self.at_once >= self.behaviour.at_most:
            return await self.fault("429", request, questions)
        self.at_once += 1
        try:
            self.seen.most_at_once = max(self.seen.most_at_once, self.at_once)
            await asyncio.sleep(self.behaviour.latency)
            if self.random.random() < self.behaviour.rate:
                kind = self.random.choice(self.behaviour.kinds or tuple(FAULTS))
                return await self.fault(kind, request, questions)
            return self.say(right(questions))
        finally:
            self.at_once -= 1

    async def fault(self, kind: str, request: web.Request, questions: dict[str, str]) -> web.StreamResponse:
        self.seen.faults[kind] = self.seen.faults.get(kind, 0) + 1
        if kind == "stall":
            await asyncio.sleep(self.behaviour.stall)
        return FAULTS[kind](self, request, questions)

    def say(self, content: str | None, **message: Any) -> web.Response:
        """A completion with its usage, whether it can be used or not."""
        self.seen.said += 1
        self.seen.tokens += self.behaviour.prompt_tokens + COMPLETION_TOKENS
        return web.json_response(completion(content, self.behaviour.prompt_tokens, **message))


def caption_of(key: str) -> str:
    """What a picture with that key shows: a sentence or two with nine words of its own."""
    words = [f"{hashlib.sha256(f'{key} {place}'.encode()).hexdigest()[:6]}ish" for place in range(9)]
    return (
        f"A {words[0]} thing stands on a {words[1]} floor with a {words[2]} wall behind it, near a {words[3]} chair and"
        f" a {words[4]} lamp. The light is {words[5]} from the left, and there is a {words[6]} shadow between the "
        f"{words[7]} door and its {words[8]} frame."
    )


def right(questions: dict[str, str]) -> str:
    if CAPTION in questions:
        return caption_of(questions[CAPTION])
    if "" in questions:
        return str(truth(questions[""]))
    return json.dumps({name: truth(key) for name, key in questions.items()})


def completion(content: str | None, prompt_tokens: int = PROMPT_TOKENS, **message: Any) -> dict[str, Any]:
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": content, "refusal": None, **message},
                "logprobs": None,
            }
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": COMPLETION_TOKENS,
            "total_tokens": prompt_tokens + COMPLETION_TOKENS,
        },
    }


def _drop(server: FaultServer, request: web.Request, questions: dict[str, str]) -> web.StreamResponse:
    if request.transport is not None:  # else the client has left already
        request.transport.abort()
    return web.Response()


def _cut(server: FaultServer, request: web.Request, questions: dict[str, str]) -> web.StreamResponse:
    whole = json.dumps(completion(right(questions)))
    return web.Response(text=whole[: len(whole) // 2], content_type="application/json")


def _wrong_names(server: FaultServer, request: web.Request, questions: dict[str, str]) -> web.StreamResponse:
    return server.say(json.dumps({f"{name}?": 0 for name in questions}))


def _refused(status: int, **headers: str) -> Callable[..., web.StreamResponse]:
    def reply(server: FaultServer, request: web.Request, questions: dict[str, str]) -> web.StreamResponse:
        return web.json_response({"error": {"message": "not now", "code": None}}, status=status, headers=headers)

    return reply


FAULTS: dict[str, Callable[[FaultServer, web.Request, dict[str, str]], web.StreamResponse]] = {
    "429 soon": _refused(429, **{"retry-after-ms": "5"}),
    "429": _refused(429),
    "500": _refused(500, **{"retry-after-ms": "5"}),
    "503": _refused(503, **{"retry-after-ms": "5"}),
    "drop": _drop,
    "stall": _drop,
    "cut": _cut,
    "prose": lambda server, request, questions: server.say(f"Surely the answer is {right(questions)}, as one can see."),
    "wrong names": _wrong_names,
    "refusal": lambda server, request, questions: server.say(None, refusal="I cannot help with that."),
    "empty": lambda server, request, questions: web.Response(body=b"", content_type="application/json"),
    "error object": lambda server, request, questions: web.json_response({"error": {"message": "overloaded"}}),
}
"""What may go wrong. A 429 without Retry-After makes the client wait for half a second and more."""


async def serve(behaviour: Behaviour) -> None:
    server = FaultServer(behaviour)

    async def seen(_: web.Request) -> web.Response:
        return web.json_response(asdict(server.seen))

    async def behave(request: web.Request) -> web.Response:
        server.behave(Behaviour(**await request.json()))
        return web.Response()

    app = web.Application(client_max_size=64 * 2**20)
    app.add_routes([web.post("/v1/chat/completions", server.chat), web.get("/seen", seen), web.post("/behave", behave)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


@dataclass(frozen=True)
class Running:
    """A fault server in another process, as a test sees it."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def seen(self) -> Seen:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/seen", timeout=30) as reply:
            found = json.load(reply)
        return Seen(**found)

    def behave(self, **behaviour: Any) -> None:
        data = json.dumps(behaviour).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/behave", data, {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=30).close()


@contextlib.contextmanager
def running(**behaviour: Any) -> Iterator[Running]:
    """Runs until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fault_server", json.dumps(behaviour)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    try:
        assert process.stdout is not None
        yield Running(int(process.stdout.readline()))
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    asyncio.run(serve(Behaviour(**json.loads(sys.argv[1]))))
