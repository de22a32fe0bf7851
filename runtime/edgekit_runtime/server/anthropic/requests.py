"""Anthropic's Messages API: from a body to the arguments of :meth:`~edgekit_runtime.Runtime.stream`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from edgekit_runtime.errors import InputError, shown
from edgekit_runtime.prompts.thinking import EFFORTS
from edgekit_runtime.prompts.tool_grammar import AUTO, NONE, REQUIRED
from edgekit_runtime.server.anthropic.conversation import conversation
from edgekit_runtime.server.anthropic.parameters import MESSAGES, OUTPUT_CONFIG, THINKING, THREADLESS, TOOL_CHOICE
from edgekit_runtime.server.asked import Asked
from edgekit_runtime.server.fields import Fields
from edgekit_runtime.server.openai.parameters import borrowed
from edgekit_runtime.server.openai.requests import chat_of
from edgekit_runtime.server.parameters import check
from edgekit_runtime.server.refusals import Refused

NO_THREADS = "thread_unsupported_request"  # by which Anthropic's clients know that they have to do without
_CHOICES = {"auto": AUTO, "any": REQUIRED, "none": NONE}  # and "tool"
_MODES = ("enabled", "disabled", "adaptive")
_DISPLAYS = ("summarized", "omitted")
_TOOL = '{"name": "NAME", "input_schema": {"type": "object", …}}'
Document = dict[str, Any]


def read_messages(document: Document, adapters: Sequence[str] = ()) -> Asked:
    """Check the body of a request for a message; see :func:`~edgekit_runtime.server.openai.requests.read_chat`.

    Raises:
        InputError: a value of the wrong kind, or a feature that isn't there.
        Refused: a thread, with the code that clients know.
    """
    fields = Fields(document)
    limit = fields.number("max_tokens", int, 1)
    if limit is None:
        raise InputError("max_tokens is missing", "say where to cut the answer off")
    return _read(document, fields, adapters, limit)


def read_to_count(document: Document, adapters: Sequence[str] = ()) -> Asked:
    """The same, for its prompt alone, which needs no limit.

    Raises:
        InputError, Refused: see :func:`read_messages`.
    """
    return _read(document, Fields(document), adapters, None)


def _read(document: Document, fields: Fields, adapters: Sequence[str], limit: int | None) -> Asked:
    if document.get("thread"):
        raise Refused(400, f"thread is not available: {THREADLESS}", "invalid_request_error", NO_THREADS)
    ignored = check(document, MESSAGES)
    wanted, thinking = fields.object("output_config") or {}, fields.object("thinking") or {}
    ignored += check(wanted, OUTPUT_CONFIG, "output_config") + check(thinking, THINKING, "thinking")
    fields.object("metadata")
    messages = conversation(document.get("system"), document.get("messages"))
    goes_on = bool(messages) and messages[-1]["role"] == "assistant"
    output, thought = Fields(wanted, "output_config"), Fields(thinking, "thinking")
    chat = {
        "model": document.get("model"),
        "messages": messages,
        "max_tokens": limit,
        "stop": fields.stops("stop_sequences", bare=False),
        "stream": document.get("stream"),
        "continue_final_message": goes_on or None,
        "response_format": _format(output.object("format")),
        "reasoning_effort": output.one_of("effort", *EFFORTS),
        **borrowed(document),
        **_thinking(thought),
        **_tools(fields),
    }
    asked = chat_of(chat, adapters, ignored)
    return replace(asked, splits=True, reasons=thought.one_of("display", *_DISPLAYS) != "omitted")


def _format(wanted: Document | None) -> Document | None:
    """An output_config.format, as chats have it."""
    if wanted is None:
        return None
    if wanted.get("type") != "json_schema" or wanted.get("schema") is None:
        raise InputError("output_config.format is no json_schema with a schema", "give it both")
    return {"type": "json_schema", "json_schema": {"schema": wanted["schema"]}}


def _thinking(thinking: Fields) -> Document:
    """Reasoning on or off, and its bound."""
    mode, budget = thinking.one_of("type", *_MODES), thinking.number("budget_tokens", int, 0)
    if mode == "enabled":
        if budget is None:
            raise InputError("thinking has no budget_tokens", "give it some, or send type adaptive")
        return {"enable_thinking": True, "thinking_budget": budget}
    if budget is not None:
        raise InputError("thinking.budget_tokens needs type enabled", "set it, or leave the budget out")
    return {"enable_thinking": False} if mode == "disabled" else {}


def _tools(fields: Fields) -> Document:
    """Functions and which calls may come, as chats have them."""
    choice = fields.object("tool_choice") or {}
    check(choice, TOOL_CHOICE, "tool_choice")
    chosen = Fields(choice, "tool_choice")
    kind, name = chosen.one_of("type", *_CHOICES, "tool"), chosen.text("name")
    alone = chosen.flag("disable_parallel_tool_use")
    if choice and kind is None:
        raise InputError("tool_choice has no type", f"give it one of {', '.join(_CHOICES)}, tool")
    if kind == "tool" and not name:
        raise InputError("tool_choice names no tool", 'send {"type": "tool", "name": "NAME"}')
    tools = [_tool(tool, f"tool {number}") for number, tool in enumerate(fields.listed("tools") or [], 1)]
    named = {"type": "function", "function": {"name": name}}
    return {
        "tools": tools or None,
        "tool_choice": named if kind == "tool" else _CHOICES[kind] if kind else None,
        "parallel_tool_calls": None if alone is None else not alone,
    }


def _tool(tool: Any, place: str) -> Document:
    given = tool if isinstance(tool, dict) else {}
    kind = given.get("type")
    if kind not in (None, "custom"):
        named = f"is of type {shown(kind)}" if isinstance(kind, str) else "has a type that is no text"
        raise InputError(f"{place} {named}, which is not available here", f"describe it: {_TOOL}")
    name, about, schema = given.get("name"), given.get("description"), given.get("input_schema")
    if not isinstance(name, str) or not isinstance(schema, dict) or not isinstance(about, str | None):
        raise InputError(f"{place} has no name or no input_schema", f"send {_TOOL}")
    function = {"name": name, "parameters": schema} | ({"description": about} if about is not None else {})
    return {"type": "function", "function": function}
