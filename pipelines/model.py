"""The language model behind an endpoint, for the verbs that write: `lens_core.asking.AskModel` in a few lines."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

import openai

from lens_core.asking import Message, ModelProblem
from lens_rl.recipe import Judge

RETRIES = 5


class EndpointModel:
    """Chat completions of any OpenAI-compatible endpoint, as an async context. Raises ModelProblem without a key."""

    def __init__(self, fields: Judge, *, where: str = "--model"):
        if not fields.model:
            raise ModelProblem(f"{where} model=NAME is missing: name the model that the endpoint serves")
        key = os.environ.get(fields.api_key_env)
        if not key and fields.base_url is None:
            raise ModelProblem(f"{where} api_key_env: the environment variable {fields.api_key_env} is not set")
        self.name = fields.model
        self._client = openai.AsyncOpenAI(
            api_key=key or "none", base_url=fields.base_url, timeout=fields.timeout_seconds, max_retries=RETRIES
        )

    async def ask(self, messages: Sequence[Message], schema: Mapping[str, Any] | None = None) -> str:
        json_schema = {"name": "reply", "strict": True, "schema": dict(schema or {})}
        shape = {"response_format": {"type": "json_schema", "json_schema": json_schema}} if schema else {}
        try:
            reply = await self._client.chat.completions.create(
                model=self.name, messages=cast(Any, [dict(message) for message in messages]), **cast(Any, shape)
            )
        except openai.OpenAIError as error:
            raise ModelProblem(f"{self.name} did not answer: {error}") from error
        message = reply.choices[0].message if reply.choices else None
        if message is None or message.refusal or not message.content:
            raise ModelProblem(f"{self.name} refused, or sent an empty reply")
        return message.content

    async def __aenter__(self) -> "EndpointModel":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()
