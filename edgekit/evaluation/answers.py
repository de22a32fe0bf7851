"""Answers as JSON: read strictly, and compared field by field.

A field is compared by equality, unless it is free text: then by token F1.  Which fields are free text is decided once
from all reference answers and the adapter's JSON schema (:func:`free_text_fields`), never from what a model answers.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# Where a value stands in an answer: keys of objects, and ITEM for whichever item of a list.
FieldPath = tuple[str, ...]
ITEM = "[]"

FREE_TEXT_WORDS = 4  # least median of words: names and numbers of parts are shorter
FREE_TEXT_DISTINCT = 0.5  # least share of distinct values, where no schema says that anything may stand there
_CONSTRAINTS = ("enum", "const", "pattern", "format")
_DEEPEST_SCHEMA = 32  # a schema may refer to itself

_AMBIGUOUS = object()  # stands for a key that is there twice with different values; equals nothing


def json_object(text: str) -> dict[str, Any] | None:
    """The JSON object that ``text`` is, or None.  NaN and Infinity are no JSON, whatever Python's reader says."""
    try:
        value = json.loads(text, parse_constant=_no_json, object_pairs_hook=_object)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def free_text_fields(references: Sequence[str], schema: Mapping[str, Any] | None = None) -> frozenset[FieldPath]:
    """The fields of JSON answers that are free text.

    A field is free when its references are several words long (a median of ``FREE_TEXT_WORDS`` or more), and ``schema``
    has it as a string without enum, const, pattern and format.  Where the schema says nothing of it, at least half of
    the references have to be distinct instead.

    Args:
        references: reference answers; no field is free unless all of them are JSON objects.
        schema: the adapter's JSON schema of answers.
    """
    objects = [json_object(reference) for reference in references]
    texts: dict[FieldPath, list[str]] = {}
    for each in objects:
        if each is None:
            return frozenset()
        for path, value in _leaves(each):
            if isinstance(value, str):
                texts.setdefault(path, []).append(" ".join(value.split()))
    described = _described(schema or {})
    return frozenset(path for path, found in texts.items() if _is_free(found, described.get(path)))


def agreement(want: Any, got: Any, free: frozenset[FieldPath] = frozenset(), path: FieldPath = ()) -> float:
    """How much of a field is right, 0 to 1.

    Free text by token F1; objects key by key and lists item by item, where one too many counts as wrong; everything
    else is right or wrong.
    """
    try:
        return _agreement(want, got, free, path)
    except RecursionError:  # nested deeper than anyone writes
        return 0.0


def same(one: Any, other: Any) -> bool:
    """Equal as JSON: 1 and 1.0 are, True and 1 are not; white space around text doesn't count, NaN equals nothing."""
    try:
        return _same(one, other)
    except RecursionError:
        return False


def token_f1(reference: str, answer: str) -> float:
    """Token F1 of two texts, case and outer punctuation aside."""
    one, other = Counter(_words(reference)), Counter(_words(answer))
    if not one or not other:
        return float(reference.split() == answer.split())  # nothing but punctuation, or nothing
    common = (one & other).total()
    return 2 * common / (one.total() + other.total())


def _agreement(want: Any, got: Any, free: frozenset[FieldPath], path: FieldPath) -> float:
    if isinstance(want, str) and isinstance(got, str) and path in free:
        return token_f1(want, got)
    if isinstance(want, dict) and isinstance(got, dict) and want:
        right = [_agreement(value, got[key], free, (*path, key)) for key, value in want.items() if key in got]
        return math.fsum(right) / len(want.keys() | got.keys())
    if isinstance(want, list) and isinstance(got, list) and want:
        right = [_agreement(one, other, free, (*path, ITEM)) for one, other in zip(want, got, strict=False)]
        return math.fsum(right) / max(len(want), len(got))
    return float(_same(want, got))


def _same(one: Any, other: Any) -> bool:
    if one is _AMBIGUOUS or other is _AMBIGUOUS:
        return False
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, str) and isinstance(other, str):
        return " ".join(one.split()) == " ".join(other.split())
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float) and not math.isfinite(one):  # 1e999
        return False
    return bool(one == other)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        result[key] = value if key not in result or _same(result[key], value) else _AMBIGUOUS
    return result


def _no_json(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def _leaves(value: Any, path: FieldPath = ()) -> Iterator[tuple[FieldPath, Any]]:
    """Each value that is no object and no list, with its place."""
    waiting = [(path, value)]
    while waiting:
        place, each = waiting.pop()
        if isinstance(each, dict):
            waiting += [((*place, key), inner) for key, inner in each.items()]
        elif isinstance(each, list):
            waiting += [((*place, ITEM), inner) for inner in each]
        else:
            yield place, each


def _is_free(texts: Sequence[str], described: bool | None) -> bool:
    """Whether these texts are free; ``described`` is what the schema says, None when it says nothing."""
    if described is None:
        described = len(set(texts)) >= FREE_TEXT_DISTINCT * len(texts)
    return described and statistics.median(len(text.split()) for text in texts) >= FREE_TEXT_WORDS


def _described(schema: Mapping[str, Any]) -> dict[FieldPath, bool]:
    """The strings that a schema describes, and whether each is free; one of several branches that isn't decides."""
    found: dict[FieldPath, bool] = {}
    waiting: list[tuple[FieldPath, Any, int]] = [((), schema, 0)]
    while waiting:
        path, node, depth = waiting.pop()
        if not isinstance(node, Mapping) or depth > _DEEPEST_SCHEMA:
            continue
        inner: list[tuple[FieldPath, Any]] = []
        if isinstance(node.get("$ref"), str):
            inner.append((path, _referred(schema, node["$ref"])))
        for key in ("anyOf", "oneOf", "allOf"):
            inner += [(path, branch) for branch in node.get(key, []) if isinstance(node.get(key), list)]
        if isinstance(node.get("properties"), Mapping):
            inner += [((*path, str(key)), each) for key, each in node["properties"].items()]
        inner.append(((*path, ITEM), node.get("items")))
        waiting += [(place, each, depth + 1) for place, each in inner]
        kinds = node.get("type")
        if kinds == "string" or (isinstance(kinds, list) and "string" in kinds) or "enum" in node or "const" in node:
            found[path] = found.get(path, True) and not any(key in node for key in _CONSTRAINTS)
    return found


def _referred(schema: Mapping[str, Any], reference: str) -> Any:
    """What a reference inside the schema means, ``#/$defs/part`` say; None for any other."""
    node: Any = schema
    first, *steps = reference.split("/")
    for step in steps if first == "#" else ("",):
        node = node.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(node, Mapping) else None
    return node


def _words(text: str) -> list[str]:
    return [word for word in (part.strip(".,;:!?\"'()[]{}").lower() for part in text.split()) if word]
