"""One request for a caption: a picture to any OpenAI-compatible endpoint, and what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import openai
from pydantic import Field

from lens_rl.judges.backend import JudgeProblem, Status, Usage
from lens_rl.judges.client import TRANSPORT_RETRIES, ModelClient, chat_tokens
from lens_rl.judges.picture import Picture, encode
from lens_rl.judges.profiles import effort_of, load_profile, model_name, profile_name
from lens_rl.recipe import Count, Endpoint, Positive, Price, Share
from rubrics.captions import Caption, CaptionTemplate, Kind, fault_of

WHERE = "--model"
ROOM: dict[Kind, int] = {"dense": 1200, "brief": 160}
"""Tokens of the longest caption; quotations in other scripts take several a letter."""


class Captioner(Endpoint):
    """The fields of `--model`."""

    concurrency: Count = 64
    longest_side: Annotated[int, Field(ge=16)] | None = None
    """Pixels; larger pictures are made smaller before they are sent. None: the profile's choice."""
    max_error_share: Share = 0.1
    """The command stops when more than this share of what was asked for could not be had."""
    budget_usd: Positive | None = None
    """The most that the captions of a folder may cost, restarts included; None: no limit."""
    price: Price | None = None
    """What the model costs, where `lens_rl/judges/prices.yaml` does not know it."""


@dataclass(frozen=True, slots=True)
class Said:
    """A caption, or why there is none: `text` is empty exactly when `status` is not "ok"."""

    text: str
    status: Status
    reason: str
    usage: Usage


class CaptionModel:
    """Raises RecipeProblem for what the profile does not allow, JudgeProblem for a missing key."""

    def __init__(self, section: Captioner, template: CaptionTemplate):
        self._profile, self._template = load_profile(profile_name(section)), template
        self.name, self._effort = model_name(section, WHERE), effort_of(section, WHERE)
        self._longest_side = section.longest_side or self._profile.image.longest_side
        self._client = ModelClient(section, where=WHERE, problem=JudgeProblem)
        image = self._profile.image
        effort = f":effort-{self._effort}" if self._effort else ""
        pictures = f"{image.format}{image.quality}x{self._longest_side}"
        self.identity = f"caption:{self.name}:{pictures}{effort}+{template.hash[:12]}"
        """Everything that a caption depends on, apart from the picture and the kind."""

    def prepare(self, image: np.ndarray) -> Picture:
        """uint8 RGB (H, W, 3), as it is sent."""
        return encode(image, self._profile.image, self._longest_side)

    async def ask(self, picture: Picture, kind: Kind, refused: str = "") -> Said:
        """One request, with the transport's own retries. Raises JudgeProblem for what no later request survives."""
        exchange = await self._client.post("/chat/completions", self.request(picture, kind, refused))
        if exchange.error is not None:
            if problem := self._client.fatal(exchange.error, self.name):
                raise JudgeProblem(problem)
            status = "timeout" if isinstance(exchange.error, openai.APITimeoutError) else "error"
            return Said("", status, self._client.said(exchange.error), exchange.usage)
        if exchange.body is None:
            return Said("", "invalid", "a reply that is no JSON", exchange.usage)
        return _read(exchange.body, kind, exchange.usage + chat_tokens(exchange.body))

    def request(self, picture: Picture, kind: Kind, refused: str) -> dict[str, Any]:
        """The body. The picture stands before the words that vary, so that servers which keep prefixes read it once."""
        system, user = self._template.messages(kind, refused)
        detail = self._profile.image.detail
        image = {"url": picture.url} | ({"detail": detail} if detail else {})
        content = [{"type": "image_url", "image_url": image}, {"type": "text", "text": user}]
        body: dict[str, Any] = {
            "model": self.name,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": content}],
            self._profile.token_limit: self._room(kind),
        }
        if self._effort is not None:
            body["reasoning_effort"] = self._effort
        if self._profile.temperature is not None and not self._thinks:
            body["temperature"] = self._profile.temperature
        return body | self._profile.extra_body

    def worst_case(self, kind: Kind, refused: str = "") -> Usage:
        """The most that a request can take, all its tries together."""
        system, user = self._template.messages(kind, refused)
        # No tokenizer makes more tokens than bytes; the frame of the messages takes a few more.
        tokens = len((system + user).encode()) + 64 + self._profile.image.most_tokens
        tries = 1 + TRANSPORT_RETRIES
        return Usage(tries, input_tokens=tries * tokens, output_tokens=tries * self._room(kind))

    async def close(self) -> None:
        await self._client.close()

    @property
    def _thinks(self) -> bool:
        return self._effort not in (None, "none")

    def _room(self, kind: Kind) -> int:
        return ROOM[kind] + (self._profile.reasoning_tokens if self._thinks else 0)


def _read(body: Mapping[str, Any], kind: Kind, usage: Usage) -> Said:
    """The caption in a reply, or what is wrong with it."""
    try:
        choice = body["choices"][0]
        message, end = choice["message"], choice.get("finish_reason")
        content, refusal = message.get("content"), message.get("refusal")
    except (KeyError, IndexError, TypeError, AttributeError):
        return Said("", "invalid", "a reply that is no chat completion", usage)
    if refusal or end == "content_filter":
        return Said("", "refusal", str(refusal or "content filter"), usage)
    if not isinstance(content, str) or not content.strip():
        return Said("", "invalid", "it is empty", usage)
    if fault := fault_of(content, kind):
        return Said("", fault.status, fault.reason, usage)
    if end == "length":
        return Said("", "invalid", "it breaks off before its end", usage)
    return Said(Caption.of(content).text, "ok", "", usage)
