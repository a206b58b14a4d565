"""A judge behind any OpenAI-compatible endpoint: one chat request a criterion, the answer a bare 1 or 0.

Transport faults (429, 5xx, dropped connections) are retried by the client; one more attempt is
made where an answer came but cannot be used. What then remains is an error, never a zero.
"""

import asyncio
import base64
import io
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import openai
from PIL import Image

from lens_core.records import Criterion
from lens_rl.judges.backend import Answer, JudgeProblem, Question

TRANSPORT_RETRIES = 5
ATTEMPTS = 2
MIN_LABEL_MASS = 0.5
JPEG_QUALITY = 95


class OpenAIChatBackend:
    """`base_url=None` is OpenAI itself. Raises JudgeProblem where the key is missing."""

    def __init__(
        self,
        *,
        model: str | None,
        base_url: str | None,
        api_key_env: str,
        timeout: float,
        longest_side: int,
        concurrency: int,
    ):
        if not model:
            raise JudgeProblem("judge.model is missing: name the model that the endpoint serves")
        key = os.environ.get(api_key_env)
        if not key and base_url is None:
            raise JudgeProblem(f"judge.api_key_env: the environment variable {api_key_env} is not set")
        self._model, self._longest_side = model, longest_side
        self._client = openai.AsyncOpenAI(
            api_key=key or "none", base_url=base_url, timeout=timeout, max_retries=TRANSPORT_RETRIES
        )
        self._slots = asyncio.Semaphore(concurrency)
        self.identity = f"openai_chat:{model}:side{longest_side}:jpeg{JPEG_QUALITY}"

    def cannot_read(self, criterion: Criterion) -> str | None:
        return None if criterion.text.strip() else "its text is empty"

    async def answer(self, image: np.ndarray, questions: Sequence[Question]) -> list[Answer]:
        picture = {"type": "image_url", "image_url": {"url": _data_url(image, self._longest_side)}}
        return await asyncio.gather(*(self._ask(picture, question) for question in questions))

    async def close(self) -> None:
        await self._client.close()

    async def _ask(self, picture: dict[str, Any], question: Question) -> Answer:
        from tenacity import AsyncRetrying, retry_if_result, stop_after_attempt

        retrying = AsyncRetrying(
            stop=stop_after_attempt(ATTEMPTS),
            retry=retry_if_result(lambda answer: answer.status in ("invalid", "refusal")),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )
        return await retrying(self._ask_once, picture, question)

    async def _ask_once(self, picture: dict[str, Any], question: Question) -> Answer:
        messages: list[Any] = [
            {"role": "system", "content": question.system},
            {"role": "user", "content": [picture, {"type": "text", "text": question.user}]},
        ]
        try:
            async with self._slots:
                reply = await self._client.chat.completions.create(
                    model=self._model,
                    messages=messages,
                    temperature=0.0,
                    max_tokens=4,
                    logprobs=True,
                    top_logprobs=20,
                )
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise JudgeProblem(f"judge.api_key_env: the endpoint rejected the key ({error.status_code})") from error
        except openai.NotFoundError as error:
            raise JudgeProblem(f"judge.model: the endpoint does not have {self._model!r}") from error
        except openai.RateLimitError as error:
            if error.code == "insufficient_quota":
                raise JudgeProblem("judge: the account behind the key has no quota left") from error
            return Answer(None, "error")
        except openai.APITimeoutError:
            return Answer(None, "timeout")
        except (openai.APIError, ValueError):
            return Answer(None, "error")
        return read_reply(reply)


def read_reply(reply: Any) -> Answer:
    """A chat completion to an answer: exactly "1" or "0", with its probability where it is given."""
    tokens = reply.usage.total_tokens if getattr(reply, "usage", None) else 0
    if not getattr(reply, "choices", None):
        return Answer(None, "error", tokens=tokens)
    choice = reply.choices[0]
    if getattr(choice.message, "refusal", None):
        return Answer(None, "refusal", tokens=tokens)
    label = (choice.message.content or "").strip()
    if label not in ("0", "1"):
        return Answer(None, "invalid", tokens=tokens)
    p, mass = _probability(choice)
    if mass is not None and mass < MIN_LABEL_MASS:
        return Answer(None, "invalid", p=p, mass=mass, tokens=tokens)
    return Answer(int(label), p=p, mass=mass, tokens=tokens)


def _probability(choice: Any) -> tuple[float | None, float | None]:
    """Probability of 1 among the two labels, and what the two hold together, at the first token."""
    content = choice.logprobs.content if getattr(choice, "logprobs", None) else None
    if not content:
        return None, None
    share = {"0": 0.0, "1": 0.0}
    for option in content[0].top_logprobs:
        if (label := option.token.strip()) in share:
            share[label] += math.exp(option.logprob)
    mass = share["0"] + share["1"]
    return (share["1"] / mass, min(mass, 1.0)) if mass > 0 else (None, None)


def _data_url(image: np.ndarray, longest_side: int) -> str:
    picture = Image.fromarray(image)
    picture.thumbnail((longest_side, longest_side))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
