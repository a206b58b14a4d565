"""The words around a prompt: what the text encoder reads before and after it.

The template is written out by hand rather than by the tokenizer's chat template, whose date is today's: the
same prompt would give other features tomorrow.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

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


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTemplate:
    """The released template by default.

    `{date}` in the prefix stands for `date` (YYYY-MM-DD). The prefix is read, but its features are dropped;
    those of the suffix are kept. `max_length` is in tokens, prefix and suffix included; longer texts lose
    their end.
    """

    prefix: str = RELEASED_PREFIX
    suffix: str = RELEASED_SUFFIX
    date: str = DATE
    max_length: int = 512

    def rendered_prefix(self) -> str:
        return self.prefix.replace("{date}", self.date)

    def save(self, folder: Path) -> None:
        text = json.dumps(asdict(self), indent=2) + "\n"
        (Path(folder) / TEMPLATE_FILE).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "TextTemplate":
        """The template beside a tokenizer; the released one where the folder has none."""
        path = Path(folder) / TEMPLATE_FILE
        if not path.exists():
            return cls()
        known = {field.name: field.type for field in fields(cls)}
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: not JSON: {error}") from error
        if not isinstance(found, dict) or set(found) - set(known):
            raise ValueError(f"{path}: its fields must be among {', '.join(known)}")
        for name, value in found.items():
            if not isinstance(value, int if name == "max_length" else str):
                raise ValueError(f"{path}: {name} is {value!r}, not {'a number' if name == 'max_length' else 'text'}")
        return cls(**found)
