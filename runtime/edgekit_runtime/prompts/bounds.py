"""What a request may ask for, looked at before anything of it is rendered, tokenised or compiled.

Each bound keeps some work short that would hold up everybody else's answers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from edgekit_runtime.errors import InputError

MOST_DEPTH = 64  # of nested lists and objects, in a whole body
MOST_MESSAGES = 2048
MOST_STOPS, MOST_STOP_CHARACTERS = 64, 512
MOST_ADAPTERS = 16  # applied together
MOST_SCHEMA_BYTES = 64 * 1024
MOST_SCHEMA_DEPTH = 32
# Each alternative is compared with the whole vocabulary for a token.
MOST_CHOICES = 1000
# Optional signs of a pattern, times how often the pattern repeats something: alternatives that are open all at once.
MOST_OPTIONS = 200
OPTIONAL = "?*+|{"
MOST_OPTIONAL_PROPERTIES = 64  # of one object: the grammar keeps each one that may follow in mind
CHOICES = ("enum", "anyOf", "oneOf", "properties")


def check_depth(document: Any, most: int = MOST_DEPTH, what: str = "the body") -> None:
    """Raise InputError for JSON that is nested deeper than ``most``."""
    level = [document]
    for _ in range(most + 1):
        level = [inner for each in level for inner in _inside(each)]
        if not level:
            return
    raise InputError(f"{what} is nested deeper than {most}", "make it flatter")


def check_messages_count(messages: Sequence[Any]) -> None:
    """Raise InputError for more messages than a request may have."""
    _at_most(len(messages), MOST_MESSAGES, "messages")


def check_stops(stops: Sequence[str]) -> None:
    """Raise InputError for too many texts that end an answer, or too long ones."""
    _at_most(len(stops), MOST_STOPS, "stop texts")
    longest = max(map(len, stops), default=0)
    if longest > MOST_STOP_CHARACTERS:
        raise InputError(
            f"a stop text has {longest} characters", f"use at most {MOST_STOP_CHARACTERS} characters in each"
        )


def check_adapters(count: int) -> None:
    """Raise InputError for more adapters at once than a request may apply."""
    _at_most(count, MOST_ADAPTERS, "adapters at once")


def check_schema(schema: dict[str, Any]) -> None:
    """Raise InputError for a schema whose grammar would be slow to make or to follow."""
    check_depth(schema, MOST_SCHEMA_DEPTH, "the schema")
    size = len(json.dumps(schema))
    if size > MOST_SCHEMA_BYTES:
        raise InputError(f"the schema has {size} bytes", f"use at most {MOST_SCHEMA_BYTES}")
    nodes = [node for node in _nodes(schema) if isinstance(node, dict)]
    choices = sum(len(node[key]) for node in nodes for key in CHOICES if isinstance(node.get(key), list | dict))
    _at_most(choices, MOST_CHOICES, "choices in the schema (enum, anyOf, oneOf, properties)")
    for node in nodes:
        required, properties = node.get("required"), node.get("properties")
        if isinstance(properties, dict):
            optional = properties.keys() - set(map(str, required if isinstance(required, list) else ()))
            _at_most(len(optional), MOST_OPTIONAL_PROPERTIES, "optional properties in an object of the schema")
        if isinstance(pattern := node.get("pattern"), str):
            options = _options(pattern)
            _at_most(options, MOST_OPTIONS, f"optional parts in a pattern of the schema ({OPTIONAL}, repeated)")


def _options(pattern: str) -> int:
    """Signs that leave something open, as often as all repetitions around them may ask for them."""
    from edgekit_runtime.engines.llama.library import REPEATS

    times = 1
    for found in REPEATS.findall(pattern):
        times *= max([int(number) for number in found if number and len(number) < 10] or [1])
        times = max(1, min(times, 10**9))
    signs = sum(map(pattern.count, OPTIONAL))
    nested = "(" in pattern and signs > 1
    return signs * times if nested else signs


def _inside(node: Any) -> list[Any]:
    values = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return [each for each in values if isinstance(each, dict | list)]


def _nodes(document: Any) -> Iterator[Any]:
    waiting = [document]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += _inside(node)


def _at_most(count: int, most: int, what: str) -> None:
    if count > most:
        raise InputError(f"there are {count} {what}", f"use at most {most}")
