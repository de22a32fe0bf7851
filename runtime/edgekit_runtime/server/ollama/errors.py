"""Errors as Ollama's clients read them."""

from __future__ import annotations

import re
from typing import Any

from edgekit_runtime.errors import SHOWN
from edgekit_runtime.server.refusals import NoModel, Refused

# What the runtime calls them -> Ollama's names.
_NAMES = {"enable_thinking": "think", "reasoning_effort": "think", "max_tokens": "num_predict"}
_OURS = re.compile(rf"\b(?:{'|'.join(_NAMES)})\b")


def ollama_error(refused: Refused) -> dict[str, Any]:
    """One text; clients look for "not found" in it to tell that a model is missing."""
    if isinstance(refused, NoModel):
        return {"error": f"model '{refused.name[:SHOWN]}' not found: GET /api/tags lists those that there are"}
    return {"error": _OURS.sub(lambda found: _NAMES[found[0]], str(refused))}
