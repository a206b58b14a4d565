"""How every room speaks to a language model: the client is handed in, never imported."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

Message = Mapping[str, Any]
"""`{"role": "system" | "user" | "assistant", "content": text or a list of content parts}`, as in chat completions."""


class ModelProblem(ValueError):
    """The language model cannot be used, or its reply cannot: says what to change. Nothing that came before is lost."""


class AskModel(Protocol):
    """One language model behind one method."""

    name: str
    """Model and settings, for manifests: what a reply depends on."""

    async def ask(self, messages: Sequence[Message], schema: Mapping[str, Any] | None = None) -> str:
        """The reply's text; with a JSON schema, JSON text that was asked to obey it (the caller validates).

        Transport faults are retried inside. Raises ModelProblem where no reply came or it was refused.
        """
        ...
