"""Random answers that a grammar allows, byte by byte, and schemas to hold them to."""

from __future__ import annotations

import random
from typing import Any

from edgekit_runtime.constraints import Matcher, Tokens

END = 256
BYTES = Tokens(
    [*(bytes([each]) for each in range(END)), b"end"], control=[END], ends=[END], tokenize=lambda text: [*text.encode()]
)
CLOSING = b'"}]'
MOST = 400


def walk(grammar: str, chosen: random.Random) -> bytes | None:
    """An answer; None for one that grew too long."""
    matcher, answer = Matcher(BYTES, grammar), bytearray()
    while len(answer) < MOST:
        allowed = matcher.allowed().tolist()
        if END in allowed and (len(allowed) == 1 or chosen.random() < 0.5):
            return bytes(answer)
        going = [each for each in allowed if each != END]
        closing = [each for each in going if each in CLOSING]
        plain = [each for each in going if 0x20 < each < 0x7F]
        if closing and chosen.random() < 0.4 + len(answer) / MOST:
            token = chosen.choice(closing)
        else:
            token = chosen.choice(plain if plain and chosen.random() < 0.95 else going)
        matcher.take(token)
        answer.append(token)
    return None


def holds(grammar: str, answer: str) -> bool:
    """Whether a grammar allows this very answer."""
    matcher = Matcher(BYTES, grammar)
    for token in answer.encode():
        if token not in matcher.allowed():
            return False
        matcher.take(token)
    return END in matcher.allowed()


def array_of(items: Any) -> dict[str, Any]:
    """Many values for one walk."""
    return {"type": "array", "items": items, "maxItems": 12}


TREE = {"type": "object", "properties": {"v": {"type": "integer"}, "next": {"$ref": "#/$defs/t"}}, "required": ["v"]}
CAT = {"type": "object", "properties": {"kind": {"const": "cat"}, "n": {"type": "integer"}}, "required": ["kind", "n"]}
DOG = {"type": "object", "properties": {"kind": {"enum": ["dog", "wolf"]}}, "required": ["kind"]}
A, B = {"type": "integer"}, {"type": "string", "maxLength": 4}

HELD: dict[str, Any] = {
    "true": True,
    "{}": {},
    "description": {"description": "anything"},
    "notes": {"title": "t", "default": 1, "examples": [2], "deprecated": True, "readOnly": True, "type": "integer"},
    "type": array_of({"type": ["integer", "null", "boolean"]}),
    "type of one": {"type": ["object"], "properties": {"a": A}, "required": ["a"]},
    "no type": {"properties": {"a": A}, "required": ["a"], "minLength": 2, "minimum": 3, "items": B},
    "enum": array_of({"enum": ['a"b', "a\nb", "C:\\x", "é😀", None, 1.5, [1, "x"], {"k": {"z": []}}]}),
    "enum and type": {"enum": [1, "ab", "c"], "type": "string", "minLength": 2},
    "const": {"const": {"b": 1, 'a"\\': [None, "\n"]}},
    "minimum": array_of({"type": "integer", "minimum": 3, "maximum": 120}),
    "fractions": array_of({"type": "number", "minimum": -1.25, "exclusiveMaximum": 3.5}),
    "whole from fractions": array_of({"type": "integer", "minimum": 0.5, "maximum": 2.5}),
    "exclusive": array_of({"type": "integer", "exclusiveMinimum": -3, "exclusiveMaximum": 3}),
    "exclusive of draft 4": {
        "$schema": "http://json-schema.org/draft-04/schema#",
        **array_of({"type": "integer", "minimum": 5, "maximum": 7, "exclusiveMinimum": True}),
    },
    "multipleOf": array_of({"type": "integer", "multipleOf": 5, "maximum": 1000, "minimum": -7}),
    "multipleOf fraction": array_of({"type": "number", "multipleOf": 0.25}),
    "length": array_of({"type": "string", "minLength": 2, "maxLength": 3}),
    "pattern": array_of({"type": "string", "pattern": r"^\d{2}[a-c]|x$", "maxLength": 9}),
    "pattern somewhere": {"type": "string", "pattern": "b.d", "maxLength": 9},
    "pattern and format": {"type": "string", "format": "date", "pattern": "-02-"},
    "dates": array_of({"type": "string", "format": "date"}),
    "date-times": array_of({"type": "string", "format": "date-time"}),
    "times": array_of({"type": "string", "format": "time"}),
    "formats": {
        "type": "object",
        "properties": {name: {"type": "string", "format": name} for name in ("ipv4", "ipv6", "uuid", "duration")},
        "required": ["ipv4", "ipv6", "uuid", "duration"],
    },
    "email": {"type": "string", "format": "email"},
    "properties": {"type": "object", "properties": {"a": A, 'q"\\\n': B, "": A}, "required": ["a", 'q"\\\n', ""]},
    "additionalProperties": {"type": "object", "properties": {"a": A}, "additionalProperties": B},
    "no additionalProperties": {"type": "object", "properties": {"a": A}, "additionalProperties": False},
    "patternProperties": {"type": "object", "patternProperties": {"^a": A, "^b": B}, "additionalProperties": False},
    "required alone": {"type": "object", "required": ["z", "y"]},
    "minProperties": {"type": "object", "properties": {"a": A, "b": A}, "required": ["a", "b"], "minProperties": 2},
    "maxProperties": {"type": "object", "maxProperties": 2, "additionalProperties": A},
    "prefixItems": {"type": "array", "prefixItems": [A, B], "items": {"type": "null"}, "minItems": 1, "maxItems": 4},
    "items of draft 7": {
        "$schema": "http://json-schema.org/draft-07/schema#",
        **{"type": "array", "items": [A, B], "additionalItems": False, "minItems": 1},
    },
    "uniqueItems false": {"type": "array", "items": A, "uniqueItems": False, "maxItems": 3},
    "anyOf": {"anyOf": [A, {"type": "object", "properties": {"a": A}, "required": ["a"]}]},
    "anyOf beside properties": {
        "type": "object",
        "properties": {"a": A, "b": A},
        "anyOf": [{"required": ["a"]}, {"properties": {"b": {"minimum": 5}}, "required": ["b"]}],
    },
    "oneOf of types": {"oneOf": [A, B]},
    "oneOf told apart": {"$defs": {"cat": CAT, "dog": DOG}, **array_of({"oneOf": [{"$ref": "#/$defs/cat"}, DOG]})},
    "allOf": {
        "type": "object",
        "properties": {"a": A},
        "allOf": [
            {"properties": {"b": B}, "required": ["b"]},
            {"properties": {"a": {"minimum": 5}}, "required": ["a"]},
        ],
    },
    "allOf that closes": {"properties": {"a": A}, "allOf": [{"properties": {"b": B}, "additionalProperties": False}]},
    "recursive $ref": {"$defs": {"t": TREE}, "$ref": "#/$defs/t"},
    "$ref to the root": {"type": "object", "properties": {"c": {"type": "array", "items": {"$ref": "#"}}}},
    "$ref and more": {
        "$defs": {"p": {"type": "integer", "minimum": 3}},
        **array_of({"$ref": "#/$defs/p", "maximum": 9}),
    },
    "definitions": {"definitions": {"a/b~c": A}, "type": "array", "prefixItems": [{"$ref": "#/definitions/a~1b~0c"}]},
    "$anchor": {"$defs": {"p": {"$anchor": "here", "type": "boolean"}}, "$ref": "#here"},
}

