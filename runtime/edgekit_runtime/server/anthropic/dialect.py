"""Requests for messages, and for the tokens of their prompts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from edgekit_runtime.server.answering import Dialect, Writer
from edgekit_runtime.server.anthropic.requests import read_messages, read_to_count
from edgekit_runtime.server.anthropic.writing import MessageWriter, anthropic_error
from edgekit_runtime.server.asked import Asked
from edgekit_runtime.server.bodies import ImagePlaces


def _messages(document: dict[str, Any], adapters: Sequence[str]) -> tuple[Asked, Writer]:
    asked = read_messages(document, adapters)
    return asked, MessageWriter(asked)


def _to_count(document: dict[str, Any], adapters: Sequence[str]) -> tuple[Asked, Writer]:
    asked = read_to_count(document, adapters)
    return asked, MessageWriter(asked)


def counted(tokens: int) -> dict[str, Any]:
    """How many tokens a prompt has, as Anthropic's clients read it."""
    return {"input_tokens": tokens}


# Of {"type": "base64", "media_type": …, "data": …} or {"type": "url", "url": "data:…"}, in any order.
_SOURCES = ImagePlaces(
    re.compile(rb'"(?:url"\s{0,16}:\s{0,16}"(?=data:)|data"\s{0,16}:\s{0,16}")'),
    beside=re.compile(rb'"type"\s{0,16}:\s{0,16}"(?:base64|url)"'),
)
MESSAGES, TO_COUNT = (Dialect(read, anthropic_error, _SOURCES) for read in (_messages, _to_count))
