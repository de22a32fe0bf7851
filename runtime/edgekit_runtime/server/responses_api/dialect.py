"""Requests for responses, and for the tokens of their prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgekit_runtime.server.answering import Dialect, Writer
from edgekit_runtime.server.asked import Asked
from edgekit_runtime.server.responses_api.requests import read_response
from edgekit_runtime.server.responses_api.writing import ResponseWriter


def _response(document: dict[str, Any], adapters: Sequence[str]) -> tuple[Asked, Writer]:
    asked = read_response(document, adapters)
    return asked, ResponseWriter(asked, document)


def counted(tokens: int) -> dict[str, Any]:
    """How many tokens a prompt has, as OpenAI's clients read it."""
    return {"object": "response.input_tokens", "input_tokens": tokens}


RESPONSE = Dialect(_response)
