"""JSON that every reader takes, and JSON that comes from files of others.

Python writes NaN and Infinity as bare words, which are no JSON, and reads half a character as one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

MOST_DEPTH = 200  # of objects and lists in each other: whoever copies or writes one calls itself for each


def strict_json(document: Any, *, indent: int | None = None) -> str:
    """``document`` as JSON text; a figure that is no number becomes null."""
    return json.dumps(without_nan(document), indent=indent, ensure_ascii=False, allow_nan=False)


def json_object(text: str | bytes) -> dict[str, Any] | None:
    """The JSON object that ``text`` is; None when it is none, is too deep, or has half a character in a text."""
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode()  # half a character is JSON, but no text
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and not too_deep(value) else None


def too_deep(document: Any) -> bool:
    """Whether more than :data:`MOST_DEPTH` objects and lists of JSON are in each other."""
    level = [document]
    for _ in range(MOST_DEPTH + 1):
        level = [each for each in level if isinstance(each, dict | list)]
        if not level:
            return False
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
    return True


def without_nan(document: Any) -> Any:
    """``document`` with None in the place of NaN and infinities."""
    if isinstance(document, float):
        return document if math.isfinite(document) else None
    if isinstance(document, Mapping):
        return {key: without_nan(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [without_nan(value) for value in document]
    return document
