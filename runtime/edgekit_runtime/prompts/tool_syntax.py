"""How one call of a function is written, and read back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from edgekit_runtime.prompts.tool_arguments import read_bare, read_keywords, read_object, read_tagged

# Kinds of syntax: {"name": …, "arguments": {…}}, name and JSON, name(a=1), name{a:1}, <parameter=a>1</parameter>.
OBJECT, NAMED, KEYWORDS, BARE, TAGGED = "object", "named", "keywords", "bare", "tagged"
ID_SIGNS = 9  # Mistral's templates take ids of nine letters and digits alone; others take any
_NAME = re.compile(r"[\w.-]+")
_SPACE = re.compile(r"\s*")
Tools = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Call:
    """A call of a function: its name, its arguments as values, and its id where the model writes one."""

    name: str
    arguments: dict[str, Any]
    id: str | None = None

    def message_form(self, id: str | None = None) -> dict[str, Any]:
        """The same as an entry of ``tool_calls`` in a message, with an id of its own or this one."""
        named = self.id or id
        return {
            **({"id": named} if named else {}),
            "type": "function",
            "function": {"name": self.name, "arguments": self.arguments},
        }


@dataclass(frozen=True)
class CallSyntax:
    """How one call is written.

    Attributes:
        kind: one of ``object``, ``named``, ``keywords``, ``bare`` and ``tagged``.
        head: what stands before the name.
        middle: between name and arguments.
        foot: behind the arguments, up to the id where there is one.
        rest: behind the id.
        keys: of an object: where it has the name, the arguments, and the id (or none).
        constants: what else is in the object.
        marks: what stands around texts, and the words for null, true and false (``keywords``, ``bare``); or what stands
            before a name, behind it, and behind its value (``tagged``).
    """

    kind: str
    head: str = ""
    middle: str = ""
    foot: str = ""
    rest: str = ""
    keys: tuple[str, ...] = ()
    constants: Mapping[str, Any] = field(default_factory=dict)
    marks: tuple[str, ...] = ()

    def read(self, text: str, at: int, tools: Tools = ()) -> tuple[Call, int] | None:
        """The call that begins at ``at`` and where it ends; None where none does, whatever the text is."""
        try:
            return self._object(text, at) if self.kind == OBJECT else self._named(text, at, tools)
        except (ValueError, RecursionError):
            return None

    def _object(self, text: str, at: int) -> tuple[Call, int] | None:
        value, end = read_object(text, at)
        name_key, arguments_key, *id_key = self.keys
        left = dict(value)
        name, arguments = left.pop(name_key, None), left.pop(arguments_key, {})
        named = left.pop(id_key[0], None) if id_key else None
        known = all(key in self.constants and self.constants[key] == each for key, each in left.items())
        if not isinstance(name, str) or not name or not isinstance(arguments, dict) or not known:
            return None
        return Call(name, arguments, named if isinstance(named, str) and named else None), end

    def _named(self, text: str, at: int, tools: Tools) -> tuple[Call, int] | None:
        name = _NAME.match(text, at)
        if name is None:
            return None
        begin = loosely(text, name.end(), self.middle)
        if begin is None:
            return None
        if self.kind == NAMED:
            arguments, end = read_object(text, begin)
        elif self.kind == KEYWORDS:
            arguments, end = read_keywords(text, begin)
            end += 1
        elif self.kind == BARE:
            arguments, end = read_bare(text, begin, self.marks[0])
            end += 1
        else:
            before, between, behind = self.marks
            arguments, end = read_tagged(text, begin, (before, between, behind), texts_of(tools, name[0]))
        return Call(name[0], arguments), end

    def begins_like(self, text: str, at: int) -> bool:
        """Whether the text from ``at`` is the beginning of a call, or goes on from what stands before names."""
        return self.kind != OBJECT or _alike(text[at:], self.head)

    def may_go_on(self, text: str, at: int) -> bool:
        """Whether an answer that was cut off may have had a call at ``at``: name and what is around it are right."""
        begun = self._to_name.match(text, at)
        if begun is None:
            return self.begins_like(text, at) if self.kind == OBJECT else at == len(text)
        return begun.end() == len(text) or _alike(text[begun.end() :], self.middle)

    @cached_property
    def _to_name(self) -> re.Pattern[str]:
        """A call up to its name."""
        if self.kind != OBJECT:
            return _NAME
        return re.compile(rf'{_loose(self.head.removesuffix(chr(34)))}\s*"(?:[^"\\]|\\.)*')


def function_of(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """A function's description, in an envelope or without one."""
    function = tool.get("function", tool)
    return function if isinstance(function, Mapping) else {}


def texts_of(tools: Tools, name: str) -> frozenset[str]:
    """Arguments of a function that are texts."""
    found = next((function_of(each) for each in tools if function_of(each).get("name") == name), {})
    parameters = found.get("parameters")
    properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
    if not isinstance(properties, Mapping):
        return frozenset()
    return frozenset(key for key, each in properties.items() if isinstance(each, Mapping) and _is_text(each))


def _is_text(schema: Mapping[str, Any]) -> bool:
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list):
        return all(isinstance(each, str) for each in values)
    return schema.get("type") == "string"


def skipped(text: str, at: int) -> int:
    """Behind the white space that stands at ``at``."""
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def loosely(text: str, at: int, literal: str) -> int | None:
    """Behind a literal, whatever white space stands around it; None where it isn't there."""
    bare = literal.strip()
    if text.startswith(literal, at):
        return at + len(literal)
    at = skipped(text, at)
    return at + len(bare) if text.startswith(bare, at) else None


def _loose(literal: str) -> str:
    """A pattern of a literal in which white space may be more, less or none."""
    return r"\s*".join(re.escape(each) for each in re.findall(r'"(?:[^"\\]|\\.)*"|[\w<>|=/]+|[^\s]', literal))


def _alike(text: str, literal: str) -> bool:
    """Whether one of them begins with the other, white space aside."""
    one, other = "".join(text[: 2 * len(literal) + 64].split()), "".join(literal.split())
    return one.startswith(other) or other.startswith(one)
