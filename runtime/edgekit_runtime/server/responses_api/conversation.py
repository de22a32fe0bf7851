"""Items of OpenAI's Responses API as messages of a chat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgekit_runtime.errors import InputError, shown
from edgekit_runtime.prompts.system import BETWEEN

Message = dict[str, Any]
_TEXTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}  # and where their text is
_ROLES = ("user", "assistant", "system", "developer")
_TELLING = ("system", "developer")


def conversation(given: Any, instructions: str | None) -> list[Message]:
    """The messages of an input, with the instructions before them.

    Reasoning goes with the message or the calls behind it, and calls with the message that they came with.

    Args:
        given: a text, or items.
        instructions: the system's.

    Raises:
        InputError: an item that is none, or of a kind that is not taken.
    """
    talk = _Talk()
    if isinstance(given, str):
        talk.say("user", given)
    elif isinstance(given, list):
        for number, item in enumerate(given, 1):
            talk.take(item, f"item {number} of input")
    else:
        raise InputError("input has to be text or a list of items", 'send "input": "text"')
    return _instructed(talk.messages, instructions)


def _instructed(messages: list[Message], instructions: str | None) -> list[Message]:
    """A conversation whose instructions are one message: templates have a place for one."""
    told = [instructions] if instructions else []
    while messages and messages[0]["role"] in _TELLING and isinstance(messages[0]["content"], str):
        told.append(messages.pop(0)["content"])
    return [{"role": "system", "content": BETWEEN.join(told)}, *messages] if told else messages


class _Talk:
    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._thought = ""  # that no message has yet
        self._kinds: dict[str, Callable[[dict[str, Any], str], None]] = {
            "message": self._message,
            "reasoning": self._reasoning,
            "function_call": self._call,
            "function_call_output": self._output,
        }

    def take(self, item: Any, place: str) -> None:
        kind = item.get("type", "message") if isinstance(item, dict) else None
        taken = self._kinds.get(kind) if isinstance(kind, str) else None
        if kind == "item_reference":
            raise InputError(f"{place} is a reference, and nothing is stored here", "send the item itself")
        if taken is None:
            named = f"is of type {shown(kind)}" if isinstance(kind, str) else "has no type"
            raise InputError(f"{place} {named}, which is not available", f"send {', '.join(self._kinds)}")
        taken(item, place)

    def say(self, role: str, content: Any) -> Message:
        """One more message; with what was thought before, if it is the assistant's."""
        message = {"role": role, "content": content}
        if role == "assistant" and self._thought:
            message["reasoning_content"] = self._thought
        self._thought = ""
        self.messages.append(message)
        return message

    def _message(self, item: dict[str, Any], place: str) -> None:
        role = item.get("role")
        if role not in _ROLES:
            raise InputError(f"{place} has no known role", f"use one of {', '.join(_ROLES)}")
        self.say(role, _content(item.get("content"), place))

    def _reasoning(self, item: dict[str, Any], place: str) -> None:
        parts = item.get("content") or []
        if not isinstance(parts, list) or not all(isinstance(each, dict) for each in parts):
            raise InputError(f"{place}: content has to be a list of objects", "send it as it came, or leave it out")
        texts = [each["text"] for each in parts if isinstance(each.get("text"), str)]
        self._thought = BETWEEN.join(each for each in (self._thought, *texts) if each)

    def _call(self, item: dict[str, Any], place: str) -> None:
        name, arguments, identity = item.get("name"), item.get("arguments"), item.get("call_id")
        if not all(isinstance(each, str) and each for each in (name, arguments, identity)):
            raise InputError(f"{place} is no function_call", "give it call_id, name and arguments, as they came")
        call = {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}
        last = self.messages[-1] if self.messages else None
        if last is None or last["role"] != "assistant" or self._thought:
            last = self.say("assistant", None)
        last.setdefault("tool_calls", []).append(call)

    def _output(self, item: dict[str, Any], place: str) -> None:
        identity = item.get("call_id")
        if not isinstance(identity, str):
            raise InputError(f"{place} has no call_id", "send that of its function_call")
        self.say("tool", _content(item.get("output"), place))["tool_call_id"] = identity


def _content(content: Any, place: str) -> str | list[dict[str, Any]]:
    """What is said, as chats have it."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InputError(f"{place} has no text", "send a text, or a list of parts")
    return [_part(each, place) for each in content] or ""


def _part(part: Any, place: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    text = part.get(_TEXTS[kind]) if isinstance(kind, str) and kind in _TEXTS else None
    if isinstance(text, str):
        return {"type": "text", "text": text}
    url = part.get("image_url") if kind == "input_image" else None
    if isinstance(url, str):
        return {"type": "image_url", "image_url": {"url": url}}
    if kind == "input_image":
        raise InputError(f"{place} has an image without image_url", "send a data: URL: no files are stored here")
    named = f"of type {shown(kind)}" if isinstance(kind, str) else "without a type"
    raise InputError(f"{place} has a part {named} that is not available", "send input_text and input_image alone")
