"""Strict YAML recipes: a typo is an error that names the file, the line and the nearest field.

A recipe is a YAML file read into a frozen pydantic model. `--set a.b=c` overrides one field; its
value is read as YAML, so `--set optimizer.lr=3e-4` gives a number and `--set steps=twelve` an error;
`python: file.py:Class` is read as text.
"""

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

try:  # The C parser reads the large trees eight times faster.
    from yaml import CSafeLoader as SafeLoader
except ImportError:
    from yaml import SafeLoader

Model = TypeVar("Model", bound=BaseModel)
Path_ = tuple[str | int, ...]

MOST_FIELDS = 200_000
OWN_CLASS = "python:"
"""How the value of a field begins that names a class of the user's own; see `lens_core.doors`."""


class RecipeProblem(ValueError):
    """A recipe that cannot be used: says which field of which file, and what would do."""


class Strict(BaseModel):
    """Base of every recipe section: unknown fields refused, no silent conversion, frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def load_recipe(model: type[Model], path: Path, overrides: Iterable[str] = ()) -> Model:
    """Read `path` into `model`, with `a.b=c` overrides on top.

    Raises RecipeProblem for a file that is not YAML, and for every unknown, missing or ill-typed
    field at once, each with its line (or the override it came from) and a fix.
    """
    data, lines = _read_yaml(path)
    origin: dict[Path_, str] = {keys: f"{path}:{line}" for keys, line in lines.items()}
    _override(data, origin, overrides, "--set")
    return _validate(model, data, origin, str(path))


def recipe_of(model: type[Model], overrides: Iterable[str], flag: str) -> Model:
    """A recipe of `a=b` alone, given under `flag` on the command line; what is not given has its default."""
    data: dict[str, Any] = {}
    origin: dict[Path_, str] = {}
    _override(data, origin, overrides, flag)
    return _validate(model, data, origin, flag)


def field_lines(path: Path) -> dict[Path_, int]:
    """The line of every field of a YAML file, by the keys that lead to it. Raises RecipeProblem as `load_recipe`."""
    return _read_yaml(path)[1]


def read_recipe(model: type[Model], text: str, where: str) -> Model:
    """The same for a recipe already in memory, such as the resolved one of a run folder."""
    return _validate(model, yaml.load(text, Loader=_Loader), {}, where)


def dump_recipe(recipe: BaseModel) -> str:
    """The resolved recipe as YAML that `load_recipe` reads back to an equal one."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def find_recipe(name: str, folder: Path, *, what: str = "recipe") -> Path:
    """A file by name (one of `folder`'s) or by path. Raises RecipeProblem with the nearest name."""
    if name.endswith((".yaml", ".yml")) or "/" in name:
        path = Path(name)
        if path.is_file():
            return path
        raise RecipeProblem(f"{what} file {name} does not exist")
    names = sorted(file.stem for file in folder.glob("*.yaml"))
    if name in names:
        return folder / f"{name}.yaml"
    raise RecipeProblem(f"unknown {what} {name!r}{nearest(name, names)}; there are: {', '.join(names)}")


def nearest(word: str, words: Iterable[str]) -> str:
    """` (did you mean 'x'?)`, or nothing where no word is near."""
    near = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""


class _Loader(SafeLoader):  # pyright: ignore[reportGeneralTypeIssues]  (one of two classes)
    """YAML without its two surprises: `3e-4` is a number, and a key given twice is an error."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _read_yaml(path: Path) -> tuple[dict[str, Any], dict[Path_, int]]:
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=_Loader)
        lines = dict(_few(_lines(node, (), path), path)) if node else {}
        data = yaml.load(text, Loader=_Loader) if node else {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeProblem(f"{path} is not a YAML recipe: {error}") from error
    except OSError as error:
        raise RecipeProblem(f"{path} cannot be read: {error.strerror}") from error
    if not isinstance(data, dict):
        raise RecipeProblem(f"{path} must be a mapping of fields, not a {type(data).__name__}")
    return data, lines


def _lines(node: yaml.Node, keys: Path_, path: Path) -> Iterable[tuple[Path_, int]]:
    """The line of every field; refuses a key that stands twice in one mapping."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                raise RecipeProblem(f"{path}:{line}: field {key.value!r} is given twice")
            seen.add(key.value)
            yield (*keys, key.value), line
            yield from _lines(value, (*keys, key.value), path)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*keys, index), value.start_mark.line + 1
            yield from _lines(value, (*keys, index), path)


