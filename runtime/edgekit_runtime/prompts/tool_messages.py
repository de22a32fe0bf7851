"""Tools, calls and their results for chat templates that leave them out.

What a template does is found out once, by rendering.  Where it lists no tools, they stand in the system message; where
it renders no calls, they are the text of :data:`~edgekit_runtime.prompts.tool_format.DEFAULT_FORMAT`; where it has no
place for results, they are a message of the user.  Training and devices share this, so both see the same text.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from edgekit_runtime.errors import InputError, shown
from edgekit_runtime.prompts.system import BETWEEN, joined
from edgekit_runtime.prompts.template import Message, TemplateOverBudget
from edgekit_runtime.prompts.tool_arguments import whole_object
from edgekit_runtime.prompts.tool_format import ToolFormat, default_text
from edgekit_runtime.prompts.tool_learning import PROBED, PROBED_TOOL, learnt
from edgekit_runtime.prompts.tool_syntax import ID_SIGNS, Call

Tools = Sequence[Mapping[str, Any]]
_SHORT_ID = re.compile(rf"[A-Za-z0-9]{{{ID_SIGNS}}}")
_RESULT = "5318264079"
_ABOUT = "You can call these functions.  Each line describes one as JSON:"
_HOW = (
    "To call one, write its name and its arguments as one JSON object between <tool_call> and </tool_call>.  "
    "Several calls stand one after another.  The results come back between <tool_response> and </tool_response>."
)
_EXAMPLE = default_text([Call("NAME", {"ARGUMENT": "VALUE"})])


class ToolMessages:
    """Conversations as one template can render them."""

    def __init__(self, render: Callable[..., str]) -> None:
        """Take a template's rendering: messages, ``tools`` and ``add_generation_prompt`` to text."""
        self._render = render

    @cached_property
    def form(self) -> ToolFormat:
        """How calls are written."""
        return learnt(self._render)

    @cached_property
    def lists_tools(self) -> bool:
        """Whether the template says which tools there are."""
        asked: list[Message] = [{"role": "user", "content": "?"}]
        try:
            return PROBED in self._render(asked, tools=[PROBED_TOOL], add_generation_prompt=True)
        except TemplateOverBudget:
            raise
        except InputError:
            return True

    @cached_property
    def renders_results(self) -> bool:
        """Whether it renders results, and knows of tools at all: some render whatever role as it is spelt."""
        if not self.lists_tools and not self.form.own:
            return False
        calls = [Call(PROBED, {}).message_form("abcdefgh1")]
        messages: list[Message] = [
            {"role": "user", "content": "?"},
            *self._said([{"role": "assistant", "content": None, "tool_calls": calls}]),
            {"role": "tool", "name": PROBED, "tool_call_id": "abcdefgh1", "content": _RESULT},
        ]
        try:
            return _RESULT in self._render(messages, tools=[PROBED_TOOL], add_generation_prompt=True)
        except TemplateOverBudget:
            raise
        except InputError:
            return True

    def given(self, messages: Sequence[Message], tools: Tools) -> tuple[list[Message], Tools]:
        """What the template gets for a conversation and its tools."""
        concerned = tools or any(each["role"] == "tool" or each.get("tool_calls") for each in messages)
        if not concerned:
            return list(messages), ()
        found = self._said(messages)
        if not self.renders_results:
            found = _results_of_user(found)
        if tools and not self.lists_tools:
            return _told(found, tools, explained=not self.form.own), ()
        return found, tools

    def _said(self, messages: Sequence[Message]) -> list[Message]:
        """Calls as the template renders them, or as text."""
        form = self.form
        found = []
        for message in messages:
            if message.get("tool_calls") and not form.own:
                message = _as_text(message)
            elif message.get("tool_calls") and form.wants_content and message.get("content") is None:
                message = {**message, "content": ""}
            found.append(message)
        return _with_short_ids(found) if form.short_ids else found


def _as_text(message: Message) -> Message:
    """An answer whose calls have become its text."""
    functions = (call["function"] for call in message["tool_calls"])
    written = default_text([Call(each["name"], each["arguments"]) for each in functions])
    said = message.get("content")
    bare = {key: value for key, value in message.items() if key != "tool_calls"}
    return {**bare, "content": joined(said, written, "\n") if said else written}


def _results_of_user(messages: Sequence[Message]) -> list[Message]:
    """Results as messages of the user, those of several calls as one."""
    found: list[Message] = []
    following = False
    for message in messages:
        is_result = message["role"] == "tool"
        if is_result:
            around = joined(joined("<tool_response>", message.get("content") or "", "\n"), "</tool_response>", "\n")
            if following:
                found[-1] = {**found[-1], "content": joined(found[-1]["content"], around, "\n")}
            else:
                found.append({"role": "user", "content": around})
        else:
            found.append(message)
        following = is_result
    return found


def _told(messages: list[Message], tools: Tools, *, explained: bool) -> list[Message]:
    """A conversation whose system message describes the tools, and how they are called where that is explained."""
    lines = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    text = f"{_ABOUT}\n<tools>\n{lines}\n</tools>" + (f"\n\n{_HOW}\n{_EXAMPLE}" if explained else "")
    if messages and messages[0]["role"] == "system":
        first = messages[0]
        said = first.get("content")
        return [{**first, "content": joined(said, text, BETWEEN) if said else text}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def _with_short_ids(messages: Sequence[Message]) -> list[Message]:
    """Ids that the template takes, the same for the same."""
    found = []
    for message in messages:
        if message.get("tool_calls"):
            calls = [{**call, "id": _short(call.get("id"), at)} for at, call in enumerate(message["tool_calls"])]
            message = {**message, "tool_calls": calls}
        if message.get("tool_call_id"):
            message = {**message, "tool_call_id": _short(message["tool_call_id"], 0)}
        found.append(message)
    return found


def _short(identity: Any, at: int) -> str:
    if isinstance(identity, str) and _SHORT_ID.fullmatch(identity):
        return identity
    given = identity if isinstance(identity, str) and identity else f"call {at}"
    return hashlib.sha256(given.encode()).hexdigest()[:ID_SIGNS]


def checked_calls(calls: Any, place: str) -> list[Message]:
    """Calls in a message as templates take them: arguments are objects.

    Args:
        calls: as OpenAI's clients send them, arguments as JSON text or as an object.
        place: of the message, for errors.

    Raises:
        InputError: they are none.
    """
    if not isinstance(calls, list):
        raise InputError(f"{place}: tool_calls has to be a list", _CALL_FORM)
    return [_checked_call(call, f"{place}: call {number}") for number, call in enumerate(calls, 1)]


_CALL_FORM = 'send [{"id": "NAME", "type": "function", "function": {"name": "NAME", "arguments": "{}"}}]'


def _checked_call(call: Any, place: str) -> Message:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise InputError(f"{place} has no function with a name", _CALL_FORM)
    if call.get("type", "function") != "function":
        raise InputError(f"{place} is of another type than function", _CALL_FORM)
    identity = call.get("id")
    if not (identity is None or isinstance(identity, str)):
        raise InputError(f"{place}: its id is no text", _CALL_FORM)
    arguments = function.get("arguments")
    try:
        arguments = whole_object(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        arguments = ()
    if not isinstance(arguments, dict | None):
        raise InputError(f"{place}: arguments of {shown(function['name'])} are no JSON object", _CALL_FORM)
    named = {"id": identity} if identity else {}
    return {**named, "type": "function", "function": {"name": function["name"], "arguments": arguments or {}}}
