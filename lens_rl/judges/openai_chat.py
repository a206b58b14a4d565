"""A judge behind any OpenAI-compatible endpoint: OpenAI's own, a vLLM server, and others.

Two request shapes. `per_criterion`, the paper's: one request a criterion, the reply is the bare digit 1 or 0, and the
probability of its first token is read where the endpoint tells it. `per_image`: all criteria of a picture in one
request, the reply is a JSON object with exactly their names.

Messages go from what never changes to what always does, system text, picture, prompt, criterion, so that servers which
keep prefixes read a picture once for all its criteria. Servers know a picture by its bytes: it is encoded once.
"""

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urljoin

from lens_rl.judges import labels, wording
from lens_rl.judges.backend import Answer, Capabilities, JudgeProblem, Question, Usage
from lens_rl.judges.client import chat_tokens, json_format
from lens_rl.judges.picture import Picture
from lens_rl.judges.remote import RemoteBackend, without_value
from lens_rl.recipe import Judge

MOST_QUESTIONS = 50
"""In one request; JSON schemas of more fields are refused by some endpoints."""


class OpenAIChatBackend(RemoteBackend):
    path = "/chat/completions"

    def __init__(self, judge: Judge):
        super().__init__(judge)
        self._per_image = (judge.request or self.profile.request) == "per_image"
        self._thinks = self.effort not in (None, "none")
        told = self.profile.label_probabilities is not None and judge.probabilities is not False
        probabilities = told and not self._per_image and not self._thinks
        self._by_id = probabilities and self.profile.label_probabilities == "token_ids"
        self._label_ids: list[int] = []
        self._looking_up = asyncio.Lock()
        self.capabilities = Capabilities(
            questions_per_request=MOST_QUESTIONS if self._per_image and self.profile.structured_output else 1,
            probabilities=probabilities,
            label_mass=probabilities,
            structured_output=self.profile.structured_output,
            reasoning_effort=bool(self.profile.reasoning_efforts),
            longest_side=self.longest_side,
        )
        self.identity = self._identity()

    def request(self, picture: Picture, questions: Sequence[Question]) -> dict[str, Any]:
        detail = self.profile.image.detail
        image = {"url": picture.url} | ({"detail": detail} if detail else {})
        content = [{"type": "image_url", "image_url": image}, {"type": "text", "text": self._text(questions)}]
        body: dict[str, Any] = {
            "model": self.name,
            "messages": [{"role": "system", "content": questions[0].system}, {"role": "user", "content": content}],
            self.profile.token_limit: self._room(questions),
        }
        if self.effort is not None:
            body["reasoning_effort"] = self.effort
        if self.profile.temperature is not None and not self._thinks:
            body["temperature"] = self.profile.temperature
        if self._per_image:
            names = [question.criterion.name for question in questions]
            body["response_format"] = json_format(wording.schema(names), "verdicts")
        if self.capabilities.probabilities:
            body["logprobs"] = True
            body |= {"logprob_token_ids": self._label_ids} if self._by_id else {"top_logprobs": 20}
        return body | self.profile.extra_body

    def read(self, body: Mapping[str, Any], questions: Sequence[Question]) -> tuple[Answer, ...]:
        choice = body["choices"][0]
        if labels.refused(choice):
            return without_value("refusal", len(questions))
        if not self._per_image:
            return (labels.from_choice(choice),)
        names = [question.criterion.name for question in questions]
        return labels.from_object(choice["message"].get("content") or "", names)

    def tokens(self, body: Mapping[str, Any]) -> Usage:
        return chat_tokens(body)

    def most_tokens(self, questions: Sequence[Question]) -> tuple[int, int]:
        return len((questions[0].system + self._text(questions)).encode()), self._room(questions)

    async def make_ready(self) -> Usage:
        """Ask the server once which tokens "1" and "0" are, where their probabilities are read by id."""
        if not self._by_id or self._label_ids:
            return Usage()
        usage = Usage()
        async with self._looking_up:
            if not self._label_ids:
                found = [await self._label_id(label) for label in (labels.YES, labels.NO)]
                usage = found[0][1] + found[1][1]
                self._label_ids = [label_id for label_id, _ in found]
        return usage

    async def _label_id(self, label: str) -> tuple[int, Usage]:
        url = urljoin(f"{self.client.url}/", "../tokenize")
        exchange = await self.client.post(url, {"model": self.name, "prompt": label, "add_special_tokens": False})
        tokens = (exchange.body or {}).get("tokens")
        if not isinstance(tokens, list):
            await self._refuse_first(exchange)
            why = self.client.said(exchange.error) if exchange.error else "no list of tokens came"
            raise JudgeProblem(
                f"judge.profile: probabilities are to be read by token, but {url} does not say which ({why}); use "
                "judge.profile=generic for a server that is not vLLM"
            )
        if len(tokens) != 1:
            raise JudgeProblem(
                f"judge.model: {label!r} is {len(tokens)} tokens to {self.name}; use judge.profile=generic"
            )
        return int(tokens[0]), exchange.usage

    def _text(self, questions: Sequence[Question]) -> str:
        if self._per_image:
            return wording.as_list(questions)
        (question,) = questions
        return question.user

    def _room(self, questions: Sequence[Question]) -> int:
        """Tokens of the longest right reply."""
        thinking = self.profile.reasoning_tokens if self._thinks else 0
        if self._per_image:
            return thinking + 16 + sum(len(json.dumps(question.criterion.name)) + 8 for question in questions)
        # By id only the first token counts, and a single one is the cheapest reply.
        return thinking + (1 if self._by_id else self.profile.answer_tokens)

    def _identity(self) -> str:
        extra = json.dumps(self.profile.extra_body, sort_keys=True)
        parts = [
            "openai_chat",
            self.name,
            f"per_image-{wording.VERSION}" if self._per_image else "per_criterion",
            self.picture_settings(),
            *([f"effort-{self.effort}"] if self.effort else []),
            *([f"temperature-{self.profile.temperature}"] if self.profile.temperature else []),
            *([f"extra-{hashlib.sha256(extra.encode()).hexdigest()[:8]}"] if self.profile.extra_body else []),
        ]
        return ":".join(parts)
