"""Prompt files: one prompt a line, as JSON with criteria or as plain text; the same as Parquet; and sets that ship."""

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from lens_core.criteria import problem_of
from lens_core.recipes import RecipeProblem, Strict, nearest
from lens_core.records import Criterion, Prompt
from lens_core.runs import whole_file
from taxonomy.sampler import Split, split_of
from taxonomy.tables import read_table, write_table

SETS = Path(__file__).parent / "sets"
_OWN_ID = re.compile(r"([0-9a-f]{12})(-\d+)?")


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
    """The prompts of a .jsonl, .jsonl.gz or .parquet file, or of a .txt file with a prompt a line.

    Raises RecipeProblem that names the file, the line and the field. Prompts without an id get one
    from their text.
    """
    lines_of, _ = _format(path)
    read = _text_line if path.suffix == ".txt" else _json_line
    prompts: list[Prompt] = []
    line_of: dict[str, int] = {}
    for number, line in enumerate(lines_of(path), start=1):
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
    """Write a .jsonl, .jsonl.gz or .parquet file; the same prompts give the same bytes. Returns their `set_hash`."""
    prompts, write = list(prompts), writer_of(path)
    with whole_file(path) as draft:
        write(draft, _lines(prompts))
    return set_hash(prompts)


def writer_of(path: Path) -> "Write":
    """What writes such a file. Raises RecipeProblem where prompts with their criteria do not fit into one."""
    _, write = _format(path)
    if write is None:
        raise RecipeProblem(f"{path}: prompts with their criteria are written as .jsonl, .jsonl.gz or .parquet")
    return write


def find_set(name: str) -> Path:
    """A prompt set by name (one of `taxonomy/sets/`) or by path. Raises RecipeProblem with the nearest name."""
    names = {file.name.removesuffix(".jsonl.gz"): file for file in SETS.glob("*.jsonl.gz")}
    if name in names:
        return names[name]
    if "/" in name or _suffix(Path(name)) in _FORMATS:
        return Path(name)
    raise RecipeProblem(f"unknown prompt set {name!r}{nearest(name, names)}; there are: {', '.join(sorted(names))}")


def manifest_of(path: Path) -> Path:
    """Where the manifest of a set lies: `x.jsonl.gz` has `x.manifest.json`."""
    return path.with_name(path.name.removesuffix(".gz").rpartition(".")[0] + ".manifest.json")


def rubric_of_set(path: Path) -> str | None:
    """The hash of the rubric that wrote a set's criteria, or None where its manifest is missing or does not say.

    Raises RecipeProblem for a manifest that cannot be read.
    """
    try:
        return json.loads(manifest_of(path).read_text(encoding="utf-8"))["rubric"]["hash"]
    except (FileNotFoundError, KeyError, TypeError):
        return None
    except (OSError, ValueError) as error:
        raise RecipeProblem(f"{manifest_of(path)} cannot be read: {error}; build the set anew") from error


def split_of_prompt(prompt: Prompt) -> Split:
    """The split of a prompt of a set, by its id; other prompts on the same item are in the same split."""
    own = _OWN_ID.fullmatch(prompt.id)
    return split_of(own[1] if own else prompt.id)


def set_hash(prompts: Iterable[Prompt]) -> str:
    """What a manifest calls a prompt set by: the sha256 of the file that `write_prompts` makes of it."""
    return hashlib.sha256(_lines(prompts).encode()).hexdigest()


def _suffix(path: Path) -> str:
    return ".jsonl.gz" if path.name.endswith(".jsonl.gz") else path.suffix


def _lines(prompts: Iterable[Prompt]) -> str:
    return "".join(json.dumps(_plain(prompt), ensure_ascii=False) + "\n" for prompt in prompts)


def _plain_lines(path: Path) -> list[str]:
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeProblem(f"prompt file {path} is not UTF-8 text: save it as UTF-8") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise RecipeProblem(f"prompt file {path} is no whole gzip file: {error}") from error
    except OSError as error:
        raise RecipeProblem(f"prompt file {path} cannot be read: {error.strerror}") from error
    if "\0" in text:
        raise RecipeProblem(f"prompt file {path} is a binary file: a prompt file is UTF-8 text, one prompt a line")
    # Not splitlines(): a text may hold line separators that are no ends of lines in JSON.
    return text.split("\n")


def _write_text(path: Path, lines: str) -> None:
    path.write_text(lines, encoding="utf-8")


def _write_packed(path: Path, lines: str) -> None:
    path.write_bytes(gzip.compress(lines.encode(), 9, mtime=0))  # Without a time: the same prompts give the same bytes.


Lines = Callable[[Path], list[str]]
Write = Callable[[Path, str], None]
_FORMATS: dict[str, tuple[Lines, Write | None]] = {
    ".jsonl": (_plain_lines, _write_text),
    ".jsonl.gz": (_plain_lines, _write_packed),
    ".parquet": (read_table, write_table),
    ".txt": (_plain_lines, None),
}


def _format(path: Path) -> tuple[Lines, Write | None]:
    if found := _FORMATS.get(_suffix(path)):
        return found
    raise RecipeProblem(
        f"{path} is no prompt file: it should end in .jsonl (an object a line; also .jsonl.gz), .parquet or .txt "
        "(a text a line)"
    )


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
