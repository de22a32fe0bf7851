"""JSON that every reader takes: Python writes NaN and Infinity as bare words, which are no JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def strict_json(document: Any, *, indent: int | None = None) -> str:
    """``document`` as JSON text; a figure that is no number becomes null."""
    return json.dumps(without_nan(document), indent=indent, ensure_ascii=False, allow_nan=False)


def without_nan(document: Any) -> Any:
    """``document`` with None in the place of NaN and infinities."""
    if isinstance(document, float):
        return document if math.isfinite(document) else None
    if isinstance(document, Mapping):
        return {key: without_nan(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [without_nan(value) for value in document]
    return document
