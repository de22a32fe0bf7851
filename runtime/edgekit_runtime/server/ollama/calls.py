"""Calls of tools in Ollama's conversations: its clients name the function whose result they send, where OpenAI's have
ids.
"""

from __future__ import annotations

from typing import Any

Message = dict[str, Any]


def with_ids(messages: list[Message]) -> list[Message]:
    """The same conversation with an id for each call, and that of its call for each result.

    A result belongs to the first call of its function that has none yet, or to the first call of any.  What isn't
    sound is left to the runtime's own check.
    """
    found: list[Message] = []
    waiting: list[tuple[str, str]] = []  # calls without results: function and id
    for number, message in enumerate(messages):
        if message.get("tool_calls"):
            calls = [_with_id(call, f"call{number}x{at}") for at, call in enumerate(message["tool_calls"])]
            waiting = [(_name(call), call["id"]) for call in calls if isinstance(call, dict)]
            message = message | {"tool_calls": calls}
        elif message.get("role") == "tool" and (call := _answered(message, waiting)) is not None:
            waiting.remove(call)
            message = {"name": call[0], "tool_call_id": call[1]} | message
        found.append(message)
    return found


def _answered(message: Message, waiting: list[tuple[str, str]]) -> tuple[str, str] | None:
    """The call that a result is for."""
    identity, name = message.get("tool_call_id"), message.get("name")
    if identity:
        return next((call for call in waiting if call[1] == identity), None)
    return next((call for call in waiting if call[0] == name), waiting[0] if waiting else None)


def _with_id(call: Any, identity: str) -> Any:
    return call if not isinstance(call, dict) or call.get("id") else call | {"id": identity}


def _name(call: dict[str, Any]) -> str:
    function = call.get("function")
    return str(function.get("name")) if isinstance(function, dict) else ""


def told(call: dict[str, Any], number: int) -> dict[str, Any]:
    """A call of an answer: arguments are an object there."""
    function = call["function"]
    named = {"id": call["id"]} if call.get("id") else {}
    return named | {"function": {"index": number, "name": function["name"], "arguments": function["arguments"]}}
