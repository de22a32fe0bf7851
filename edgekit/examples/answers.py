"""Answers of the examples: JSON on one line, with few tokens, and its schema."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER_OR_NULL: Schema = {"type": ["number", "null"]}


def one_line(fields: Mapping[str, object]) -> str:
    """The fields as JSON without spaces between them: a third of the tokens less to learn, and to decode."""
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def one_of(values: Iterable[str]) -> Schema:
    """One of a controlled vocabulary."""
    return {"enum": list(dict.fromkeys(values))}


def answer_schema(**fields: Schema) -> Schema:
    """The schema of an object with exactly these fields."""
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
