"""Server-sent events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit_runtime.files.strict_json import strict_json

MEDIA_TYPE = "text/event-stream"
PING = ": working\n\n"  # a comment, which readers of server-sent events skip


def event_text(document: Mapping[str, Any], name: str | None = None) -> str:
    """One event; ``name`` is its kind, where clients read that."""
    named = "" if name is None else f"event: {name}\n"
    return f"{named}data: {strict_json(document)}\n\n"
