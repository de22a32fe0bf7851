"""The part of Go's text/template that Ollama's TEMPLATEs are usually written in, rendered for a few messages.

It is there to find out whether a TEMPLATE writes the prompt that a base's own chat template writes.  What it doesn't
know (templates in templates, methods, other functions) it refuses with :class:`NotKnown`, and nothing is guessed.
"""

from __future__ import annotations

import contextlib
import re
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from edgekit.importing.ollama.go_syntax import Node, NotKnown, parsed, tokens_in

MESSAGES, RESPONSE = ".Messages", ".Response"  # Ollama appends the latter where a template has neither
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\"}


Names = ChainMap[str, Any]  # variables, those of the innermost block first


class _Leave(Exception):
    """``break`` or ``continue`` of a loop."""


class _Cut(Exception):
    """The place where the answer begins: what comes behind it is not part of a prompt."""


def prompt_of(template: str, messages: Sequence[Mapping[str, str]]) -> str:
    """The prompt that Ollama makes of a conversation.

    Args:
        template: in Go's syntax.
        messages: ``role`` and ``content``; an answer stands between two questions, and the last one is a question.

    Raises:
        NotKnown: see there.
    """
    try:
        nodes = parsed(template)
        if any(MESSAGES in each for each in tokens_in(nodes)):
            listed = [{"Role": each["role"], "Content": each["content"]} for each in messages]
            system = "\n\n".join(each["content"] for each in messages if each["role"] == "system")
            return _rendered(nodes, {"Messages": listed, "System": system, "Response": ""})
        if not any(RESPONSE in each for each in tokens_in(nodes)):
            nodes.append(Node("value", [RESPONSE]))
        return "".join(_rendered(nodes, turn) for turn in _turns(messages))
    except RecursionError:
        raise NotKnown("it is too deep") from None
    except _Leave as leave:
        raise NotKnown(f"{leave} outside of a loop") from None


def _turns(messages: Sequence[Mapping[str, str]]) -> Iterator[dict[str, Any]]:
    """What a template without a loop is rendered with, one after another."""
    turn: dict[str, Any] = {}
    for each in messages:
        if each["role"] == "assistant":
            yield turn | {"Response": each["content"]}
            turn = {}
        else:
            turn["System" if each["role"] == "system" else "Prompt"] = each["content"]
    yield turn | {"Response": _Cut}


# Rendering.


def _rendered(nodes: Sequence[Node], data: Mapping[str, Any]) -> str:
    out: list[str] = []
    with contextlib.suppress(_Cut):
        _write(nodes, data, ChainMap({"$": data}), out)
    return "".join(out)


def _write(nodes: Sequence[Node], dot: Any, names: Names, out: list[str]) -> None:
    for node in nodes:
        if node.kind == "text":
            out.append(node.text)
        elif node.kind == "if":
            holds = _is_true(_value(node.tokens[1:], dot, names))
            _write(node.body if holds else node.otherwise, dot, names.new_child(), out)
        elif node.kind == "range":
            _loop(node, dot, names, out)
        elif node.tokens in (["break"], ["continue"]):
            raise _Leave(node.tokens[0])
        elif len(node.tokens) > 2 and node.tokens[1] in (":=", "="):
            _set(node.tokens, dot, names)
        else:
            value = _value(node.tokens, dot, names)
            if value is _Cut:
                raise _Cut
            if not isinstance(value, str | int | None) or isinstance(value, bool):
                raise NotKnown("something else than a text is written")
            out.append("" if value is None else str(value))


def _set(tokens: Sequence[str], dot: Any, names: Names) -> None:
    """A variable: a new one of this block, or one that there is."""
    name, value = tokens[0], _value(tokens[2:], dot, names)
    scope = names.maps[0] if tokens[1] == ":=" else next((each for each in names.maps if name in each), None)
    if scope is None or not name.startswith("$"):
        raise NotKnown(name)
    scope[name] = value


