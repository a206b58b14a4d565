"""The words around a prompt: what the text encoder reads before and after it.

The template is written out by hand rather than by the tokenizer's chat template, whose date is today's: the
same prompt would give other features tomorrow. What is not the released template is written beside the
tokenizer, in `text_encoder_template.json`.
"""

import datetime
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from base_model.files import ModelProblem, read_json

TEMPLATE_FILE = "text_encoder_template.json"
DATE = "2026-05-23"
"""The frozen date of the released template: the one that other ports froze."""

RELEASED_PREFIX = (
    "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n"
    "Knowledge cutoff: 2024-06\nCurrent date: {date}\n\nReasoning: medium\n\n"
    "# Valid channels: analysis, commentary, final. Channel must be included for every message.<|end|>"
    "<|start|>developer<|message|># Instructions\n\n"
    "Describe the image by detailing the color, shape, size, texture, quantity, text, "
    "spatial relationships of the objects and background.\n\n<|end|>"
    "<|start|>user<|message|>"
)
RELEASED_SUFFIX = (
    "<|end|><|start|>assistant<|channel|>analysis<|message|>"
    "Need to generate one image according to the description.<|end|>"
    "<|start|>assistant<|channel|>final<|message|>"
)


TRUNCATIONS = {
    "whole": "the end of the whole goes, the suffix first: the release",
    "prompt": "the end of the prompt goes, the suffix is kept",
}
_TYPES = {"prefix": str, "suffix": str, "date": str, "max_length": int, "truncation": str, "keep_markers": bool}


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTemplate:
    """The released template by default. Raises ValueError for a field that cannot be.

    The prefix is read, but its features are dropped; those of the suffix are kept. What the release does with
    special markers typed in a prompt is `keep_markers`; otherwise they are read as plain characters, so that a
    prompt cannot close its own turn.
    """

    prefix: str = RELEASED_PREFIX
    suffix: str = RELEASED_SUFFIX
    date: str = DATE
    """YYYY-MM-DD, for `{date}` in the prefix."""
    max_length: int = 512
    """In tokens, prefix and suffix included; what longer texts lose is `truncation`."""
    truncation: str = "whole"
    """One of TRUNCATIONS."""
    keep_markers: bool = False
    """Whether `<|end|>` in a prompt is the marker rather than seven characters."""

    def __post_init__(self) -> None:
        for name, kind in _TYPES.items():
            # type(), not isinstance(): true would pass for a number.
            if type(value := getattr(self, name)) is not kind:
                wanted = {str: "text", int: "a number", bool: "true or false"}[kind]
                raise ValueError(f"{name} is {value!r}, not {wanted}")
        if self.truncation not in TRUNCATIONS:
            raise ValueError(f"truncation is {self.truncation!r}; it must be {' or '.join(TRUNCATIONS)}")
        if self.max_length < 1:
            raise ValueError(f"max_length is {self.max_length}; it must be at least 1")
        if "{date}" in self.prefix and not _is_date(self.date):
            raise ValueError(f"date is {self.date!r}; write it as YYYY-MM-DD")

    def rendered_prefix(self) -> str:
        return self.prefix.replace("{date}", self.date)

    def save(self, folder: Path) -> None:
        text = json.dumps(asdict(self), indent=2) + "\n"
        (Path(folder) / TEMPLATE_FILE).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "TextTemplate":
        """The template beside a tokenizer; the released one where the folder has none."""
        path = Path(folder) / TEMPLATE_FILE
        return cls.from_fields(read_json(path), path) if path.exists() else cls()

    @classmethod
    def from_fields(cls, found: dict[str, Any], where: str | Path) -> "TextTemplate":
        """A template from what a JSON file says. Raises ModelProblem that names `where` and the field."""
        if set(found) - set(_TYPES):
            raise ModelProblem(f"{where}: its fields must be among {', '.join(_TYPES)}")
        try:
            return cls(**found)
        except ValueError as error:
            raise ModelProblem(f"{where}: {error}") from error


def _is_date(text: str) -> bool:
    try:
        return datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False
