"""A judge behind any OpenAI-compatible endpoint: one chat request a criterion, the answer a bare 1 or 0.

Transport faults (429, 5xx, dropped connections) are retried by the client. What then remains is an error, never a
zero.
"""

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
from lens_rl.judges.backend import Answer, Backend, Capabilities, JudgeProblem, Question, Reply, Usage

TRANSPORT_RETRIES = 5
MIN_LABEL_MASS = 0.5
JPEG_QUALITY = 95
MAX_TOKENS = 4
WORST_PICTURE_TOKENS = 4096


class OpenAIChatBackend(Backend):
    """`base_url=None` is OpenAI itself. Raises JudgeProblem where the key is missing."""

    def __init__(
        self,
        *,
        model: str | None,
        base_url: str | None,
        api_key_env: str,
        timeout: float,
        longest_side: int,
    ):
        if not model:
            raise JudgeProblem("judge.model is missing: name the model that the endpoint serves")
        key = os.environ.get(api_key_env)
        if not key and base_url is None:
            raise JudgeProblem(f"judge.api_key_env: the environment variable {api_key_env} is not set")
        self.model = self._model = model
        self._longest_side = longest_side
        self._client = openai.AsyncOpenAI(
            api_key=key or "none", base_url=base_url, timeout=timeout, max_retries=TRANSPORT_RETRIES
        )
        self.capabilities = Capabilities(probabilities=True, label_mass=True, longest_side=longest_side)
        self.identity = f"openai_chat:{model}:side{longest_side}:jpeg{JPEG_QUALITY}"

    def cannot_read(self, criterion: Criterion) -> str | None:
        return None if criterion.text.strip() else "its text is empty"

    def prepare(self, image: np.ndarray) -> str:
        return _data_url(image, self._longest_side)

    async def answer(self, picture: str, questions: Sequence[Question]) -> Reply:
        (question,) = questions
        return await self._ask(picture, question)

    def request(self, picture: str, questions: Sequence[Question]) -> dict[str, Any]:
        (question,) = questions
        return {
            "model": self._model,
            "messages": [
                {"role": "system", "content": question.system},
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": picture}},
                        {"type": "text", "text": question.user},
                    ],
                },
            ],
            "temperature": 0.0,
            "max_tokens": MAX_TOKENS,
            "logprobs": True,
            "top_logprobs": 20,
        }

    def worst_case(self, picture: str, questions: Sequence[Question]) -> Usage:
        characters = sum(len(question.system) + len(question.user) for question in questions)
        # No tokenizer makes more tokens than bytes of text; a picture's price depends on the model: see the profile.
        tries = 1 + TRANSPORT_RETRIES
        tokens = 4 * characters + WORST_PICTURE_TOKENS
        return Usage(tries, input_tokens=tries * tokens, output_tokens=tries * MAX_TOKENS)

    async def close(self) -> None:
        await self._client.close()

    async def _ask(self, picture: str, question: Question) -> Reply:
        try:
            reply = await self._client.chat.completions.create(**self.request(picture, [question]))
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise JudgeProblem(f"judge.api_key_env: the endpoint rejected the key ({error.status_code})") from error
        except openai.NotFoundError as error:
            raise JudgeProblem(f"judge.model: the endpoint does not have {self.model!r}") from error
        except openai.RateLimitError as error:
            if error.code == "insufficient_quota":
                raise JudgeProblem("judge: the account behind the key has no quota left") from error
            return Reply((Answer(None, "error"),), Usage(requests=1))
        except openai.APITimeoutError:
            return Reply((Answer(None, "timeout"),), Usage(requests=1))
        except (openai.APIError, ValueError):
            return Reply((Answer(None, "error"),), Usage(requests=1))
        return Reply((read_answer(reply),), read_usage(reply))


def read_answer(reply: Any) -> Answer:
    """A chat completion to an answer: exactly "1" or "0", with its probability where it is given."""
    if not getattr(reply, "choices", None):
        return Answer(None, "error")
    choice = reply.choices[0]
    if getattr(choice.message, "refusal", None):
        return Answer(None, "refusal")
    label = (choice.message.content or "").strip()
    if label not in ("0", "1"):
        return Answer(None, "invalid")
    p, mass = _probability(choice)
    if mass is not None and mass < MIN_LABEL_MASS:
        return Answer(None, "invalid", p=p, mass=mass)
    return Answer(int(label), p=p, mass=mass)


def read_usage(reply: Any) -> Usage:
    """The tokens that an endpoint says a reply took."""
    usage = getattr(reply, "usage", None)
    if not usage:
        return Usage(requests=1)
    details = getattr(usage, "prompt_tokens_details", None)
    cached = (getattr(details, "cached_tokens", None) or 0) if details else 0
    return Usage(1, usage.prompt_tokens - cached, cached, 0, usage.completion_tokens)


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
