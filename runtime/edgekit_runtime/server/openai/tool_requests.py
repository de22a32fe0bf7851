"""Tools in OpenAI's requests: from a body to arguments of :meth:`~edgekit_runtime.Runtime.stream`."""

from __future__ import annotations

from typing import Any

from edgekit_runtime.errors import InputError
from edgekit_runtime.prompts.tool_grammar import AUTO, CHOICES, NONE

_NAMED = '{"type": "function", "function": {"name": "NAME"}}'


def read_tools(document: dict[str, Any]) -> dict[str, Any]:
    """The tools of a chat completion and which calls may come; the worker checks the functions themselves.

    Raises:
        InputError: a value of the wrong kind, or OpenAI's earlier names for them.
    """
    tools, choice = document.get("tools"), document.get("tool_choice")
    parallel = document.get("parallel_tool_calls")
    if not isinstance(tools, list | None):
        raise InputError("tools has to be a list of functions", "send a list, or leave it out")
    if not isinstance(choice, dict | None) and choice not in CHOICES:
        raise InputError(f"tool_choice is none of {', '.join(CHOICES)}", f"send one of them, or {_NAMED}")
    if not isinstance(parallel, bool | None):
        raise InputError("parallel_tool_calls has to be true or false", "send one of them, or leave it out")
    if any(isinstance(each, dict) and each.get("function_call") for each in document.get("messages") or ()):
        raise InputError("function_call in messages is not available", "send tool_calls instead")
    if not tools and choice in (None, NONE, AUTO):
        return {}
    return {"tools": tools or [], "tool_choice": choice, "parallel_tool_calls": parallel}