def _loop(node: Node, dot: Any, names: Names, out: list[str]) -> None:
    tokens, variables = node.tokens[1:], []
    if ":=" in tokens:
        at = tokens.index(":=")
        variables, tokens = [each for each in tokens[:at] if each != ","], tokens[at + 1 :]
    items = _value(tokens, dot, names)
    if items is not None and not isinstance(items, list):
        raise NotKnown("a loop over something else than messages")
    for number, item in enumerate(items or ()):
        own = [number, item] if len(variables) == 2 else [item]
        try:
            _write(node.body, item, names.new_child(dict(zip(variables, own, strict=False))), out)
        except _Leave as leave:
            if str(leave) == "break":
                break
    if not items:
        _write(node.otherwise, dot, names.new_child(), out)


def _value(tokens: Sequence[str], dot: Any, names: Names) -> Any:
    value, at = _call(tokens, 0, dot, names)
    if at != len(tokens):
        raise NotKnown(" ".join(tokens[at : at + 3]))
    return value


def _call(tokens: Sequence[str], at: int, dot: Any, names: Names) -> tuple[Any, int]:
    """A function with its arguments, or one value."""
    if at >= len(tokens):
        raise NotKnown("an action without a value")
    function = _FUNCTIONS.get(tokens[at])
    if function is None:
        return _operand(tokens, at, dot, names)
    arguments, at = [], at + 1
    while at < len(tokens) and not tokens[at].startswith(")"):
        value, at = _operand(tokens, at, dot, names)
        arguments.append(value)
    try:
        return function(*arguments), at
    except (TypeError, ValueError, IndexError):
        raise NotKnown(f"{tokens[at - 1]} with such arguments") from None


def _operand(tokens: Sequence[str], at: int, dot: Any, names: Names) -> tuple[Any, int]:
    token, at = tokens[at], at + 1
    if token == "(":
        value, at = _call(tokens, at, dot, names)
        if at >= len(tokens) or not tokens[at].startswith(")"):
            raise NotKnown("a bracket is open")
        return _fields(value, tokens[at][1:]), at + 1
    if token.startswith(('"', "`")):
        return _text(token), at
    if token.isdigit():
        return int(token), at
    if token in ("true", "false"):
        return token == "true", at
    if token.startswith("."):
        return _fields(dot, token), at
    name, _, path = token.partition(".")
    if token.startswith("$") and name in names:
        return _fields(names[name], f".{path}"), at
    raise NotKnown(token)


def _fields(value: Any, path: str) -> Any:
    """``.A.B`` of a value; a field that Ollama has and a plain conversation hasn't is empty."""
    for name in filter(None, path.split(".")):
        if not isinstance(value, Mapping):
            raise NotKnown(f"{name} of something without fields")
        value = value.get(name)
    return value


def _text(token: str) -> str:
    if token.startswith("`"):
        return token[1:-1]
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[0]), token[1:-1], flags=re.DOTALL)


def _is_true(value: Any) -> bool:
    if value is _Cut:
        raise _Cut
    return bool(value)


def _first(stops: bool, *values: Any) -> Any:
    """Go's ``or`` (which stops at what is true) and ``and``."""
    return next((each for each in values if _is_true(each) == stops), values[-1])


def _printf(form: str, *values: str) -> str:
    if form.count("%") != form.count("%s") or not all(isinstance(each, str) for each in values):
        raise ValueError("more than texts")
    return form % values


_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "eq": lambda one, *others: one in others,
    "ne": lambda one, other: one != other,
    "not": lambda value: not _is_true(value),
    "and": lambda *values: _first(False, *values),
    "or": lambda *values: _first(True, *values),
    "printf": _printf,
    "len": lambda value: len(value or ()),
    "slice": lambda value, start, *end: value[start : end[0] if end else None],
    "lt": lambda one, other: one < other,
    "le": lambda one, other: one <= other,
    "gt": lambda one, other: one > other,
    "ge": lambda one, other: one >= other,
}