def _override(data: dict[str, Any], origin: dict[Path_, str], overrides: Iterable[str], flag: str) -> None:
    for override in overrides:
        keys, value = _parse_override(override, flag)
        _put(data, keys, value, f"{flag} {override}")
        origin[keys] = f"{flag} {override}"


def _few(fields: Iterable[tuple[Path_, int]], path: Path) -> Iterable[tuple[Path_, int]]:
    """Ends a file that a few anchors make endless."""
    for number, field in enumerate(fields):
        if number > MOST_FIELDS:
            raise RecipeProblem(f"{path} has more than {MOST_FIELDS:,} fields, its anchors written out")
        yield field


def _parse_override(override: str, flag: str) -> tuple[tuple[str, ...], Any]:
    name, equals, text = override.partition("=")
    if not equals or not name.strip():
        example = "optimizer.lr=3e-4" if flag == "--set" else "field=value"
        raise RecipeProblem(f"{flag} {override}: write it as field=value, for example {flag} {example}")
    keys = tuple(name.strip().split("."))
    if text.strip().startswith(OWN_CLASS):
        return keys, text.strip()  # YAML would take it for a mapping
    try:
        return keys, yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise RecipeProblem(f"{flag} {override}: the value is not YAML: {error}") from error


def _put(data: dict[str, Any], keys: Sequence[str], value: Any, override: str) -> None:
    *parents, last = keys
    for depth, key in enumerate(parents):
        data = data.setdefault(key, {})
        if not isinstance(data, dict):
            raise RecipeProblem(f"{override}: {'.'.join(keys[: depth + 1])} has no fields inside")
    data[last] = value


def _validate(model: type[Model], data: Any, origin: dict[Path_, str], where: str) -> Model:
    try:
        # JSON mode: strict about types, yet a YAML list may fill a tuple and a string a path.
        return model.model_validate_json(json.dumps(data, default=str))
    except ValidationError as error:
        items = [dict(item) for item in error.errors()]
        problems = [_describe(model, item, origin, where) for item in items if not _follows(item, items)]
        raise RecipeProblem("\n".join(problems)) from error


def _follows(item: dict[str, Any], others: Iterable[dict[str, Any]]) -> bool:
    """Whether a list is called too short only because what is in it is wrong."""
    keys = item["loc"]
    return item["type"] == "too_short" and any(
        len(other["loc"]) > len(keys) and other["loc"][: len(keys)] == keys for other in others
    )


def _describe(model: type[BaseModel], item: dict[str, Any], origin: dict[Path_, str], where: str) -> str:
    keys: Path_ = tuple(item["loc"])
    place = next((origin[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in origin), where)
    if item["type"] == "value_error" and place.startswith("--set"):
        place = place.partition("=")[0]  # the value may be a key in the wrong place; the message says what it may
    field = ".".join(map(str, keys)) or "recipe"
    if item["type"] == "extra_forbidden":
        fields = sorted(_fields(model, keys[:-1]))
        hint = nearest(str(keys[-1]), fields) or f"; the fields here are: {', '.join(fields)}"
        return f"{place}: unknown field {field!r}{hint}"
    if item["type"] == "missing":
        return f"{place}: field {field!r} is missing"
    got = "" if item["type"] == "value_error" else f" (got {item['input']!r})"
    return f"{place}: {field}: {item['msg'].removeprefix('Value error, ')}{got}"


def _fields(model: type[BaseModel], keys: Path_) -> set[str]:
    """Field names of the section at `keys`, through lists, tuples, unions and dicts of sections."""
    sections: list[Any] = [model]
    for key in keys:
        inner = []
        for section in sections:
            if get_origin(section) is dict:
                inner.append(get_args(section)[1])
                continue
            for kind in _models(section):
                field = _by_key(kind).get(str(key))
                inner += [field.annotation] if field else [kind] * (isinstance(key, int) or _is_tag(kind, key))
        sections = inner
    return {name for section in sections for kind in _models(section) for name in _by_key(kind)}


def _by_key(kind: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields by the key that a file writes, which need not be a Python name."""
    return {field.alias or name: field for name, field in kind.model_fields.items()}


def _is_tag(kind: type[BaseModel], key: str | int) -> bool:
    """pydantic names the chosen member of a tagged union in the path; it is no field."""
    return any(key in get_args(field.annotation) for field in kind.model_fields.values())


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]
