"""Tools on the command line: a file of functions, which of them is called, and the calls that come."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.files.strict_json import strict_json

_FORM = 'give [{"type": "function", "function": {"name": "NAME", "parameters": {…}}}]'


def tool_options(path: Path | None, choice: str | None) -> dict[str, Any]:
    """Arguments of Runtime.stream for ``--tools`` and ``--tool-choice``.

    Raises:
        InputError: the file holds no list.
        UsageError: a choice without tools.
    """
    if path is None:
        if choice is not None:
            raise UsageError("--tool-choice has no tools to choose from", "give --tools FILE")
        return {}
    try:
        tools = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is no readable list of tools ({error})", "give a file of valid JSON in UTF-8"
        ) from None
    if not isinstance(tools, list):
        raise InputError(f"{path} is no list of tools", _FORM)
    named = choice not in (None, "auto", "none", "required")
    chosen = {"type": "function", "function": {"name": choice}} if named else choice
    return {"tools": tools, "tool_choice": chosen}


def call_lines(calls: Sequence[Mapping[str, Any]]) -> str:
    """Calls as text, each on a line of its own: ``{"name": …, "arguments": {…}}``."""
    return "".join(f"{strict_json(call['function'])}\n" for call in calls)
