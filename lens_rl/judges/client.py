"""The language-model client: one door for judges and writers to an OpenAI-compatible endpoint.

Its rules:

- Faults of the transport (408, 409, 429, 5xx, dropped connections, tries past their deadline) are tried again here, by
  the SDK, which obeys Retry-After; nobody above tries them again.
- Every try is counted where it leaves, so that a ledger can equal the server's own count.
- A client belongs to the event loop that first used it: its connections live there.
- The key stays in the SDK: no message of ours holds it, whatever the endpoint echoes.
"""

import asyncio
import contextvars
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import httpx2
import openai

from lens_core.asking import Message, ModelProblem
from lens_rl.judges.backend import Usage
from lens_rl.judges.profiles import effort_of, load_profile, model_name, profile_name
from lens_rl.recipe import Endpoint

OPENAI = "https://api.openai.com/v1"
TRANSPORT_RETRIES = 5
NO_QUOTA = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
"""Codes of a 429 that waiting does not mend."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """What came of one request: a JSON object, or the error that the retries left, or neither: an unreadable body."""

    body: Mapping[str, Any] | None
    error: openai.OpenAIError | None
    usage: Usage
    """Tries sent, and those that may be charged though nothing tells how much; the tokens are read from the body."""


class ModelClient:
    """One endpoint. Raises `problem`, an exception type, where the key is missing."""

    def __init__(self, endpoint: Endpoint, *, where: str, problem: type[Exception]):
        self._where = where
        self._key_env = endpoint.api_key_env or ("OPENAI_API_KEY" if endpoint.base_url is None else None)
        self._key = os.environ.get(self._key_env, "") if self._key_env else ""
        if self._key_env and not self._key:
            raise problem(
                f"{where}.api_key_env: the environment variable {self._key_env} is not set; export it, or name "
                f"another, or give the {where}.base_url of a server that needs no key"
            )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sdk = openai.AsyncOpenAI(
            api_key=self._key or "none",
            base_url=endpoint.base_url or OPENAI,  # never what OPENAI_BASE_URL says: the recipe does
            http_client=_Counting(endpoint.timeout_seconds),
            max_retries=TRANSPORT_RETRIES,
        )
        self.url = str(self._sdk.base_url).rstrip("/")

    async def post(self, path: str, body: Mapping[str, Any]) -> Exchange:
        """Send one request, and again where the transport failed. `path` is below `url`, or a whole URL."""
        self._refuse_other_loop()
        tries = _Tries()
        token = _TRIES.set(tries)
        try:
            # The SDK's typed resources walk through every message again; the bare door sends the body as it is.
            reply = await self._sdk.post(path, body=body, cast_to=httpx2.Response)
            content = _json_object(reply.content)
            return Exchange(content, None, tries.usage(unread=content is None))
        except openai.OpenAIError as error:
            return Exchange(None, error, tries.usage())
        finally:
            _TRIES.reset(token)

    async def models(self) -> list[str]:
        """Names that the endpoint says it serves; empty where it does not say."""
        self._refuse_other_loop()
        token = _TRIES.set(_Tries())
        try:
            return [model.id for model in (await self._sdk.with_options(max_retries=0).models.list()).data]
        except (openai.OpenAIError, ValueError, TypeError, AttributeError):
            return []
        finally:
            _TRIES.reset(token)

    def fatal(self, error: openai.OpenAIError, model: str) -> str | None:
        """Why no later request will fare better, with the field to change; None where one may."""
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            key = f"the key in {self._key_env}" if self._key else "a request without a key: name its variable"
            return f"{self._where}.api_key_env: {self.url} rejected {key} ({self.said(error)})"
        if isinstance(error, openai.NotFoundError):
            return (
                f"{self._where}.model or {self._where}.base_url: {self.url} does not have {model!r} or this kind of "
                f"request ({self.said(error)})"
            )
        if isinstance(error, openai.RateLimitError) and error.code in NO_QUOTA:
            account = f"the account behind {self._key_env or self.url}"
            return f"{self._where}.api_key_env: {account} has no quota left ({error.code})"
        return None

    def said(self, error: openai.OpenAIError) -> str:
        """The endpoint's own words, short, and without the key."""
        status = f"HTTP {error.status_code}: " if isinstance(error, openai.APIStatusError) else ""
        inner = getattr(error, "body", None)
        words = str(inner["message"]) if isinstance(inner, Mapping) and inner.get("message") else str(error)
        return status + self.short(words)

    def short(self, words: str) -> str:
        """On one line, 300 characters at most, and without the key."""
        words = " ".join((words.replace(self._key, "[key]") if self._key else words).split())
        return words if len(words) <= 300 else words[:300] + " ..."

    async def close(self) -> None:
        await self._sdk.close()

    def _refuse_other_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop not in (None, loop):
            raise RuntimeError("a ModelClient belongs to the event loop that first used it: open one a loop")
        self._loop = loop


