"""Prompt files: one prompt a line, as JSON with criteria or as plain text."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from lens_core.criteria import problem_of
from lens_core.recipes import RecipeProblem, Strict, nearest
from lens_core.records import Criterion, Prompt
from lens_core.runs import write_whole


class _CriterionLine(Strict):
    name: str
    text: str
    kind: str = "custom"
    check: dict[str, Any] | None = None
    weight: float = 1.0
    requires: str | None = None


class _PromptLine(Strict):
    text: str
    id: str | None = None
    category: str = ""
    dimensions: tuple[str, ...] = ()
    criteria: tuple[_CriterionLine, ...] = ()
    facts: dict[str, str | int] = Field(default_factory=dict)


def load_prompts(path: Path) -> list[Prompt]:
    """The prompts of a .jsonl file, or of a .txt file with a prompt a line.

    Raises RecipeProblem that names the file, the line and the field. Prompts without an id get one
    from their text.
    """
    if path.suffix not in (".jsonl", ".txt"):
        raise RecipeProblem(
            f"{path} is no prompt file: it should end in .jsonl (an object a line) or .txt (a text a line)"
        )
    read = _json_line if path.suffix == ".jsonl" else _text_line
    prompts: list[Prompt] = []
    line_of: dict[str, int] = {}
    # Not splitlines(): a text may hold line separators that are no ends of lines in JSON.
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        prompt = read(line, f"{path}:{number}")
        if prompt.id in line_of:
            raise RecipeProblem(
                f"{path}:{number}: id {prompt.id!r} (text {prompt.text!r}) stands in line {line_of[prompt.id]} "
                "already: give it another id, or delete one of the two"
            )
        line_of[prompt.id] = number
        prompts.append(prompt)
    if not prompts:
        raise RecipeProblem(f"prompt file {path} is empty: write at least one prompt into it")
    return prompts


def write_prompts(path: Path, prompts: Iterable[Prompt]) -> str:
    """Write a .jsonl prompt file; the same prompts give the same bytes. Returns their `set_hash`."""
    prompts = list(prompts)
    write_whole(path, _lines(prompts))
    return set_hash(prompts)


def set_hash(prompts: Iterable[Prompt]) -> str:
    """What a manifest calls a prompt set by: the sha256 of the file that `write_prompts` makes of it."""
    return hashlib.sha256(_lines(prompts).encode()).hexdigest()


def _lines(prompts: Iterable[Prompt]) -> str:
    return "".join(json.dumps(_plain(prompt), ensure_ascii=False) + "\n" for prompt in prompts)


def _text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise RecipeProblem(f"prompt file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RecipeProblem(f"prompt file {path} is not UTF-8 text: save it as UTF-8") from error
    if "\0" in text:
        raise RecipeProblem(f"prompt file {path} is a binary file: a prompt file is UTF-8 text, one prompt a line")
    return text


def _json_line(line: str, where: str) -> Prompt:
    try:
        found = _PromptLine.model_validate_json(line)
    except ValidationError as error:
        raise RecipeProblem(f"{where}: {_first_mistake(error)}") from error
    if not found.text.strip():
        raise RecipeProblem(f"{where}: text is empty: write the prompt there, or delete the line")
    criteria = tuple(Criterion(c.name, c.text, c.kind, c.check, c.weight, c.requires) for c in found.criteria)
    if problem := problem_of(criteria):
        raise RecipeProblem(f"{where}: criteria: {problem}")
    return Prompt(
        id=found.id or _id(found.text),
        text=found.text,
        category=found.category,
        dimensions=found.dimensions,
        criteria=criteria,
        facts=found.facts,
    )


def _text_line(line: str, where: str) -> Prompt:
    return Prompt(id=_id(line.strip()), text=line.strip())


def _first_mistake(error: ValidationError) -> str:
    item = error.errors()[0]
    field = ".".join(map(str, item["loc"]))
    if item["type"] == "json_invalid":
        return f"{item['msg']}: every line is one JSON object"
    if not field:
        return 'a line must be an object such as {"text": "a red circle"}'
    if item["type"] == "extra_forbidden":
        known = _CriterionLine if "criteria" in item["loc"] else _PromptLine
        return f"unknown field {field!r}{nearest(str(item['loc'][-1]), known.model_fields)}"
    got = "" if item["type"] == "missing" else f" (got {item['input']!r})"
    return f"{field}: {item['msg']}{got}"


def _plain(prompt: Prompt) -> dict[str, Any]:
    plain = {
        "id": prompt.id,
        "text": prompt.text,
        "category": prompt.category,
        "dimensions": list(prompt.dimensions),
        "criteria": [_plain_criterion(criterion) for criterion in prompt.criteria],
    }
    return plain | ({"facts": dict(prompt.facts)} if prompt.facts else {})


def _plain_criterion(criterion: Criterion) -> dict[str, Any]:
    """Weight and parent are written where there is one to be told."""
    check = None if criterion.check is None else dict(criterion.check)
    plain = {"name": criterion.name, "text": criterion.text, "kind": criterion.kind, "check": check}
    if criterion.weight != 1.0:
        plain["weight"] = criterion.weight
    if criterion.requires is not None:
        plain["requires"] = criterion.requires
    return plain


def _id(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
