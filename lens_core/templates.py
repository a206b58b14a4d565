"""Jinja templates from files users write: sandboxed, strict, and known by a hash of their source."""

import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, TemplateError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment


class TemplateProblem(ValueError):
    """A template that does not parse, asks for a variable nobody gives, or reaches outside the sandbox."""


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    # Jinja's own tojson escapes for HTML; a language model should read the letters themselves.
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False, sort_keys=True)
    return environment


class Template:
    """One template: parsed at load, so that a mistake in it is found before any work is done.

    `where` names the template in error messages (a file, or a file and a field). With `variables`
    given, a template that asks for any other variable is refused.
    """

    def __init__(self, source: str, *, where: str, variables: Iterable[str] | None = None):
        self.source, self.where = source, where
        self.hash = hashlib.sha256(source.encode()).hexdigest()
        try:
            self.asks_for = frozenset(meta.find_undeclared_variables(_environment().parse(source)))
            self._template = _environment().from_string(source)
        except TemplateError as error:
            raise TemplateProblem(f"{where}: {error}") from error
        if variables is not None:
            known = set(variables)
            if unknown := sorted(self.asks_for - known):
                raise TemplateProblem(
                    f"{where}: unknown variable {', '.join(unknown)}; known here: {', '.join(sorted(known))}"
                )

    def render(self, **values: Any) -> str:
        """The text; raises TemplateProblem where a variable is missing or the sandbox says no."""
        try:
            return self._template.render(**values)
        except (TemplateError, TypeError, ArithmeticError) as error:
            raise TemplateProblem(f"{self.where}: {error}") from error


class Condition:
    """A yes/no expression over named values, such as `count + count2 <= 3`, in the same sandbox."""

    def __init__(self, source: str, *, where: str):
        self.source, self.where = source, where
        try:
            self._expression = _environment().compile_expression(source, undefined_to_none=False)
        except TemplateError as error:
            raise TemplateProblem(f"{where}: {error}") from error

    def __call__(self, **values: Any) -> bool:
        try:
            return bool(self._expression(**values))
        except (TemplateError, TypeError, ArithmeticError) as error:
            raise TemplateProblem(f"{self.where}: {error}") from error
