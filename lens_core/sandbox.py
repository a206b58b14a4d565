"""The language that templates of users' files are written in: a part of Jinja in which everything ends.

A template reads the values it is given, decides, repeats over lists, and writes text. It calls nothing, defines
nothing, opens no file, and sees no attribute of a Python object. What is left is bounded by counting, with no clock
and no thread: whatever an operation takes in or gives out is paid for from a budget, one unit a character, item or
step, before a loop is entered and before a text is made longer. So the same template on the same values is always
either finished or refused.
"""

from collections.abc import Mapping
from typing import Any

from jinja2 import StrictUndefined, Undefined, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS
from jinja2.visitor import NodeTransformer

from lens_core.filters import FILTERS
from lens_core.meter import meter, paid_for, size
from lens_core.recipes import nearest

LONGEST_SOURCE = 50_000
"""Characters of a template; a limit for the parser, which no budget watches."""
LOOP_FIELDS = frozenset({"index", "index0", "revindex", "revindex0", "first", "last", "length", "previtem", "nextitem"})
SIZED, JOINED, STEPS, REACHED = " sized", " joined", " steps", " reached"
"""Filters that the sandbox itself puts into a template; with a space before them nobody can write them."""


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja with nothing to call and nothing to reach; `compiled` is the way in."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%"})

    def __init__(self) -> None:
        super().__init__(
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # the optimizer would work out constants while loading, where nobody counts
            finalize=_written,
        )
        self.globals.clear()
        self.filters = {name: paid_for(function) for name, function in FILTERS.items()} | {
            SIZED: _sized,
            JOINED: _joined,
            STEPS: _steps,
            REACHED: _reached,
        }
        self.tests = {name: paid_for(TESTS[name]) for name in sorted(TESTS.keys() - _NO_TESTS)}

    def getattr(self, obj: Any, attribute: str) -> Any:
        """A field of a table, or of `loop`; there is no way to an attribute of anything else."""
        if isinstance(obj, LoopContext) and attribute in LOOP_FIELDS:
            return getattr(obj, attribute)
        if isinstance(obj, Mapping | Undefined):
            return self.getitem(obj, attribute)
        kind = "loop" if isinstance(obj, LoopContext) else type(obj).__name__
        raise SecurityError(f"access to attribute {attribute!r} of a {kind} is unsafe; filters do more, as in | upper")

    def getitem(self, obj: Any, argument: Any) -> Any:
        """An item of a table, a list or a text."""
        if isinstance(obj, list | tuple | str) and not isinstance(argument, int):
            raise SecurityError(f"access to {argument!r} of a {type(obj).__name__} is unsafe: its items have numbers")
        if not isinstance(obj, Mapping | list | tuple | str | Undefined):
            raise SecurityError(f"access to {argument!r} of a {type(obj).__name__} is unsafe")
        try:
            return obj[argument]
        except (TypeError, LookupError):
            return self.undefined(obj=obj, name=str(argument))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "*":
            meter.pay(_size_of_product(left, right))
        if operator == "%" and isinstance(left, str):
            raise SecurityError("% does not fill in text here: use ~ or the format filter")
        result = super().call_binop(context, operator, left, right)
        meter.pay(size(result))
        return result


def compiled(environment: Sandbox, tree: nodes.Template) -> Any:
    """A parsed template, made to count what it does. Raises SecurityError for what the sandbox does not do."""
    return environment.from_string(_Counting(environment).visit(tree))


