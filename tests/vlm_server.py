"""A real HTTP server on loopback before the tiny VLM: chat completions, decisions and tokenize, as vLLM has them.

It answers from the model's own probabilities, and keeps what it was asked, so that a test can look.
"""

import asyncio
import base64
import io
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from aiohttp import web
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests.tiny_vlm import SEEN, colour_criterion

NAME = "tiny-vlm"
LONG_REPLY = 100
"""Tokens from which on a request wants a caption."""


class Model:
    """The forward passes: log-probabilities of the next token."""

    def __init__(self, folder: Path):
        self.processor = AutoProcessor.from_pretrained(folder)
        self.model = AutoModelForImageTextToText.from_pretrained(folder).eval()
        self.tokenizer = self.processor.tokenizer

    @torch.inference_mode()
    def next_token(self, talks: Sequence[list[dict[str, Any]]], image: Image.Image) -> tuple[torch.Tensor, int]:
        """Log-probabilities (talks, vocabulary), and the tokens read."""
        texts = [self.processor.apply_chat_template(talk, add_generation_prompt=True) for talk in talks]
        pictures = [[image] for _ in talks]
        inputs = self.processor(text=texts, images=pictures, padding=True, return_tensors="pt")
        logits = self.model(**inputs, logits_to_keep=1).logits[:, -1]
        return logits.log_softmax(-1), int(inputs["attention_mask"].sum())

    def ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]


@dataclass
class Served:
    url: str = ""
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Path and body of each POST."""

    def bodies(self, path: str) -> list[dict[str, Any]]:
        return [body for asked, body in self.requests if asked == path]


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """Serves the model of a folder on a free port until the block ends."""
    served, started, stopping = Served(), threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def main() -> None:
        runner = web.AppRunner(_app(Model(folder), served), access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        served.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        started.set()
        await stopping.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),), daemon=True)
    thread.start()
    assert started.wait(60), "the tiny server did not start"
    try:
        yield served
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join()
        loop.close()


def _app(model: Model, served: Served) -> web.Application:
    async def kept(request: web.Request) -> dict[str, Any]:
        body = await request.json()
        served.requests.append((request.path, body))
        return body

    async def completions(request: web.Request) -> web.Response:
        body = await kept(request)
        if body["model"] != NAME:
            return _problem(404, f"The model `{body['model']}` does not exist.")
        image, talk = _read_chat(body["messages"])
        if body.get("max_tokens", 0) >= LONG_REPLY:
            return await described(image)
        schema = body.get("response_format", {}).get("json_schema")
        if schema is None:
            logprobs, tokens = await asyncio.to_thread(model.next_token, [talk], image)
            return web.json_response(_completion(model, body, logprobs[0], tokens))
        names = schema["schema"]["required"]
        talks = [_about(talk, name) for name in names]
        logprobs, tokens = await asyncio.to_thread(model.next_token, talks, image)
        one, zero = model.ids("1")[0], model.ids("0")[0]
        values = {name: int(row[one] > row[zero]) for name, row in zip(names, logprobs, strict=True)}
        return web.json_response(_reply(json.dumps(values), tokens, len(names)))

    async def described(image: Image.Image) -> web.Response:
        """A caption that says which of its colours the model sees: it is too small to write one by itself."""
        talks = [[_asked(colour_criterion(colour).text)] for colour in SEEN]
        logprobs, tokens = await asyncio.to_thread(model.next_token, talks, image)
        odds = (logprobs[:, model.ids("1")[0]] - logprobs[:, model.ids("0")[0]]).tolist()
        colour = max(zip(odds, SEEN, strict=True))[1]
        text = (
            f"A plain {colour} square fills the picture from edge to edge, of one even {colour} all over, with nothing "
            "in front of it and nothing behind it, under a light that comes from everywhere at once."
        )
        return web.json_response(_reply(text, tokens, len(text.split()), "stop"))

    async def decisions(request: web.Request) -> web.Response:
        body = await kept(request)
        parts = {part["type"]: part for part in body["input"][1]["content"]}
        assert parts["input_text"]["text"]
        image = _decode(parts["input_image"]["image_url"])
        # A model this small reads the statement alone.
        talks = [[_asked(question["instructions"])] for question in body["questions"]]
        logprobs, tokens = await asyncio.to_thread(model.next_token, talks, image)
        l1, l0 = logprobs[:, model.ids("1")[0]], logprobs[:, model.ids("0")[0]]
        answers = [
            {"type": "predicate", "name": question["name"], "probability": round(float(p), 2)}
            for question, p in zip(body["questions"], torch.sigmoid(l1 - l0), strict=True)
        ]
        usage = {
            "input_tokens": tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 0,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": tokens,
        }
        return web.json_response({"answers": answers, "model": body["model"], "usage": usage})

    async def tokenize(request: web.Request) -> web.Response:
        tokens = model.ids((await kept(request))["prompt"])
        return web.json_response({"tokens": tokens, "count": len(tokens), "max_model_len": 4096})

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": NAME, "object": "model"}]})

    app = web.Application(client_max_size=64 * 2**20)
    app.router.add_post("/v1/chat/completions", completions)
    app.router.add_post("/v1/decisions", decisions)
    app.router.add_post("/tokenize", tokenize)
    app.router.add_get("/v1/models", models)
    return app


def _read_chat(messages: list[dict[str, Any]]) -> tuple[Image.Image, list[dict[str, Any]]]:
    """The picture of a conversation, and the conversation as the processor takes it."""
    system, user = messages
    picture, text = user["content"]
    return _decode(picture["image_url"]["url"]), _talk(system["content"], text["text"])


def _talk(system: str, text: str) -> list[dict[str, Any]]:
    return [{"role": "system", "content": system}, _asked(text)]


def _asked(text: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}


def _about(talk: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Of a list of questions the one with that name: a model this small cannot read a list."""
    system, user = talk
    lines = user["content"][1]["text"].split("\n\n")
    head, tail = lines[0], lines[-2]
    (line,) = [line for line in lines if line.startswith(json.dumps(name) + ": ")]
    return _talk(system["content"], f"{head}\n{line.removeprefix(json.dumps(name) + ': ')}\n\n{tail}")


def _completion(model: Model, body: dict[str, Any], logprobs_V: torch.Tensor, tokens: int) -> dict[str, Any]:
    best = int(logprobs_V.argmax())
    reply = _reply(model.tokenizer.decode([best]), tokens, 1)
    if body.get("logprobs"):
        asked = body.get("logprob_token_ids")
        shown = {best, *asked} if asked else {int(i) for i in logprobs_V.topk(body["top_logprobs"]).indices}
        options = [
            {"token": model.tokenizer.decode([i]), "logprob": max(float(logprobs_V[i]), -9999.0), "bytes": None}
            for i in sorted(shown, key=lambda i: -float(logprobs_V[i]))
        ]
        reply["choices"][0]["logprobs"] = {"content": [{**options[0], "top_logprobs": options}]}
    return reply


def _reply(text: str, tokens: int, output: int, end: str = "length") -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": end, "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": tokens, "completion_tokens": output, "total_tokens": tokens + output}
    return {"id": "t", "object": "chat.completion", "created": 0, "model": NAME, "choices": [choice], "usage": usage}


def _decode(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB")


def _problem(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "type": "NotFoundError", "code": status}}, status=status)
