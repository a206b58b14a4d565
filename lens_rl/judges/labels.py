"""From log-probabilities of the two labels to an answer.

    p    = sigmoid(l1 - l0)
    mass = exp(l1) + exp(l0)
    1 if p > 0.5 else 0

A model that puts most of its probability on other tokens has not answered: whatever p says then is noise.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from lens_rl.judges.backend import Answer

NO, YES = LABELS = ("0", "1")
MIN_LABEL_MASS = 0.5


def from_logprobs(l1: float, l0: float) -> Answer:
    """The answer behind the log-probabilities of "1" and "0" over the whole vocabulary; -inf where one is unknown."""
    top = max(l1, l0)
    if top == -math.inf:
        return Answer(None, "invalid")
    one, zero = math.exp(l1 - top), math.exp(l0 - top)
    p = one / (one + zero)
    mass = min(math.exp(top) * (one + zero), 1.0)
    if mass < MIN_LABEL_MASS:
        return Answer(None, "invalid", p=p, mass=mass)
    return Answer(int(p > 0.5), p=p, mass=mass)


def refused(choice: Mapping[str, Any]) -> bool:
    """Whether the model, or a filter behind it, declined to answer."""
    return bool(choice["message"].get("refusal")) or choice.get("finish_reason") == "content_filter"


def from_choice(choice: Mapping[str, Any]) -> Answer:
    """A choice of a chat completion: the reply is exactly "1" or "0", and its first token's probabilities decide."""
    label = (choice["message"].get("content") or "").strip()
    if label not in LABELS:
        return Answer(None, "invalid")
    options = first_token(choice)
    if not options:
        return Answer(int(label))
    return from_logprobs(options.get(YES, -math.inf), options.get(NO, -math.inf))


def first_token(choice: Mapping[str, Any]) -> dict[str, float]:
    """Log-probabilities of the first token's options by their text without spaces; empty where none were sent."""
    content = (choice.get("logprobs") or {}).get("content")
    if not content:
        return {}
    options = {str(option["token"]): float(option["logprob"]) for option in content[0].get("top_logprobs") or ()}
    options.setdefault(str(content[0]["token"]), float(content[0]["logprob"]))
    shares: dict[str, float] = {}
    for token, logprob in options.items():
        shares[token.strip()] = shares.get(token.strip(), 0.0) + math.exp(logprob)
    return {token: math.log(share) if share > 0 else -math.inf for token, share in shares.items()}


def from_object(text: str, names: Sequence[str]) -> tuple[Answer, ...]:
    """A JSON object with exactly these names, each 1 or 0; anything else is no answer to any of them."""
    unusable = tuple(Answer(None, "invalid") for _ in names)
    try:
        pairs = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError):
        return unusable
    if not isinstance(pairs, list) or any(not isinstance(pair, tuple) for pair in pairs):
        return unusable
    values = dict(pairs)
    exact = len(pairs) == len(values) == len(names) and set(values) == set(names)
    if not exact or any(type(value) is not int or value not in (0, 1) for value in values.values()):
        return unusable
    return tuple(Answer(values[name]) for name in names)
