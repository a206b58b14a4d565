"""What a template may spend: characters, items and steps, counted before they are there."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from typing import Any

from jinja2 import Undefined
from jinja2.exceptions import SecurityError

BUDGET = 200_000
"""Units that one rendering may spend: tenths of a second at worst, a hundred times what a judge's message takes."""
LARGEST_NUMBER = 10**15


class Meter(threading.local):
    """What the rendering under way in this thread may still spend, and the marked branches that it reached."""

    def __init__(self) -> None:
        self.left = 0
        self.reached: set[int] = set()

    def pay(self, units: int) -> None:
        self.left -= units
        if self.left < 0:
            raise SecurityError(
                f"it takes more than {BUDGET:,} characters, items and steps: shorten its loops, lists or texts"
            )


meter = Meter()


def size(value: Any) -> int:
    """Characters and items of a value, counted through. Raises SecurityError for what is no plain data.

    A list that holds another list twice counts it twice, as writing it out would.
    """
    if isinstance(value, str):
        return len(value)
    if isinstance(value, int | float):  # bool is an int
        if isinstance(value, int) and abs(value) > LARGEST_NUMBER:
            raise SecurityError(f"a number is larger than {LARGEST_NUMBER:.0e}")
        return 1
    if value is None or isinstance(value, Undefined):
        return 1
    if isinstance(value, Mapping):
        return _size_of_all(value) + _size_of_all(value.values())
    if isinstance(value, list | tuple):
        return _size_of_all(value)
    raise SecurityError(f"a {type(value).__name__} is no text, number, list or table of them")


def _size_of_all(values: Iterable[Any]) -> int:
    total = 1
    for value in values:
        total += 1 + size(value)
        if total > BUDGET:
            raise SecurityError(f"a list or table holds more than {BUDGET:,} characters and items")
    return total


def paid_for(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter or test that pays for what it reads and what it gives; a lazy result is worked out here."""
    first = 1 if hasattr(function, "jinja_pass_arg") else 0

    @wraps(function)
    def paid(*args: Any, **kwargs: Any) -> Any:
        for value in (*args[first:], *kwargs.values()):
            meter.pay(size(value))
        result = function(*args, **kwargs)
        if isinstance(result, Iterator):
            result = list(result)
        meter.pay(size(result))
        return result

    return paid
