"""What all judges behind an HTTP endpoint share: one request, what came of it, and a look before a run starts."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
import openai

from lens_core.records import Criterion
from lens_rl.judges.backend import Answer, Backend, JudgeProblem, Question, Reply, Status, Usage
from lens_rl.judges.client import TRANSPORT_RETRIES, Exchange, ModelClient
from lens_rl.judges.picture import Picture, encode
from lens_rl.judges.profiles import effort_of, model_name, profile_of, refuse_gone
from lens_rl.recipe import Judge

CHECKS = 3
"""Replies to look at before a judge is said to give none that can be used."""


class RemoteBackend(Backend):
    """Subclasses give the request and read its reply; `path` is the endpoint's, below `judge.base_url`.

    Raises RecipeProblem or JudgeProblem for what the recipe asks and the model cannot do, and for a missing key.
    """

    path: str

    def __init__(self, judge: Judge):
        refuse_gone(judge, date.today())
        self.profile = profile_of(judge)
        self.name = self.model = model_name(judge)
        self.effort = effort_of(judge)
        self.longest_side = judge.longest_side or self.profile.image.longest_side
        self.client = ModelClient(judge, where="judge", problem=JudgeProblem)

    def request(self, picture: Picture, questions: Sequence[Question]) -> dict[str, Any]:
        raise NotImplementedError

    def read(self, body: Mapping[str, Any], questions: Sequence[Question]) -> tuple[Answer, ...]:
        """The answers of a reply; may raise what a malformed one makes it raise."""
        raise NotImplementedError

    def tokens(self, body: Mapping[str, Any]) -> Usage:
        """What the endpoint says it counted; no requests."""
        raise NotImplementedError

    def most_tokens(self, questions: Sequence[Question]) -> tuple[int, int]:
        """Bounds of one try: bytes of the text that goes in, tokens that come out."""
        raise NotImplementedError

    async def make_ready(self) -> Usage:
        """What has to be known of the endpoint before the first request; asked before each."""
        return Usage()

    def cannot_read(self, criterion: Criterion) -> str | None:
        return None if criterion.text.strip() else "its text is empty"

    def prepare(self, image: np.ndarray) -> Picture:
        return encode(image, self.profile.image, self.longest_side)

    async def answer(self, picture: Picture, questions: Sequence[Question]) -> Reply:
        usage = await self.make_ready()
        exchange = await self.client.post(self.path, self.request(picture, questions))
        usage += exchange.usage
        if exchange.error is not None:
            self._refuse_fatal(exchange.error)
            timed_out = isinstance(exchange.error, openai.APITimeoutError)
            return Reply(without_value("timeout" if timed_out else "error", len(questions)), usage)
        if exchange.body is None:
            return Reply(without_value("invalid", len(questions)), usage)
        return Reply(self._read_safely(exchange.body, questions), usage + self.tokens(exchange.body))

    async def check(self, picture: Picture, question: Question) -> Usage:
        usage = await self.make_ready()
        for _ in range(CHECKS):
            exchange = await self.client.post(self.path, self.request(picture, [question]))
            usage += exchange.usage
            await self._refuse_first(exchange)
            if exchange.body is not None:
                usage += self.tokens(exchange.body)
                (answer,) = self._read_safely(exchange.body, [question])
                if answer.status == "ok" and answer.p is None and self.capabilities.probabilities:
                    raise JudgeProblem(
                        f"judge.probabilities: {self.client.url} sends none for {self.name}; set it to false"
                    )
                if answer.status != "invalid":
                    return usage
        raise JudgeProblem(
            f"judge.model: {self.name} at {self.client.url} does not answer as it was asked, {CHECKS} times in a row: "
            f"it sent {self.client.short(_said(exchange.body))}; take another judge.model, judge.request or template"
        )

    def worst_case(self, picture: Picture, questions: Sequence[Question]) -> Usage:
        text, output = self.most_tokens(questions)
        # No tokenizer makes more tokens than bytes; the frame of the messages takes a few more.
        tokens = text + 64 + self.profile.image.most_tokens
        tries = 1 + TRANSPORT_RETRIES
        return Usage(tries, input_tokens=tries * tokens, output_tokens=tries * output)

    async def close(self) -> None:
        await self.client.close()

    def picture_settings(self) -> str:
        """How pictures are sent, for the identity."""
        image = self.profile.image
        return f"{image.format}{image.quality}x{self.longest_side}" + (f"-{image.detail}" if image.detail else "")

    def _read_safely(self, body: Mapping[str, Any], questions: Sequence[Question]) -> tuple[Answer, ...]:
        try:
            return self.read(body, questions)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            return without_value("invalid", len(questions))

    def _refuse_fatal(self, error: openai.OpenAIError) -> None:
        if problem := self.client.fatal(error, self.name):
            raise JudgeProblem(problem)

    async def _refuse_first(self, exchange: Exchange) -> None:
        """Raise JudgeProblem for any error of a first request, with the field to change."""
        error = exchange.error
        if error is None:
            return
        if isinstance(error, openai.NotFoundError) and (served := await self.client.models()):
            raise JudgeProblem(
                f"judge.model: {self.client.url} does not have {self.name!r}; it serves {', '.join(served[:8])}"
            )
        self._refuse_fatal(error)
        if isinstance(error, openai.APIStatusError) and error.status_code in (400, 413, 422):
            raise JudgeProblem(
                f"judge: {self.client.url} does not take the request ({self.client.said(error)}); a smaller "
                "judge.longest_side, another judge.request or judge.profile may be what it wants"
            )
        raise JudgeProblem(f"judge.base_url: {self.client.url} does not answer: {self.client.said(error)}")


def without_value(status: Status, number: int) -> tuple[Answer, ...]:
    return tuple(Answer(None, status) for _ in range(number))


def _said(body: Mapping[str, Any] | None) -> str:
    """The text of a reply, or whatever it is."""
    try:
        return repr((body or {})["choices"][0]["message"].get("content"))
    except (KeyError, IndexError, TypeError, AttributeError):
        return "no JSON" if body is None else repr(body)
