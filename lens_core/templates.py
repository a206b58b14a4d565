"""Jinja templates from files users write: strict, shut in and bounded, and known by a hash of their source.

What a template may do, and what keeps it from running for ever, is said in `lens_core.sandbox`.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.parser import Parser

from lens_core.meter import BUDGET, meter
from lens_core.recipes import nearest
from lens_core.sandbox import LONGEST_SOURCE, Sandbox, compiled


class TemplateProblem(ValueError):
    """A template that cannot be used: says where, and why."""


class UnknownVariable(TemplateProblem):
    """It asks for a variable that nobody gives."""


class Outside(TemplateProblem):
    """It does what the sandbox does not do, or more of it than the budget allows."""


@lru_cache(maxsize=1)
def _sandbox() -> Sandbox:
    return Sandbox()


class Template:
    """One template: parsed at load, so that a mistake in it is found before any work is done.

    `where` names the template in error messages (a file, or a file and a field). With `variables`
    given, a template that asks for any other variable is refused. `marked` may change the parsed
    template before it is compiled; see `lens_core.branches`.
    """

    def __init__(
        self,
        source: str,
        *,
        where: str,
        variables: Iterable[str] | None = None,
        marked: Callable[[nodes.Template], nodes.Template] = lambda tree: tree,
    ):
        self.source, self.where = source, where
        self.hash = hashlib.sha256(source.encode()).hexdigest()
        with _problems(where):
            _refuse_long(source)
            tree = marked(_sandbox().parse(source))
            self._template = compiled(_sandbox(), tree)
            self.asks_for = frozenset(meta.find_undeclared_variables(tree))
        _refuse_unknown(self.asks_for, variables, where)

    def render(self, **values: Any) -> str:
        """The text. Raises TemplateProblem where a variable is missing or the sandbox says no."""
        with _problems(self.where):
            meter.left = BUDGET
            return self._template.render(values)


class Condition:
    """A yes/no expression over named values, such as `count + count2 <= 3`, in the same sandbox."""

    def __init__(self, source: str, *, where: str, variables: Iterable[str] | None = None):
        self.source, self.where = source, where
        with _problems(where):
            _refuse_long(source)
            parser = Parser(_sandbox(), source, state="variable")
            expression = parser.parse_expression()
            if not parser.stream.eos:
                raise TemplateSyntaxError(f"what is {source!r}? A condition is one expression", 1)
            tree = nodes.Template([nodes.Assign(nodes.Name("holds", "store"), expression, lineno=1)], lineno=1)
            tree.set_environment(_sandbox())
            self._template = compiled(_sandbox(), tree)
            self.asks_for = frozenset(meta.find_undeclared_variables(tree))
        _refuse_unknown(self.asks_for, variables, where)

    def __call__(self, **values: Any) -> bool:
        with _problems(self.where):
            meter.left = BUDGET
            context = self._template.new_context(values)
            for _ in self._template.root_render_func(context):
                pass
            return bool(context.vars["holds"])


@contextmanager
def _problems(where: str) -> Iterator[None]:
    """Whatever a template does wrong, in loading or in rendering, is a TemplateProblem that says where."""
    try:
        yield
    except SecurityError as error:
        raise Outside(f"{where}: {error}") from error
    except TemplateSyntaxError as error:
        raise TemplateProblem(f"{where}: {error.message} (line {error.lineno})") from error
    except (RecursionError, MemoryError, SyntaxError, OverflowError) as error:
        raise Outside(f"{where}: it is nested too deep or holds too large a number ({error})") from error
    except (TemplateError, TypeError, ArithmeticError, ValueError, LookupError, AttributeError) as error:
        raise TemplateProblem(f"{where}: {error}") from error


def _refuse_long(source: str) -> None:
    if len(source) > LONGEST_SOURCE:
        raise SecurityError(f"it is {len(source):,} characters long; a template has at most {LONGEST_SOURCE:,}")


def _refuse_unknown(asked: Iterable[str], variables: Iterable[str] | None, where: str) -> None:
    if variables is None:
        return
    known = sorted(variables)
    if unknown := sorted(set(asked) - set(known)):
        hint = nearest(unknown[0], known)
        raise UnknownVariable(f"{where}: unknown variable {', '.join(unknown)}; known here: {', '.join(known)}{hint}")
