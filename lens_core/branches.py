"""Which branches of a template are ever reached: those of `{% if %}` and `{% for %}`, and of `a if b else c`."""

from dataclasses import dataclass

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

from lens_core.meter import meter
from lens_core.sandbox import REACHED
from lens_core.templates import Template


@dataclass(frozen=True, slots=True)
class Branch:
    """One way through a template. `line` counts from 1 within the template."""

    line: int
    what: str


class BranchWatch:
    """A template that remembers, over all its renderings, which of its branches were taken.

    Each branch is marked with a filter that does nothing but say that it was reached.
    """

    def __init__(self, source: str, *, where: str):
        marking = _Marking()
        self.template = Template(source, where=where, marked=marking.visit)
        self._branches = marking.branches
        self._reached: set[int] = set()

    def render(self, **values: object) -> str:
        meter.reached.clear()
        try:
            return self.template.render(**values)
        finally:
            self._reached |= meter.reached

    def unreached(self) -> list[Branch]:
        """The branches that no rendering has taken so far, in the order of the text."""
        return [branch for number, branch in enumerate(self._branches) if number not in self._reached]


class _Marking(NodeTransformer):
    def __init__(self) -> None:
        self.branches: list[Branch] = []

    def visit_If(self, node: nodes.If) -> nodes.Node:
        node.body.insert(0, self._mark(node.lineno, "the branch of {% if %} or {% elif %}"))
        if node.else_:
            node.else_.insert(0, self._mark(node.lineno, "the {% else %} of {% if %}"))
        return self.generic_visit(node)

    def visit_For(self, node: nodes.For) -> nodes.Node:
        node.body.insert(0, self._mark(node.lineno, "the body of {% for %}"))
        if node.else_:
            node.else_.insert(0, self._mark(node.lineno, "the {% else %} of {% for %}"))
        return self.generic_visit(node)

    def visit_CondExpr(self, node: nodes.CondExpr) -> nodes.Node:
        node.expr1 = self._marked(node.expr1, "the first value of `... if ... else ...`")
        if node.expr2 is not None:
            node.expr2 = self._marked(node.expr2, "the value after `else`")
        return self.generic_visit(node)

    def _mark(self, line: int, what: str) -> nodes.Output:
        return nodes.Output([self._marked(nodes.Const("", lineno=line), what)], lineno=line)

    def _marked(self, node: nodes.Expr, what: str) -> nodes.Filter:
        self.branches.append(Branch(node.lineno, what))
        number = nodes.Const(len(self.branches) - 1, lineno=node.lineno)
        return nodes.Filter(node, REACHED, [number], [], None, None, lineno=node.lineno)
