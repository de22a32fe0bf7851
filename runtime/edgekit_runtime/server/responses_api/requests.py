"""OpenAI's Responses API: from a body to the arguments of :meth:`~edgekit_runtime.Runtime.stream`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from edgekit_runtime.errors import InputError, shown
from edgekit_runtime.prompts.thinking import EFFORTS, NO_EFFORT
from edgekit_runtime.prompts.tool_grammar import CHOICES
from edgekit_runtime.server.asked import Asked
from edgekit_runtime.server.fields import Fields
from edgekit_runtime.server.openai.parameters import borrowed
from edgekit_runtime.server.openai.requests import chat_of
from edgekit_runtime.server.openai.tool_requests import ALLOWED
from edgekit_runtime.server.parameters import check
from edgekit_runtime.server.responses_api.conversation import conversation
from edgekit_runtime.server.responses_api.parameters import REASONING, RESPONSE, STREAM_OPTIONS, TEXT

LOGPROBS = "message.output_text.logprobs"
_INCLUDED = (LOGPROBS, "reasoning.encrypted_content", "message.input_image.image_url")  # the others change nothing
_SUMMARIES = ("auto", "concise", "detailed")
_NAMED = '{"type": "function", "name": "NAME"}'
Document = dict[str, Any]


def read_response(document: Document, adapters: Sequence[str] = ()) -> Asked:
    """Check the body of a request for a response; see :func:`~edgekit_runtime.server.openai.requests.read_chat`.

    Raises:
        InputError: a value of the wrong kind, or a feature that isn't there.
    """
    ignored = check(document, RESPONSE)
    fields = Fields(document)
    text, reasoning = fields.object("text") or {}, fields.object("reasoning") or {}
    ignored += check(text, TEXT, "text") + check(reasoning, REASONING, "reasoning")
    ignored += check(fields.object("stream_options") or {}, STREAM_OPTIONS, "stream_options")
    fields.flag("store")
    fields.object("metadata")
    chat = borrowed(document) | {
        "model": document.get("model"),
        "messages": conversation(document.get("input"), fields.text("instructions")),
        "max_tokens": fields.number("max_output_tokens", int, 1),
        "stop": document.get("stop"),
        "stream": document.get("stream"),
        "response_format": _format(text.get("format")),
        "reasoning_effort": _effort(Fields(reasoning, "reasoning")),
        "parallel_tool_calls": fields.flag("parallel_tool_calls"),
        **_logprobs(fields),
    }
    if tools := _tools(fields.listed("tools") or []):
        chat["tools"] = tools
    chat["tool_choice"] = _choice(document.get("tool_choice"))
    return replace(chat_of(chat, adapters, ignored), splits=True)


def _format(wanted: Any) -> Document | None:
    """A text.format, as chats have it."""
    if wanted is None:
        return None
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind not in ("text", "json_object", "json_schema"):
        raise InputError("text.format is not one of text, json_object, json_schema", "set its type to one of them")
    if kind != "json_schema":
        return {"type": kind}
    if wanted.get("schema") is None:
        raise InputError("text.format has no schema", "put it at text.format.schema")
    return {"type": kind, "json_schema": {"schema": wanted["schema"]}}


def _effort(reasoning: Fields) -> str | None:
    """How much it reasons; summaries are taken, and reasoning comes as it is."""
    for name in ("summary", "generate_summary"):
        reasoning.one_of(name, *_SUMMARIES)
    return reasoning.one_of("effort", NO_EFFORT, *EFFORTS)


def _logprobs(fields: Fields) -> Document:
    included = fields.listed("include") or []
    for each in included:
        if each not in _INCLUDED:
            named = shown(each) if isinstance(each, str) else "something"
            raise InputError(f"include has {named}, which is not available", f"use {LOGPROBS} alone")
    alternatives = fields.number("top_logprobs", int, 0)
    if LOGPROBS in included:
        return {"logprobs": True, "top_logprobs": alternatives}
    if alternatives:
        raise InputError("top_logprobs needs log-probabilities", f'send "include": ["{LOGPROBS}"]')
    return {}


def _tools(tools: list[Any]) -> list[Document]:
    """Functions as chats have them."""
    return [_tool(tool, f"tool {number}") for number, tool in enumerate(tools, 1)]


def _tool(tool: Any, place: str) -> Document:
    kind = tool.get("type") if isinstance(tool, dict) else None
    if kind != "function":
        named = f"is of type {shown(kind)}" if isinstance(kind, str) else "has no type"
        raise InputError(f"{place} {named}, and functions alone are available here", "describe it as a function")
    function = {name: tool[name] for name in ("name", "description", "parameters") if tool.get(name) is not None}
    if not isinstance(function.get("name"), str):
        raise InputError(f"{place} has no name", 'send {"type": "function", "name": "NAME", "parameters": {…}}')
    return {"type": "function", "function": function}


def _choice(choice: Any) -> Any:
    """Which calls may come, as chats have it."""
    if choice is None or (isinstance(choice, str) and choice in CHOICES):
        return choice
    if isinstance(choice, dict) and choice.get("type") == ALLOWED:
        listed = choice.get("tools")
        named = [_named(each) for each in listed] if isinstance(listed, list) else None
        return {"type": ALLOWED, ALLOWED: {"mode": choice.get("mode"), "tools": named}}
    if not isinstance(choice, dict) or choice.get("type") != "function" or not isinstance(choice.get("name"), str):
        raise InputError(f"tool_choice is none of {', '.join(CHOICES)}", f"send one of them, or {_NAMED}")
    return _named(choice)


def _named(tool: Any) -> Any:
    """A function as chats name it."""
    return {"type": "function", "function": {"name": tool.get("name")}} if isinstance(tool, dict) else None
