"""Tools in OpenAI's requests: from a body to arguments of :meth:`~edgekit_runtime.Runtime.stream`."""

from __future__ import annotations

import json
from typing import Any

from edgekit_runtime.errors import InputError, shown
from edgekit_runtime.hints import did_you_mean
from edgekit_runtime.prompts.tool_grammar import AUTO, CHOICES, NONE, REQUIRED

ALLOWED = "allowed_tools"
_MODES = (AUTO, REQUIRED)
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
    if isinstance(choice, dict) and choice.get("type") == ALLOWED:
        tools, choice = _allowed(tools or [], choice.get(ALLOWED))
    if not tools and choice in (None, NONE, AUTO):
        return {}
    return {"tools": tools or [], "tool_choice": choice, "parallel_tool_calls": parallel}


def _allowed(tools: list[Any], allowed: Any) -> tuple[list[Any], Any]:
    """The tools that may be called, and whether one has to be; the model is told of no others."""
    given = allowed if isinstance(allowed, dict) else {}
    listed = given.get("tools")
    names = [_name(each) for each in listed] if isinstance(listed, list) else []
    if not names or None in names:
        form = {"mode": AUTO, "tools": [{"type": "function", "function": {"name": "NAME"}}]}
        raise InputError(f"tool_choice {ALLOWED} names no function", f"send {json.dumps({ALLOWED: form})}")
    if given.get("mode") not in _MODES:
        raise InputError(f"tool_choice {ALLOWED} has no mode", f"send one of {', '.join(_MODES)}")
    known = [_name(each) for each in tools]
    for name in names:
        if name not in known:
            hint = did_you_mean(str(name), [each for each in known if each], "tools has")
            raise InputError(f"tool_choice allows {shown(str(name))}, which is not among tools", hint)
    return [tool for tool, name in zip(tools, known, strict=True) if name in names], given["mode"]


def _name(tool: Any) -> str | None:
    function = tool.get("function") if isinstance(tool, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None