class _Counting(NodeTransformer):
    """Refuses every node that is not known to be bounded, and lets the others pay."""

    def __init__(self, environment: Sandbox):
        self._environment = environment

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        if type(node) not in _ALLOWED:
            reason = _REFUSED.get(type(node), "is not part of what templates may do here")
            raise SecurityError(f"line {node.lineno}: {type(node).__name__} {reason}")
        return super().visit(node, *args, **kwargs)

    def visit_Name(self, node: nodes.Name) -> nodes.Node:
        if node.name == "self":
            raise SecurityError(f"line {node.lineno}: `self` is not reached from here")
        return node

    def visit_Const(self, node: nodes.Const) -> nodes.Node:
        size(node.value)
        return node

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:
        self._refuse_unknown(node, "filter", self._environment.filters)
        return self.generic_visit(node)

    def visit_Test(self, node: nodes.Test) -> nodes.Node:
        self._refuse_unknown(node, "test", self._environment.tests)
        return self.generic_visit(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes, lineno=node.lineno), JOINED)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = _filter(node.expr, SIZED)
        for operand in node.ops:
            operand.expr = _filter(operand.expr, SIZED)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        return _filter(node, SIZED) if isinstance(node.arg, nodes.Slice) else node

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return _filter(node, SIZED) if node.ctx == "load" else node

    def visit_List(self, node: nodes.List) -> nodes.Node:
        return _filter(self.generic_visit(node), SIZED)

    visit_Dict = visit_List

    def visit_For(self, node: nodes.For) -> nodes.Node:
        if node.recursive:
            raise SecurityError(f"line {node.lineno}: a loop does not call itself here")
        cost = sum(_cost_of(inner) for inner in (*node.body, *([node.test] if node.test else [])))
        self.generic_visit(node)
        node.iter = _filter(node.iter, STEPS, nodes.Const(cost, lineno=node.lineno))
        return node

    def _refuse_unknown(self, node: nodes.Filter | nodes.Test, kind: str, known: Mapping[str, Any]) -> None:
        if node.name not in known:
            names = [name for name in sorted(known) if name.isidentifier()]
            raise SecurityError(
                f"line {node.lineno}: there is no {kind} {node.name!r}{nearest(node.name, names)}; "
                f"there are: {', '.join(names)}"
            )
        if node.dyn_args is not None or node.dyn_kwargs is not None:
            raise SecurityError(f"line {node.lineno}: the arguments of a {kind} are written out, without *")


def _filter(node: Any, name: str, *arguments: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(arguments), [], None, None, lineno=node.lineno)


def _cost_of(node: nodes.Node) -> int:
    """What one pass over a part of a template costs: its nodes and the characters it writes as they stand."""
    text = len(node.data) if isinstance(node, nodes.TemplateData) else 0
    return 1 + text + sum(_cost_of(child) for child in node.iter_child_nodes())


@pass_context
def _written(_: Context, value: Any) -> Any:
    """Every value on its way into the text."""
    meter.pay(size(value))
    return value


def _sized(value: Any) -> Any:
    meter.pay(size(value))
    return value


def _joined(values: list[Any]) -> str:
    for value in values:
        meter.pay(size(value))
    return "".join(map(str, values))


def _steps(values: Any, cost: int) -> list[Any]:
    meter.pay(size(values))
    items = list(values)
    meter.pay(cost * len(items))
    return items


def _reached(value: Any, branch: int) -> Any:
    meter.reached.add(branch)
    return value


def _size_of_product(left: Any, right: Any) -> int:
    """Of a text or list repeated; 0 for numbers, whose product is looked at when it is there."""
    for value, times in ((left, right), (right, left)):
        if isinstance(value, str | list | tuple) and isinstance(times, int):
            return size(value) * max(times, 0)
    return 0


_NO_TESTS = {"callable", "escaped", "filter", "test", "sameas"}

_ALLOWED = frozenset({
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Assign, nodes.AssignBlock, nodes.With,
    nodes.Name, nodes.Const, nodes.Tuple, nodes.List, nodes.Dict, nodes.Pair, nodes.Keyword, nodes.CondExpr,
    nodes.Filter, nodes.Test, nodes.Getitem, nodes.Getattr, nodes.Slice, nodes.Concat, nodes.Compare, nodes.Operand,
    nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.And, nodes.Or, nodes.Not, nodes.Neg,
    nodes.Pos,
})  # fmt: skip

_NO_CALLS = "calls something; templates use filters, as in {{ text | upper }}"
_NO_FILES = "reads another template; put everything into this one"
_NO_MACROS = "defines something to call; write it out, or use {% set %}"
_REFUSED: dict[type[nodes.Node], str] = {
    nodes.Call: _NO_CALLS,
    nodes.CallBlock: _NO_CALLS,
    nodes.Include: _NO_FILES,
    nodes.Import: _NO_FILES,
    nodes.FromImport: _NO_FILES,
    nodes.Extends: _NO_FILES,
    nodes.Macro: _NO_MACROS,
    nodes.Block: _NO_MACROS,
    nodes.Pow: "takes a power; multiply, where you must",
    nodes.NSRef: "changes an object; {% set %} a name of your own",
}
