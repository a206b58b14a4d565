"""Prompt files: one prompt a line, as JSON with criteria or as plain text."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lens_core.recipes import RecipeProblem, Strict, nearest
from lens_core.records import Criterion, Prompt
from lens_core.runs import write_whole


class _CriterionLine(Strict):
    name: str
    text: str
    kind: str = "custom"
    check: dict[str, Any] | None = None


class _PromptLine(Strict):
    text: str
    id: str | None = None
    category: str = ""
    dimensions: tuple[str, ...] = ()
    criteria: tuple[_CriterionLine, ...] = ()


def load_prompts(path: Path) -> list[Prompt]:
    """The prompts of a .jsonl file, or of a .txt file with a prompt a line.

    Raises RecipeProblem that names the file, the line and the field. Prompts without an id get one
    from their text.
    """
    if path.suffix not in (".jsonl", ".txt"):
        raise RecipeProblem(f"{path} is no prompt file: it should end in .jsonl (an object a line) or .txt (a text a line)")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise RecipeProblem(f"prompt file {path} cannot be read: {reason}") from error
    read = _json_line if path.suffix == ".jsonl" else _text_line
    numbered = enumerate(text.splitlines(), start=1)
    prompts = [read(line, f"{path}:{number}") for number, line in numbered if line.strip()]
    if not prompts:
        raise RecipeProblem(f"prompt file {path} is empty")
    _refuse_doubles(prompts, path)
    return prompts


def write_prompts(path: Path, prompts: Iterable[Prompt]) -> str:
    """Write a .jsonl prompt file; the same prompts give the same bytes. Returns their sha256."""
    text = "".join(json.dumps(_plain(prompt), ensure_ascii=False) + "\n" for prompt in prompts)
    write_whole(path, text)
    return hashlib.sha256(text.encode()).hexdigest()


def _json_line(line: str, where: str) -> Prompt:
    try:
        data = json.loads(line)
    except json.JSONDecodeError as error:
        raise RecipeProblem(f"{where}: not JSON ({error.msg} at column {error.colno})") from error
    if not isinstance(data, dict):
        raise RecipeProblem(f'{where}: a line must be an object such as {{"text": "a red circle"}}')
    try:
        found = _PromptLine.model_validate_json(line)
    except ValidationError as error:
        raise RecipeProblem(f"{where}: {_first_mistake(error)}") from error
    if not found.text.strip():
        raise RecipeProblem(f"{where}: text is empty")
    names = [criterion.name for criterion in found.criteria]
    if doubled := next((name for name in names if names.count(name) > 1), None):
        raise RecipeProblem(f"{where}: two criteria are named {doubled!r}")
    return Prompt(
        id=found.id or _id(found.text),
        text=found.text,
        category=found.category,
        dimensions=found.dimensions,
        criteria=tuple(Criterion(c.name, c.text, c.kind, c.check) for c in found.criteria),
    )


def _text_line(line: str, where: str) -> Prompt:
    return Prompt(id=_id(line.strip()), text=line.strip())


def _first_mistake(error: ValidationError) -> str:
    item = error.errors()[0]
    field = ".".join(map(str, item["loc"]))
    if item["type"] == "extra_forbidden":
        known = _CriterionLine if "criteria" in item["loc"] else _PromptLine
        return f"unknown field {field!r}{nearest(str(item['loc'][-1]), known.model_fields)}"
    return f"{field}: {item['msg']}"


def _refuse_doubles(prompts: list[Prompt], path: Path) -> None:
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.id in seen:
            raise RecipeProblem(f"prompt file {path}: id {prompt.id!r} stands twice (text {prompt.text!r})")
        seen.add(prompt.id)


def _plain(prompt: Prompt) -> dict[str, Any]:
    return {
        "id": prompt.id,
        "text": prompt.text,
        "category": prompt.category,
        "dimensions": list(prompt.dimensions),
        "criteria": [
            {"name": c.name, "text": c.text, "kind": c.kind, "check": None if c.check is None else dict(c.check)}
            for c in prompt.criteria
        ],
    }


def _id(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
