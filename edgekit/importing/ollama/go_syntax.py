"""The syntax of Go's text/template: text and actions, blocks within blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

MOST_ACTIONS = 2000
_ACTION = re.compile(r"\{\{(-\s)?(.*?)(\s-)?\}\}", re.DOTALL)
_FIELDS = r"(?:\.[A-Za-z_]\w*)"
_TOKEN = re.compile(
    rf'\s+|"(?:[^"\\]|\\.)*"|`[^`]*`|[A-Za-z_]\w*|\$\w*{_FIELDS}*|{_FIELDS}+|\.|\d+|:=|=|[(,]|\){_FIELDS}*', re.DOTALL
)


class NotKnown(Exception):
    """A template that uses more than is known here, or none that Go would take."""


@dataclass
class Node:
    """An action, or text between two."""

    kind: str
    tokens: list[str] = field(default_factory=list)
    text: str = ""
    body: list[Node] = field(default_factory=list)
    otherwise: list[Node] = field(default_factory=list)


def parsed(template: str) -> list[Node]:
    """Actions and texts of a template.

    Raises:
        NotKnown: it is none.
    """
    parts = list(_pieces(template))
    nodes, ended = _block(iter(parts))
    if ended:
        raise NotKnown(f"{ended} without a beginning")
    return nodes


def _pieces(template: str) -> Iterator[Node]:
    at, trims = 0, False
    for count, found in enumerate(_ACTION.finditer(template)):
        if count > MOST_ACTIONS:
            raise NotKnown("it is too long")
        text = template[at : found.start()]
        text = text.lstrip() if trims else text
        yield _text_node(text.rstrip() if found[1] else text)
        at, trims = found.end(), bool(found[3])
        inner = found[2].strip()
        if not inner.startswith("/*"):
            tokens = _tokens(inner)
            yield Node(tokens[0] if tokens and tokens[0] in ("if", "else", "end", "range") else "value", tokens)
    yield _text_node(template[at:].lstrip() if trims else template[at:])


def _text_node(text: str) -> Node:
    if "{{" in text:
        raise NotKnown("an action is open")
    return Node("text", text=text)


def _tokens(text: str) -> list[str]:
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise NotKnown(f"{text[at : at + 20]!r}")
        found += [] if match[0].isspace() else [match[0]]
        at = match.end()
    return found


def _block(parts: Iterator[Node]) -> tuple[list[Node], str]:
    """Nodes up to an ``else`` or ``end``, and which of them it was."""
    nodes: list[Node] = []
    for node in parts:
        if node.kind in ("else", "end"):
            return nodes, " ".join(node.tokens)
        if node.kind in ("if", "range"):
            _fill(node, parts)
        nodes.append(node)
    return nodes, ""


def _fill(node: Node, parts: Iterator[Node]) -> None:
    node.body, ended = _block(parts)
    if ended == "else":
        node.otherwise, ended = _block(parts)
    elif ended.startswith("else if "):
        inner = Node("if", _tokens(ended.removeprefix("else ")))
        _fill(inner, parts)
        node.otherwise, ended = [inner], "end"
    if ended != "end":
        raise NotKnown(f"{node.kind} without an end")


def tokens_in(nodes: Sequence[Node]) -> Iterator[str]:
    """All that stands in actions."""
    for node in nodes:
        yield from node.tokens
        yield from tokens_in(node.body)
        yield from tokens_in(node.otherwise)
