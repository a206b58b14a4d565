"""Several questions about one picture in one text: what they share is said once.

The questions are rendered one by one from the rubric's template; lines that all of them begin or end with, such as the
prompt, are found again here, so that a template serves both request shapes.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from lens_rl.judges.backend import Question

RULE = (
    "The questions about this picture are listed by name. Answer each on its own, as though it were the only one. "
    "Reply with one JSON object that gives every name its digit, 1 or 0, and nothing else."
)
"""Part of a judge's identity: see `OpenAIChatBackend`. Raise VERSION with it."""
VERSION = 1


@dataclass(frozen=True, slots=True)
class Shared:
    """User texts taken apart by lines: `head + parts[i] + tail` is the i-th."""

    head: str
    parts: tuple[str, ...]
    tail: str


def shared_lines(texts: Sequence[str]) -> Shared:
    """The longest common beginning and end, whole lines only; of a single text all is head."""
    lines = [text.splitlines(keepends=True) for text in texts]
    head = _common(lines)
    rest = [some[head:] for some in lines]
    tail = _common([some[::-1] for some in rest])
    first = lines[0]
    parts = tuple("".join(some[: len(some) - tail]) for some in rest)
    return Shared("".join(first[:head]), parts, "".join(first[len(first) - tail :]) if tail else "")


def as_list(questions: Sequence[Question]) -> str:
    """One user text for all the questions."""
    shared = shared_lines([question.user for question in questions])
    names = [json.dumps(question.criterion.name, ensure_ascii=False) for question in questions]
    listed = (f"{name}: {part.strip()}" for name, part in zip(names, shared.parts, strict=True))
    return "\n\n".join(text for text in (shared.head.strip(), *listed, shared.tail.strip(), RULE) if text)


def schema(names: Sequence[str]) -> dict[str, object]:
    """The JSON schema of the reply: exactly these names, each 0 or 1."""
    return {
        "type": "object",
        "properties": {name: {"type": "integer", "enum": [0, 1]} for name in names},
        "required": list(names),
        "additionalProperties": False,
    }


def _common(lines: Sequence[Sequence[str]]) -> int:
    """How many leading lines all the lists share."""
    count = 0
    for of_all in zip(*lines, strict=False):
        if len(set(of_all)) > 1:
            break
        count += 1
    return count