# Keyword or value that the refusal names, and a schema.
REFUSED: dict[str, Any] = {
    "uniqueItems": {"type": "array", "items": A, "uniqueItems": True},
    "if": {"if": {"type": "string"}, "then": {"minLength": 2}, "else": {"minimum": 1}},
    "then": {"then": A},
    "else": {"else": A},
    "not": {"properties": {"a": {"not": A}}},
    "dependentRequired": {"type": "object", "dependentRequired": {"a": ["b"]}},
    "dependentSchemas": {"type": "object", "dependentSchemas": {"a": {"required": ["b"]}}},
    "dependencies": {"type": "object", "dependencies": {"a": ["b"]}},
    "contains": {"type": "array", "contains": A},
    "minContains": {"type": "array", "minContains": 1},
    "maxContains": {"type": "array", "maxContains": 1},
    "propertyNames": {"type": "object", "propertyNames": {"pattern": "^a"}},
    "minProperties": {"type": "object", "minProperties": 2},
    "unevaluatedProperties": {"type": "object", "unevaluatedProperties": False},
    "unevaluatedItems": {"type": "array", "unevaluatedItems": False},
    "contentEncoding": {"type": "string", "contentEncoding": "base64"},
    "contentMediaType": {"type": "string", "contentMediaType": "application/json"},
    "contentSchema": {"type": "string", "contentSchema": {}},
    "$dynamicRef": {"$dynamicRef": "#n"},
    "$dynamicAnchor": {"$dynamicAnchor": "n"},
    "$recursiveRef": {"$recursiveRef": "#"},
    "$vocabulary": {"$vocabulary": {}},
    "minLenght": {"type": "string", "minLenght": 3},
    "x-guidance": {"type": "string", "x-guidance": {"lenient": True}, "maxLength": 3},
    "'idn-email'": {"type": "string", "format": "idn-email"},
    "'int32'": {"type": "integer", "format": "int32"},
    "oneOf": {"oneOf": [{"type": "number"}, {"type": "integer"}]},
    "2^53": {"type": "integer", "minimum": 2**53 + 1},
    "enum": {"enum": [1, [2**60]]},
    "&&": {"type": "string", "pattern": "^[a-z&&b]$"},
    "look-around": {"type": "string", "pattern": "^(?=a)b"},
    "/nowhere": {"$ref": "#/nowhere"},
    "https://example.org/x": {"$ref": "https://example.org/x"},
    "nothing that fits": {"$ref": "#"},
    "false": False,
    "minimum (5)": {"type": "integer", "minimum": 5, "maximum": 3},
    "foo": {"type": "foo"},
    "#/properties": {"properties": [1]},
    "#/allOf": {"allOf": {}},
    "#/items/0": {"items": [1]},
}
