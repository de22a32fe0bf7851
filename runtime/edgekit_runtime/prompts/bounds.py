"""What a request may ask for, looked at before anything of it is rendered, tokenised or compiled.

Each bound keeps some work short that would hold up everybody else's answers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.manifest import MOST_ADAPTERS

MOST_DEPTH = 64  # of nested lists and objects, in a whole body
MOST_MESSAGES = 2048
MOST_STOPS, MOST_STOP_CHARACTERS = 64, 512
MOST_BIASES = 1024  # tokens with a logit_bias
MOST_FORM_BYTES = 64 * 1024  # of a schema, grammar and the like
MOST_SCHEMA_DEPTH = 32
TO_CONTEXT = -1  # as max_tokens: as many as the context has room for


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


def check_biases(count: int) -> None:
    """Raise InputError for more biased tokens than a request may have."""
    _at_most(count, MOST_BIASES, "tokens in logit_bias")


def check_schema(schema: dict[str, Any] | bool) -> None:
    """Raise InputError for a schema that is too large to be read at once."""
    check_depth(schema, MOST_SCHEMA_DEPTH, "the schema")
    check_form("schema", json.dumps(schema))


def check_form(name: str, *texts: str) -> None:
    """Raise InputError for a schema, regex, grammar or choice that is too large to be read at once."""
    size = sum(map(len, texts))
    if size > MOST_FORM_BYTES:
        raise InputError(f"the {name} has {size} bytes", f"use at most {MOST_FORM_BYTES}")


def _inside(node: Any) -> list[Any]:
    values = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return [each for each in values if isinstance(each, dict | list)]


def _at_most(count: int, most: int, what: str) -> None:
    if count > most:
        raise InputError(f"there are {count} {what}", f"use at most {most}")
