"""Jinja set up as transformers sets it up (``transformers.utils.chat_template_utils``), within a budget.

Templates run in jinja's immutable sandbox.  What jinja compiles goes through gates that spend the budget: loops, calls,
operators, filters, tests, comparisons of values, lists, and all that is written.  The text is what it is without them.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn, TypeVar

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import LoopContext, markup_join, str_join
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, pass_context, pass_eval_context
from jinja2.visitor import NodeTransformer

from edgekit_runtime.prompts.budget import LONGEST_SOURCE, OverBudget, current, spending
from edgekit_runtime.prompts.gates import check_method, check_operation, gated

# Filters of ours: a template can't name them.
_COUNTED, _MEASURED, _MADE, _JOINED = " counted", " measured", " made", " joined"
_FEW = 16  # constants of a list that is not looked at
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_Node = TypeVar("_Node", bound=nodes.Node)
_LONGEST_LAYOUT = 1000  # of a date


class Compiled(NamedTuple):
    """A template that is rendered within ``spending()``.

    Attributes:
        template: it.
        variables: names that it reads and doesn't set itself.
        literals: texts that stand in its expressions.
    """

    template: jinja2.Template
    variables: set[str]
    literals: set[str]


def compiled(source: str, functions: dict[str, Callable[..., Any]]) -> Compiled:
    """Read a template.

    Args:
        source: its text.
        functions: more names that it has.

    Raises:
        jinja2.TemplateSyntaxError: it is no template.
        OverBudget: it is too long.
        Exception: whatever jinja and Python make of what is nested too deep, or stands where it can't.
    """
    if len(source) > LONGEST_SOURCE:
        raise OverBudget(f"is longer than {LONGEST_SOURCE} characters")
    environment = _environment()
    with spending():  # names are looked for with constants folded
        tree = environment.parse(source)
        variables = meta.find_undeclared_variables(tree)
        literals = {each.value for each in tree.find_all(nodes.Const) if isinstance(each.value, str)}
        return Compiled(environment.from_string(_Gates().visit(tree), functions), variables, literals)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        budget = current()
        check_operation(budget, operator, left, right)
        return budget.made(self.binop_table[operator](left, right))

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        budget = current()
        for each in (*args, *kwargs.values()):
            budget.size(each)
        method = getattr(__obj, "__wrapped__", __obj)  # the sandbox has its own str.format
        owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
        if isinstance(owner, str):
            args = check_method(budget, owner, name, args, kwargs)
        elif isinstance(owner, int) and name == "to_bytes":
            raise OverBudget("calls to_bytes(), which chat templates can't have here")
        elif isinstance(owner, (list, tuple, dict)):
            budget.size(owner)
        elif isinstance(__obj, LoopContext):
            args = tuple(budget.counted(each) for each in args)
        with budget.deeper():
            return budget.made(super().call(__context, __obj, *args, **kwargs))


class _Gates(NodeTransformer):
    """Puts gates around what jinja compiles to plain Python."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.iter = _gate(_COUNTED, node.iter)
        return node

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Node:  # noqa: N802
        return _like(node, nodes.MarkSafeIfAutoescape(nodes.Const(node.data)))

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _gate(_JOINED, *node.nodes)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        sides: list[Any] = [node, *node.ops]
        if sum(isinstance(each.expr, nodes.Const) for each in sides) < len(sides) - 1:
            for each in sides:
                each.expr = _measured(each.expr)
        return node

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.key = _measured(node.key)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            return node if node.ctx != "load" else _gate(_MADE, node)
        node.arg = _measured(node.arg)
        return node

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        return self._made(node, node.items)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        return self._made(node, [each for pair in node.items for each in (pair.key, pair.value)])

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        return node if node.ctx != "load" else self._made(node, node.items)

    def _made(self, node: nodes.Expr, items: list[nodes.Expr]) -> nodes.Node:
        if len(items) <= _FEW and all(isinstance(each, nodes.Const) for each in items):
            return node
        self.generic_visit(node)
        return _gate(_MADE, node)


def _gate(name: str, *given: Any) -> nodes.Filter:
    return _like(given[0], nodes.Filter(given[0], name, list(given[1:]), [], None, None))


def _measured(node: nodes.Expr) -> nodes.Expr:
    plain = isinstance(node, (nodes.Const, nodes.Add, nodes.Sub, nodes.Mul))
    return node if plain else _gate(_MEASURED, node)


def _like(old: nodes.Node, new: _Node) -> _Node:
    """A node in the place of another one."""
    new.environment = old.environment
    new.set_lineno(old.lineno, override=False)
    return new


def _measured_value(value: Any) -> Any:
    current().size(value)
    current().tick()
    return value


@pass_eval_context
def _joined(context: Any, *values: Any) -> Any:
    budget = current()
    budget.most(sum(map(budget.size, values)))
    return budget.made((markup_join if context.autoescape else str_join)(values))


@pass_context  # so that nothing is written at compile time
def _written(context: Any, value: Any) -> Any:
    current().put(value)
    return value


class _Generation(Extension):
    """``{% generation %}`` marks for trainers what the assistant says: its body is rendered, in a scope."""

    tags = {"generation"}  # noqa: RUF012 - so jinja reads it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Any) -> Any:
        return caller()


class _Dict:
    """``dict(…)`` without the class's attributes."""

    def __call__(self, *arguments: Any, **items: Any) -> dict[Any, Any]:
        return dict(*arguments, **items)

    def fromkeys(self, *arguments: Any) -> dict[Any, Any]:
        return dict.fromkeys(*arguments)


class _PlainNamespace(Namespace):
    """A namespace without names that begin with an underscore."""

    def __init__(*arguments: Any, **items: Any) -> None:
        self, given = arguments[0], arguments[1:]
        attributes = dict(*given, **items)
        for name in attributes:
            _check_name(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        Namespace.__setitem__(self, name, value)

    def __repr__(self) -> str:
        return "<Namespace>"  # what is in it may be itself


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"{name!r} begins with an underscore")


@functools.lru_cache(1)
def _environment() -> jinja2.Environment:
    environment = _Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, loopcontrols],
        optimized=False,
        finalize=_written,
    )
    environment.filters["tojson"] = _to_json
    tables: tuple[dict[str, Any], ...] = (environment.filters, environment.tests)
    for table in tables:
        table.update({name: gated(name, each) for name, each in table.items()})
    environment.filters |= {
        _COUNTED: lambda value: current().counted(value),
        _MEASURED: _measured_value,
        _MADE: lambda value: current().made(value),
        _JOINED: _joined,
    }
    environment.globals |= {"raise_exception": _refuse, "dict": _Dict(), "namespace": _PlainNamespace}
    del environment.globals["lipsum"]  # random text
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML, which no model was trained on."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def formatted(moment: Any, layout: str) -> str:
    """A date; the layout may not be long."""
    if len(layout) > _LONGEST_LAYOUT:
        raise OverBudget(f"asks for a date of more than {_LONGEST_LAYOUT} characters")
    return str(moment.strftime(layout))
