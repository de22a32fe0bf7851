"""How large a request may be.  What is larger is refused before it is rendered, tokenised or compiled.

No larger request could be answered, or answering it would keep everybody else waiting.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgekit_runtime.errors import InputError

MOST_STOPS = 64
LONGEST_STOP = 1024  # characters
MOST_SCHEMA_BYTES = 32 * 1024
DEEPEST_SCHEMA = 64
MOST_CHOICES = 1024  # values of an enum, branches of an anyOf …
MOST_OPTIONAL = 64  # properties of one object: the grammar keeps every one that may follow in mind
_CHOICES = ("enum", "anyOf", "oneOf", "allOf", "prefixItems", "items")


def check_text(values: Sequence[Any], *, context: int, longest_token: int) -> None:
    """Refuse messages, or a raw text, that can't fit: each token stands for so many bytes at the most.

    Args:
        values: all that goes into a prompt; texts in it are counted, however deep they are.
        context: tokens.
        longest_token: of the vocabulary, bytes.

    Raises:
        InputError: too many messages or bytes.
    """
    mend = "shorten the conversation, or ask for a larger context"
    if len(values) > context:
        raise InputError(f"{len(values)} messages can't fit a context of {context} tokens", mend)
    most = context * longest_token
    count = 0
    for text in _texts(values):
        count += len(text.encode("utf-8", "surrogatepass"))
        if count > most:
            raise InputError(f"more than {most} bytes of text can't fit a context of {context} tokens", mend)


def check_stops(stops: Sequence[str]) -> None:
    """Refuse texts to stop at that are too many or too long.

    Raises:
        InputError: they are.
    """
    if len(stops) > MOST_STOPS:
        raise InputError(f"{len(stops)} texts to stop at are too many", f"send at most {MOST_STOPS}")
    if any(len(each) > LONGEST_STOP for each in stops):
        raise InputError("a text to stop at is too long", f"send at most {LONGEST_STOP} characters")


def check_schema(schema: Mapping[str, Any]) -> None:
    """Refuse a schema whose grammar would take too long to follow.

    Raises:
        InputError: it is too large or too deep, or leaves too many choices in one place.
    """
    try:
        size = len(json.dumps(schema))
    except RecursionError:
        size = MOST_SCHEMA_BYTES + 1
    if size > MOST_SCHEMA_BYTES:
        raise InputError(f"the schema has more than {MOST_SCHEMA_BYTES} bytes", "send a smaller one")
    for node, depth in _nodes(schema):
        if depth > DEEPEST_SCHEMA:
            raise InputError(f"the schema is nested deeper than {DEEPEST_SCHEMA} levels", "make it flatter")
        for key in _CHOICES:
            choices = node.get(key)
            if isinstance(choices, list) and len(choices) > MOST_CHOICES:
                raise InputError(f"the schema's {key} has {len(choices)} entries", f"leave at most {MOST_CHOICES}")
        properties, required = node.get("properties"), node.get("required")
        if isinstance(properties, dict):
            optional = len(properties.keys() - set(map(str, required if isinstance(required, list) else ())))
            if optional > MOST_OPTIONAL:
                raise InputError(
                    f"an object of the schema has {optional} optional properties",
                    f"name them in required, or leave at most {MOST_OPTIONAL}",
                )


def _texts(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, Mapping):
            waiting += each.keys()
            waiting += each.values()
        elif isinstance(each, (list, tuple)):
            waiting += each


def _nodes(schema: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], int]]:
    waiting: list[tuple[Any, int]] = [(schema, 1)]
    while waiting:
        each, depth = waiting.pop()
        if isinstance(each, Mapping):
            yield each, depth
            waiting += ((inner, depth + 1) for inner in each.values())
        elif isinstance(each, list):
            waiting += ((inner, depth + 1) for inner in each)
