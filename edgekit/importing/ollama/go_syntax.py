"""The syntax of Go's text/template: text and actions, blocks within blocks."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

MOST_ACTIONS = 2000
OPEN, CLOSE = "{{", "}}"
_TRIMS_BEFORE, _TRIMS_BEHIND = re.compile(r"-(?=\s)"), re.compile(r"(?<=\s)-$")
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
    for count in itertools.count():
        begin = template.find(OPEN, at)
        text = template[at:] if begin < 0 else template[at:begin]
        text = text.lstrip() if trims else text
        if begin < 0:
            yield Node("text", text=text)
            return
        end = template.find(CLOSE, begin)
        if end < 0 or count > MOST_ACTIONS:
            raise NotKnown("an action is open" if end < 0 else "it is too long")
        inner, at = template[begin + len(OPEN) : end], end + len(CLOSE)
        yield Node("text", text=text.rstrip() if _TRIMS_BEFORE.match(inner) else text)
        trims = _TRIMS_BEHIND.search(inner) is not None
        inner = _TRIMS_BEHIND.sub("", _TRIMS_BEFORE.sub("", inner)).strip()
        if not inner.startswith("/*"):
            tokens = _tokens(inner)
            yield Node(tokens[0] if tokens and tokens[0] in ("if", "else", "end", "range") else "value", tokens)


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
