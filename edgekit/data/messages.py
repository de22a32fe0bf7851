"""Messages of all dialects (OpenAI, TRL, ShareGPT) to the one that chat templates take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.data.columns import Columns, refuse_unknown
from edgekit.data.source import MESSAGE_COLUMNS
from edgekit.data.tools import read_calls
from edgekit_runtime.errors import InputError, shown
from edgekit_runtime.hints import nearest
from edgekit_runtime.prompts.chat import IMAGE_PART, ROLES, Message

CALLING = "function_call"  # ShareGPT's role of a message that is a call
_NAMES = {
    **{role: role for role in ROLES},
    "developer": "system",
    "human": "user",
    **dict.fromkeys(("gpt", "chatgpt", "bot", "model"), "assistant"),
    **dict.fromkeys(("observation", "function", "function_response", "tool_response"), "tool"),
    **dict.fromkeys((CALLING, "tool_call"), CALLING),
}
REASONING = "reasoning_content"
_REASONING_NAMES = (REASONING, "thinking", "reasoning")
_FOR_ALL = ("role", "content", "name", "weight")
_FOR_ROLE = {"assistant": ("tool_calls", "function_call", *_REASONING_NAMES), "tool": ("tool_call_id",)}
_PARTS = 'give it as "content": a text, or a list of {"type": "text", "text": …} and {"type": "image"}'


def read_messages(values: Sequence[Any], where: str, columns: Columns) -> list[Message]:
    """Messages in the form of chat templates.

    Roles have OpenAI's names, arguments of calls are objects, reasoning stands under ``reasoning_content`` too.

    Args:
        values: what stands in the file.
        where: its place, for errors.
        columns: which keys are left out.

    Raises:
        InputError: there are none, or one without a known role and content.
    """
    if not values:
        raise InputError(f"{where}: there are no messages", "give at least one with role user")
    messages = [_message(value, f"{where}: message {number}", columns) for number, value in enumerate(values, 1)]
    _check_ids(messages, where)
    return messages


def _message(value: Any, place: str, columns: Columns) -> Message:
    if not isinstance(value, dict):
        raise InputError(f"{place} is no object", 'write {"role": …, "content": …}')
    given = {key: each for key, each in value.items() if each is not None}
    if "role" not in given and "from" in given:
        given["role"] = given.pop("from")
        if "content" not in given and "value" in given:
            given["content"] = given.pop("value")
    named = given.get("role")
    role = _NAMES.get(named) if isinstance(named, str) else None
    if role is None:
        told = "no role" if named is None else f"the role {shown(str(named))}, which is not known"
        near = None if named is None else nearest(named, _NAMES)
        meant = f"; did you mean {near}?" if near else ""
        raise InputError(f"{place} has {told}", f"use one of {', '.join(ROLES)}{meant}")
    if role == CALLING:
        if "tool_calls" in given:
            raise InputError(f"{place} has tool_calls, and its role says that the content is one", "keep one")
        given["tool_calls"] = read_calls(given.pop("content", None), place)
        role = "assistant"
    _check_keys(given, role, place, columns)
    message: Message = {"role": role, "content": None}
    if calls := _calls(given, place):
        message["tool_calls"] = calls
    if "content" in given or not calls:
        message["content"] = _content(given.get("content"), place)
    message |= _texts(given, ("name", "tool_call_id"), place)
    return message | _reasoning(given, place)


def _check_keys(given: dict[str, Any], role: str, place: str, columns: Columns) -> None:
    """Drop what is ignored, refuse what is unknown, and a weight that would not be heeded."""
    known = (*_FOR_ALL, *_FOR_ROLE.get(role, ()))
    for key in list(given):
        if columns.ignores_in_messages(key, known=key in known):
            del given[key]
    unknown = [key for key in given if key not in known]
    if unknown:
        raise refuse_unknown(unknown, known, place, MESSAGE_COLUMNS)
    if given.get("weight", 1) != 1 or isinstance(given.get("weight"), str):
        raise InputError(
            f"{place} has another weight than 1, and edgekit weighs all answers alike",
            "drop the message, or write ignore: [messages.weight] under data: in edgekit.yaml",
        )


def _content(value: Any, place: str) -> str | list[dict[str, Any]]:
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise InputError(f"{place} has no text", _PARTS)
    parts = [{key: each for key, each in part.items() if each is not None} for part in value if isinstance(part, dict)]
    if len(parts) < len(value) or not all(map(_is_part, parts)):
        raise InputError(f"{place} has no text", f"{_PARTS}; paths of images go under image, beside the messages")
    return parts


def _is_part(part: Mapping[str, Any]) -> bool:
    return part == IMAGE_PART or (
        set(part) == {"type", "text"} and part["type"] == "text" and isinstance(part["text"], str)
    )


def _calls(given: Mapping[str, Any], place: str) -> list[dict[str, Any]]:
    if "tool_calls" in given and "function_call" in given:
        raise InputError(f"{place} has tool_calls and function_call", "keep one")
    value = given.get("tool_calls", given.get("function_call"))
    return [] if value is None or value in ([], "") else read_calls(value, place)


def _texts(given: Mapping[str, Any], keys: Sequence[str], place: str) -> Message:
    found = {key: given[key] for key in keys if key in given}
    for key, value in found.items():
        if not isinstance(value, str):
            raise InputError(f"{place}: {key} has to be text", "put it in quotes")
    return found


def _reasoning(given: Mapping[str, Any], place: str) -> Message:
    """The reasoning under the key that the file has, and under the one that most templates read."""
    found = {key: text for key, text in _texts(given, _REASONING_NAMES, place).items() if text.strip()}
    if len(set(found.values())) > 1:
        raise InputError(f"{place} has two different texts of reasoning", f"keep {REASONING}")
    return {**found, REASONING: next(iter(found.values()))} if found else {}


def _check_ids(messages: Sequence[Message], where: str) -> None:
    """A result has to belong to a call before it, where both tell which."""
    known: set[str] = set()
    for number, message in enumerate(messages, 1):
        known.update(call["id"] for call in message.get("tool_calls", ()) if "id" in call)
        asked = message.get("tool_call_id")
        if asked is not None and known and asked not in known:
            raise InputError(
                f"{where}: message {number} answers a call that nobody made", "give it the id of a call as tool_call_id"
            )
