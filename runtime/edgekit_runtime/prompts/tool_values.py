"""Arguments of calls as rules of a grammar, in the spellings of :mod:`~edgekit_runtime.prompts.tool_arguments`.

JSON is held by llguidance.  Where a form spells texts or words otherwise, the rules are made here of as much of JSON
Schema as they can hold; the rest is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgekit_runtime.constraints import held_schema, inline_schema
from edgekit_runtime.constraints.keywords import NOTES
from edgekit_runtime.errors import InputError, shown
from edgekit_runtime.prompts.tool_syntax import BARE, KEYWORDS, TAGGED, CallSyntax

_HELD = frozenset(
    {"type", "enum", "const", "properties", "required", "additionalProperties", "items", "minItems", "maxItems"}
    | {"anyOf", "$ref", "$defs", "definitions", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
    | {"multipleOf"}
)
FREE = "/(.|\\n)*/"
_ROOTS = ("$defs", "definitions")
_MOST_ITEMS = 64


@dataclass(frozen=True)
class Spelling:
    """How a form spells arguments.

    Attributes:
        kind: of the syntax.
        words: for null, true and false; those of JSON where everything is JSON.
        quote: around texts.
        marks: of tagged arguments.
    """

    kind: str
    words: tuple[str, str, str] = ("null", "true", "false")
    quote: str = '"'
    marks: tuple[str, ...] = ()

    @classmethod
    def of(cls, syntax: CallSyntax) -> Spelling:
        """That of a syntax."""
        if syntax.kind == KEYWORDS:
            quote, *words = syntax.marks
            return cls(KEYWORDS, (words[0], words[1], words[2]), quote)
        if syntax.kind == BARE:
            quote, *words = syntax.marks
            return cls(BARE, (words[0], words[1], words[2]), quote)
        return cls(TAGGED, marks=syntax.marks)

    @property
    def is_json(self) -> bool:
        """Whether values are JSON."""
        return self.kind == KEYWORDS and self.quote == '"' and self.words == ("null", "true", "false")


def pattern_of(text: str) -> str:
    """A text in a regular expression of Rust's kind."""
    return "".join(each if each.isalnum() and each.isascii() else f"\\x{{{ord(each):x}}}" for each in text)


class Rules:
    """Rules of a grammar, by name."""

    def __init__(self, literal: Callable[[str], str]) -> None:
        """``literal`` writes a text as a grammar has it."""
        self._literal = literal
        self.names: dict[str, str] = {}

    def add(self, name: str, body: str) -> str:
        """Add one, if it isn't there."""
        self.names.setdefault(name, body)
        return name

    def until(self, name: str, sign: str) -> str:
        """Add one for any text and the sign that ends it."""
        self.add(f"{name}[lazy]", f"/(.|\\n)*{pattern_of(sign)}/")
        return name

    def text(self) -> str:
        """The grammar."""
        return "".join(f"{name}: {body}\n" for name, body in self.names.items())

    def json(self, schema: Any) -> str:
        """JSON that fits."""
        return self.add(f"json{len(self.names)}", f"%json {inline_schema(schema)}")

    def arguments(self, schema: dict[str, Any], spelling: Spelling) -> str:
        """The arguments that fit, without what stands around all of them."""
        return _Values(self, schema, spelling, self._literal).arguments()


