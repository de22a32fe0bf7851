"""Requests for messages, and for the tokens of their prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgekit_runtime.server.answering import Dialect, Writer
from edgekit_runtime.server.anthropic.requests import read_messages, read_to_count
from edgekit_runtime.server.anthropic.writing import MessageWriter, anthropic_error
from edgekit_runtime.server.asked import Asked


def _messages(document: dict[str, Any], adapters: Sequence[str]) -> tuple[Asked, Writer]:
    asked = read_messages(document, adapters)
    return asked, MessageWriter(asked)


def _to_count(document: dict[str, Any], adapters: Sequence[str]) -> tuple[Asked, Writer]:
    asked = read_to_count(document, adapters)
    return asked, MessageWriter(asked)


def counted(tokens: int) -> dict[str, Any]:
    """How many tokens a prompt has, as Anthropic's clients read it."""
    return {"input_tokens": tokens}


MESSAGES, TO_COUNT = Dialect(_messages, anthropic_error), Dialect(_to_count, anthropic_error)
