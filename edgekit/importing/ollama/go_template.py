"""The part of Go's text/template that Ollama's TEMPLATEs are usually written in, rendered for a few messages.

It is there to find out whether a TEMPLATE writes the prompt that a base's own chat template writes.  What it doesn't
know (templates in templates, methods, other functions) it refuses with :class:`NotKnown`, and nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MOST_ACTIONS = 2000
_ACTION = re.compile(r"\{\{(-\s)?(.*?)(\s-)?\}\}", re.DOTALL)
_TOKEN = re.compile(
    r'\s+|"(?:[^"\\]|\\.)*"|`[^`]*`|\$?[A-Za-z_]\w*|\$(?=[.\s)]|$)|\.[A-Za-z_]\w*|\.(?=[\s)]|$)|\d+|:=|=|[(),|]',
    re.DOTALL,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\"}


class NotKnown(Exception):
    """A template that uses more than is known here, or none that Go would take."""


class _Cut(Exception):
    """The place where the answer begins: what comes behind it is not part of a prompt."""


@dataclass
class _Node:
    """An action, or text between two."""

    kind: str
    tokens: list[str] = field(default_factory=list)
    text: str = ""
    body: list[_Node] = field(default_factory=list)
    otherwise: list[_Node] = field(default_factory=list)


def prompt_of(template: str, messages: Sequence[Mapping[str, str]]) -> str:
    """The prompt that Ollama makes of a conversation.

    Args:
        template: in Go's syntax.
        messages: ``role`` and ``content``; an answer stands between two questions, and the last one is a question.

    Raises:
        NotKnown: see there.
    """
    try:
        nodes = _parsed(template)
        if any(".Messages" in token for token in _tokens_in(nodes)):
            listed = [{"Role": each["role"], "Content": each["content"]} for each in messages]
            system = "\n\n".join(each["content"] for each in messages if each["role"] == "system")
            return _rendered(nodes, {"Messages": listed, "System": system, "Response": _Cut})
        return "".join(_rendered(nodes, turn) for turn in _turns(messages))
    except RecursionError:
        raise NotKnown("it is too deep") from None


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


def _tokens_in(nodes: Sequence[_Node]) -> Iterator[str]:
    for node in nodes:
        yield from node.tokens
        yield from _tokens_in(node.body)
        yield from _tokens_in(node.otherwise)


# Parsing.


def _parsed(template: str) -> list[_Node]:
    parts = list(_pieces(template))
    nodes, ended = _block(iter(parts))
    if ended:
        raise NotKnown(f"{ended} without a beginning")
    return nodes


def _pieces(template: str) -> Iterator[_Node]:
    at, trims = 0, False
    for count, found in enumerate(_ACTION.finditer(template)):
        if count > MOST_ACTIONS:
            raise NotKnown("it is too long")
        text = template[at : found.start()]
        text = text.lstrip() if trims else text
        yield _Node("text", text=text.rstrip() if found[1] else text)
        at, trims = found.end(), bool(found[3])
        inner = found[2].strip()
        if not inner.startswith("/*"):
            tokens = _tokens(inner)
            yield _Node(tokens[0] if tokens and tokens[0] in ("if", "else", "end", "range") else "value", tokens)
    yield _Node("text", text=template[at:].lstrip() if trims else template[at:])


def _tokens(text: str) -> list[str]:
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise NotKnown(f"{text[at : at + 20]!r}")
        found += [] if match[0].isspace() else [match[0]]
        at = match.end()
    return found


def _block(parts: Iterator[_Node]) -> tuple[list[_Node], str]:
    """Nodes up to an ``else`` or ``end``, and which of them it was."""
    nodes: list[_Node] = []
    for node in parts:
        if node.kind in ("else", "end"):
            return nodes, " ".join(node.tokens)
        if node.kind in ("if", "range"):
            _fill(node, parts)
        nodes.append(node)
    return nodes, ""


def _fill(node: _Node, parts: Iterator[_Node]) -> None:
    node.body, ended = _block(parts)
    if ended == "else":
        node.otherwise, ended = _block(parts)
    elif ended.startswith("else if "):
        inner = _Node("if", _tokens(ended.removeprefix("else ")))
        _fill(inner, parts)
        node.otherwise, ended = [inner], "end"
    if ended != "end":
        raise NotKnown(f"{node.kind} without an end")


# Rendering.


def _rendered(nodes: Sequence[_Node], data: Mapping[str, Any]) -> str:
    out: list[str] = []
    try:
        _write(nodes, data, {"$": data}, out)
    except _Cut:
        pass
    return "".join(out)


def _write(nodes: Sequence[_Node], dot: Any, names: dict[str, Any], out: list[str]) -> None:
    for node in nodes:
        if node.kind == "text":
            out.append(node.text)
        elif node.kind == "if":
            _write(
                node.body if _is_true(_value(node.tokens[1:], dot, names)) else node.otherwise, dot, dict(names), out
            )
        elif node.kind == "range":
            _loop(node, dot, names, out)
        elif len(node.tokens) > 2 and node.tokens[1] in (":=", "="):
            names[node.tokens[0]] = _value(node.tokens[2:], dot, names)
        else:
            value = _value(node.tokens, dot, names)
            if value is _Cut:
                raise _Cut
            if not isinstance(value, str | int | None):
                raise NotKnown("a list is written")
            out.append("" if value is None else str(value))


def _loop(node: _Node, dot: Any, names: dict[str, Any], out: list[str]) -> None:
    tokens, variables = node.tokens[1:], []
    if ":=" in tokens:
        at = tokens.index(":=")
        variables, tokens = [each for each in tokens[:at] if each != ","], tokens[at + 1 :]
    items = _value(tokens, dot, names)
    if items is not None and not isinstance(items, list):
        raise NotKnown("a loop over something else than messages")
    for number, item in enumerate(items or ()):
        own = [number, item] if len(variables) == 2 else [item]
        _write(node.body, item, {**names, **dict(zip(variables, own, strict=False))}, out)
    if not items:
        _write(node.otherwise, dot, dict(names), out)


def _value(tokens: Sequence[str], dot: Any, names: Mapping[str, Any]) -> Any:
    value, at = _call(tokens, 0, dot, names)
    if at != len(tokens):
        raise NotKnown(" ".join(tokens[at : at + 3]))
    return value


def _call(tokens: Sequence[str], at: int, dot: Any, names: Mapping[str, Any]) -> tuple[Any, int]:
    """A function with its arguments, or one value."""
    if at >= len(tokens):
        raise NotKnown("an action without a value")
    function = _FUNCTIONS.get(tokens[at])
    if function is None:
        return _operand(tokens, at, dot, names)
    arguments, at = [], at + 1
    while at < len(tokens) and tokens[at] != ")":
        value, at = _operand(tokens, at, dot, names)
        arguments.append(value)
    try:
        return function(*arguments), at
    except (TypeError, ValueError, IndexError):
        raise NotKnown(f"{tokens[at - 1]} with such arguments") from None


def _operand(tokens: Sequence[str], at: int, dot: Any, names: Mapping[str, Any]) -> tuple[Any, int]:
    token, at = tokens[at], at + 1
    if token == "(":
        value, at = _call(tokens, at, dot, names)
        if at >= len(tokens) or tokens[at] != ")":
            raise NotKnown("a bracket is open")
        return _fields(value, tokens, at + 1)
    if token.startswith(('"', "`")):
        return _text(token), at
    if token.isdigit():
        return int(token), at
    if token in ("true", "false"):
        return token == "true", at
    if token == ".":
        return dot, at
    if token.startswith("."):
        return _fields(_field(dot, token), tokens, at)
    if token.startswith("$") and token in names:
        return _fields(names[token], tokens, at)
    raise NotKnown(token)


def _fields(value: Any, tokens: Sequence[str], at: int) -> tuple[Any, int]:
    while at < len(tokens) and tokens[at].startswith(".") and len(tokens[at]) > 1:
        value, at = _field(value, tokens[at]), at + 1
    return value, at


def _field(value: Any, token: str) -> Any:
    """A field that there is; one that Ollama has and a plain conversation hasn't is empty."""
    if not isinstance(value, Mapping):
        raise NotKnown(f"{token} of something without fields")
    return value.get(token[1:])


def _text(token: str) -> str:
    if token.startswith("`"):
        return token[1:-1]
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[0]), token[1:-1], flags=re.DOTALL)


def _is_true(value: Any) -> bool:
    return value is _Cut or bool(value)


def _first(stops: bool, *values: Any) -> Any:
    """Go's ``or`` (which stops at what is true) and ``and``."""
    return next((each for each in values if _is_true(each) == stops), values[-1])


_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "eq": lambda one, *others: one in others,
    "ne": lambda one, other: one != other,
    "not": lambda value: not _is_true(value),
    "and": lambda *values: _first(False, *values),
    "or": lambda *values: _first(True, *values),
    "len": lambda value: len(value or ()),
    "slice": lambda value, start, *end: value[start : end[0] if end else None],
    "lt": lambda one, other: one < other,
    "le": lambda one, other: one <= other,
    "gt": lambda one, other: one > other,
    "ge": lambda one, other: one >= other,
}