class _Values:
    def __init__(self, rules: Rules, schema: dict[str, Any], spelling: Spelling, literal: Callable[[str], str]) -> None:
        self._rules, self._spelling, self._literal = rules, spelling, literal
        self._root = held_schema(schema)
        self._references: dict[str, str] = {}

    def arguments(self) -> str:
        if self._spelling.kind == TAGGED:
            before, between, behind = self._spelling.marks
            pairs = {
                key: f"{self._literal(before + key + between)} {self._tagged(node, behind)}"
                for key, node in self._properties(self._root, "#").items()
            }
            return self._in_order(self._root, pairs, "") or '""'
        sign = "=" if self._spelling.kind == KEYWORDS else ":"
        return self._pairs(self._root, "#", sign)

    def _pairs(self, node: dict[str, Any], place: str, sign: str) -> str:
        pairs = {
            key: f"{self._literal(key + sign)} {self._value(each, f'{place}/properties/{key}')}"
            for key, each in self._properties(node, place).items()
        }
        return self._in_order(node, pairs, ", " if self._spelling.kind == KEYWORDS else ",") or '""'

    def _properties(self, node: dict[str, Any], place: str) -> dict[str, Any]:
        _refuse(node, _HELD, place)
        found = node.get("properties", {})
        missing = [each for each in node.get("required", ()) if each not in found]
        if missing or not isinstance(found, dict):
            raise _unheld("required", place)
        return dict(found)

    def _in_order(self, node: dict[str, Any], pairs: dict[str, str], comma: str) -> str:
        """All that are required and any of the others, in their order."""
        required = set(node.get("required", ()))
        between = self._literal(comma) if comma else ""
        # Rules from the last one: what may follow when something stands before, and when nothing does.
        behind, first = "", ""
        for key, body in reversed(pairs.items()):
            rule = self._rules.add(f"pair{len(self._rules.names)}", body)
            with_it = self._rules.add(f"more{len(self._rules.names)}", f"{between} {rule} {behind}")
            start = self._rules.add(f"first{len(self._rules.names)}", f"{rule} {behind}")
            if key in required:
                behind, first = with_it, start
            else:
                behind = self._rules.add(f"some{len(self._rules.names)}", f"{with_it} | {behind or chr(34) * 2}")
                first = self._rules.add(f"maybe{len(self._rules.names)}", f"{start} | {first or chr(34) * 2}")
        return first

    def _tagged(self, node: Any, behind: str) -> str:
        """A value without quotes: a text as it is, all else as JSON."""
        node = self._resolved(node)
        texts = _texts(node)
        if texts is not None:
            return f"({' | '.join(self._literal(each) for each in texts)}) {self._literal(behind)}"
        if isinstance(node, dict) and node.get("type") == "string":
            _refuse(node, {"type"}, "a text")
            return self._rules.until("raw", behind)
        if not isinstance(node, dict) or not (isinstance(node.get("type"), str) or _has_no_text(node)):
            raise _unheld("anything but one type", "an argument")
        return f"{self._json(node)} {self._literal(behind)}"

    def _json(self, node: Any) -> str:
        roots = {key: self._root[key] for key in _ROOTS if key in self._root}
        return self._rules.json({**roots, **node} if isinstance(node, dict) else node)

    def _resolved(self, node: Any) -> Any:
        reference = node.get("$ref") if isinstance(node, dict) else None
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return node
        found: Any = self._root
        for part in reference.split("/")[1:]:
            found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
        return found

    def _value(self, node: Any, place: str) -> str:
        """A value that fits."""
        if self._spelling.is_json:
            return self._json(node)
        if isinstance(node, dict) and isinstance(node.get("$ref"), str):
            return self._referred(node["$ref"], place)
        if not isinstance(node, dict) or not node:
            raise _unheld("anything", place)
        _refuse(node, _HELD, place)
        if "anyOf" in node:
            return f"({' | '.join(self._value(each, f'{place}/anyOf') for each in node['anyOf'])})"
        values = [node["const"]] if "const" in node else node.get("enum")
        if isinstance(values, list):
            return f"({' | '.join(self._spelt(each, place) for each in values)})"
        kinds = node.get("type")
        kinds = kinds if isinstance(kinds, list) else [kinds]
        return f"({' | '.join(self._of_kind(kind, node, place) for kind in kinds)})"

    def _referred(self, reference: str, place: str) -> str:
        name = self._references.get(reference)
        if name is None:
            name = self._references[reference] = f"named{len(self._references)}x{len(self._rules.names)}"
            node = self._resolved({"$ref": reference})
            if node is None or "$ref" in node:
                raise _unheld("$ref", place)
            self._rules.add(name, self._value(node, reference))
        return name

    def _of_kind(self, kind: Any, node: dict[str, Any], place: str) -> str:
        null, true, false = self._spelling.words
        match kind:
            case "null":
                return self._literal(null)
            case "boolean":
                return f"({self._literal(true)} | {self._literal(false)})"
            case "integer" | "number":
                numbers = {key: each for key, each in node.items() if key in _NUMBERS}
                return self._rules.json({**numbers, "type": kind})
            case "string":
                return self._any_text()
            case "array":
                return self._array(node, place)
            case "object":
                if self._spelling.kind == KEYWORDS:
                    return self._mapping(node, place)
                return f"{self._literal('{')} {self._pairs(node, place, ':')} {self._literal('}')}"
        raise _unheld("anything but one of the types", place)

    def _mapping(self, node: dict[str, Any], place: str) -> str:
        """An object as Python spells it."""
        quote = self._spelling.quote
        pairs = {
            key: f"{self._literal(f'{quote}{key}{quote}: ')} {self._value(each, f'{place}/properties/{key}')}"
            for key, each in self._properties(node, place).items()
        }
        return f"{self._literal('{')} {self._in_order(node, pairs, ', ')} {self._literal('}')}"

    def _array(self, node: dict[str, Any], place: str) -> str:
        item = self._rules.add(f"item{len(self._rules.names)}", self._value(node.get("items"), f"{place}/items"))
        least, most = node.get("minItems", 0), node.get("maxItems")
        comma = self._literal(", " if self._spelling.kind == KEYWORDS else ",")
        if max(least, most or 0) > _MOST_ITEMS:
            raise _unheld(f"more than {_MOST_ITEMS} items", place)
        if most == 0:
            return self._literal("[]")
        many = f"({comma} {item}){{{max(least - 1, 0)},{'' if most is None else most - 1}}}"
        inner = f"{item} {many}" if least else f"({item} {many})?"
        return f"{self._literal('[')} {inner} {self._literal(']')}"

    def _any_text(self) -> str:
        quote = self._spelling.quote
        if self._spelling.kind == KEYWORDS:
            return f"/{quote}([^{quote}\\\\\\n\\r]|\\\\[{quote}\\\\nrt])*{quote}/"
        opened = self._literal(quote)
        if "<[" in opened:
            return f"{opened} {self._rules.add('ANY', FREE)}? {opened}"
        return f"{opened} {self._rules.until('quoted', quote)}"

    def _spelt(self, value: Any, place: str) -> str:
        null, true, false = self._spelling.words
        quote = self._spelling.quote
        if value is None or isinstance(value, bool):
            return self._literal(null if value is None else true if value else false)
        if isinstance(value, int | float):
            return self._literal(json.dumps(value))
        if not isinstance(value, str) or quote in value or (self._spelling.kind == KEYWORDS and "\\" in value):
            raise _unheld(f"the value {json.dumps(value)}", place)
        return self._literal(f"{quote}{value}{quote}")


_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")


def _texts(node: Any) -> list[str] | None:
    """The texts that a value has to be one of."""
    if not isinstance(node, dict):
        return None
    values = [node["const"]] if "const" in node else node.get("enum")
    return values if isinstance(values, list) and all(isinstance(each, str) for each in values) else None


def _has_no_text(node: Mapping[str, Any]) -> bool:
    """Whether a value is one of some that are no texts."""
    values = [node["const"]] if "const" in node else node.get("enum")
    return isinstance(values, list) and not any(isinstance(each, str) for each in values)


def _refuse(node: Mapping[str, Any], known: frozenset[str] | set[str], place: str) -> None:
    for key in node:
        if key not in known and key not in NOTES:
            raise _unheld(key, place)


def _unheld(what: str, place: str) -> InputError:
    return InputError(
        f"the schema asks for {shown(what)[1:-1]} at {shown(place)[1:-1]}, which can't be held in this base's calls",
        "leave it out, or say it with other keywords",
    )