class ChatModel:
    """`lens_core.asking.AskModel` over chat completions. Close it, or use it in `async with`.

    Raises RecipeProblem for a profile that does not exist, ModelProblem for a missing key.
    """

    def __init__(self, endpoint: Endpoint, *, where: str = "model"):
        self._profile = load_profile(profile_name(endpoint))
        self._model, self._effort = model_name(endpoint, where), effort_of(endpoint, where)
        self._client = ModelClient(endpoint, where=where, problem=ModelProblem)
        self.name = self._model if self._effort is None else f"{self._model}:effort={self._effort}"
        self.usage = Usage()
        """All that was sent and counted so far."""

    async def ask(self, messages: Sequence[Message], schema: Mapping[str, Any] | None = None) -> str:
        exchange = await self._client.post("/chat/completions", self._body(messages, schema))
        self.usage += exchange.usage
        if exchange.error is not None:
            problem = self._client.fatal(exchange.error, self._model) or self._client.said(exchange.error)
            raise ModelProblem(f"{self._model} did not answer: {problem}")
        if exchange.body is None or not exchange.body.get("choices"):
            raise ModelProblem(f"{self._model} sent no chat completion; does {self._client.url} serve them?")
        self.usage += chat_tokens(exchange.body)
        choice = exchange.body["choices"][0]
        message = choice.get("message") or {}
        if message.get("refusal") or choice.get("finish_reason") == "content_filter":
            raise ModelProblem(f"{self._model} refused: {message.get('refusal') or 'content filter'}")
        if choice.get("finish_reason") == "length":
            raise ModelProblem(f"{self._model} ran out of room before its reply ended: ask for less at once")
        if not message.get("content"):
            raise ModelProblem(f"{self._model} sent an empty reply")
        return message["content"]

    def _body(self, messages: Sequence[Message], schema: Mapping[str, Any] | None) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self._model, "messages": [dict(message) for message in messages]}
        if self._effort is not None:
            body["reasoning_effort"] = self._effort
        if schema is not None and self._profile.structured_output:
            body["response_format"] = json_format(schema, "reply")
        elif schema is not None:
            rule = f"Reply with JSON that obeys this schema, and nothing else: {json.dumps(schema)}"
            body["messages"].append({"role": "user", "content": rule})
        return body | self._profile.extra_body

    async def __aenter__(self) -> "ChatModel":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def close(self) -> None:
        await self._client.close()


def chat_tokens(body: Mapping[str, Any]) -> Usage:
    """The tokens that a chat completion says it took; one request unreported where it does not say."""
    usage = body.get("usage")
    try:
        details = usage.get("prompt_tokens_details") or {}  # type: ignore[union-attr]
        cached, written = int(details.get("cached_tokens") or 0), int(details.get("cache_write_tokens") or 0)
        fresh = int(usage["prompt_tokens"]) - cached - written  # type: ignore[index]
        return Usage(0, max(fresh, 0), cached, written, int(usage.get("completion_tokens") or 0))  # type: ignore[union-attr]
    except (AttributeError, KeyError, TypeError, ValueError):
        return Usage(unreported=1)


def json_format(schema: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The `response_format` of a schema; strict where the schema is as strict as that mode wants it."""
    return {"type": "json_schema", "json_schema": {"name": name, "strict": _is_strict(schema), "schema": dict(schema)}}


def _is_strict(schema: Any) -> bool:
    """Every object inside closes its list of properties and requires them all."""
    if isinstance(schema, Mapping):
        if "properties" in schema:
            closed = schema.get("additionalProperties") is False
            if not closed or set(schema.get("required", ())) != set(schema["properties"]):
                return False
        return all(_is_strict(inner) for inner in schema.values())
    return all(_is_strict(inner) for inner in schema) if isinstance(schema, list) else True


@dataclass(slots=True)
class _Tries:
    """Of one request."""

    sent: int = 0
    unreported: int = 0
    throttled: int = 0

    def usage(self, *, unread: bool = False) -> Usage:
        """With one more unreported where the reply could not be read."""
        return Usage(self.sent, unreported=self.unreported + unread, throttled=self.throttled)


_TRIES: contextvars.ContextVar[_Tries] = contextvars.ContextVar("tries")


class _Counting(openai.DefaultAioHttpClient):
    """The SDK's aiohttp transport, about twice as fast as its usual one, with a deadline over each whole try.

    aiohttp's own deadlines are for each read, so a reply that trickles would never end.
    """

    def __init__(self, seconds: float):
        super().__init__(timeout=httpx2.Timeout(seconds))
        self._seconds = seconds

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        tries = _TRIES.get()
        tries.sent += 1
        try:
            async with asyncio.timeout(self._seconds):
                response = await super().send(request, **options)
        except TimeoutError:
            tries.unreported += 1
            raise httpx2.ReadTimeout("the deadline of this try has passed", request=request) from None
        except httpx2.ConnectTimeout as error:
            # The transport calls all that goes wrong with a connection so; aiohttp knows better.
            if isinstance(error.__cause__, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
                tries.sent -= 1  # nobody heard it
                raise httpx2.ConnectError(str(error), request=request) from error
            tries.unreported += 1
            raise httpx2.ReadError(str(error), request=request) from error
        except httpx2.TransportError:
            tries.unreported += 1
            raise
        tries.throttled += response.status_code == 429
        if response.status_code == 429 and _code(response) in NO_QUOTA:
            response.headers["x-should-retry"] = "false"
        return response


def _code(response: httpx2.Response) -> str | None:
    error = (_json_object(response.content) or {}).get("error")
    return error.get("code") if isinstance(error, Mapping) else None


def _json_object(content: bytes) -> Mapping[str, Any] | None:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
