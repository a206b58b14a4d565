"""The filters of the sandbox: those of Jinja that are bounded by what they are given, and some of our own."""

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS as OF_JINJA

from lens_core.meter import meter


def _join(value: Iterable[Any], separator: str = "", attribute: str | None = None) -> str:
    texts = [str(item if attribute is None else item[attribute]) for item in value]
    meter.pay(sum(map(len, texts)) + len(separator) * len(texts))
    return separator.join(texts)


def _replace(value: str, old: str, new: str) -> str:
    meter.pay(value.count(old) * len(new))
    return value.replace(old, new)


def _format(text: str, *values: Any) -> str:
    """Text with %s, %d, %.3f and their like filled in; widths are of two digits, which bounds the result."""
    if "%" in _PLACEHOLDER.sub("", text):
        raise SecurityError(f"format: {text!r} has a placeholder that is not like %s, %5d or %.3f")
    return text % values


def _round(value: float, digits: int = 0) -> float:
    if not 0 <= digits <= 15:
        raise SecurityError(f"round: {digits} digits; 0 to 15 can be kept")
    return round(value, digits)


def _json(value: Any) -> str:
    """Jinja's own tojson escapes for HTML; a language model should read the letters themselves."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


_PLACEHOLDER = re.compile(r"%[-+ 0]?\d{0,2}(\.\d{1,2})?[sdfeg]|%%")

_BOUNDED = (
    "abs", "capitalize", "count", "d", "default", "dictsort", "first", "float", "int", "items", "last", "length",
    "list", "lower", "map", "max", "min", "reject", "rejectattr", "reverse", "select", "selectattr", "sort", "string",
    "title", "trim", "unique", "upper", "wordcount",
)  # fmt: skip
"""Jinja's filters whose result is about as long as what they are given."""

FILTERS: dict[str, Callable[..., Any]] = {name: OF_JINJA[name] for name in _BOUNDED} | {
    "format": _format,
    "join": _join,
    "replace": _replace,
    "round": _round,
    "sum": lambda values: sum(values),
    "thousands": lambda value: f"{value:,}",
    "tojson": _json,
}
