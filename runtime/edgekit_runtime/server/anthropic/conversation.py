"""Turns of Anthropic's Messages API as messages of a chat."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from edgekit_runtime.errors import InputError, shown
from edgekit_runtime.prompts.system import BETWEEN

Block = dict[str, Any]
Message = dict[str, Any]
_ROLES = ("user", "assistant", "system")


def conversation(system: Any, turns: Any) -> list[Message]:
    """The messages of a request; turns of the same role that follow each other are one.

    Args:
        system: a text, or blocks of text.
        turns: the request's messages.

    Raises:
        InputError: a block that is none, or of a kind that is not taken.
    """
    if not isinstance(turns, list):
        raise InputError("messages has to be a list", 'send at least {"role": "user", "content": "text"}')
    messages: list[Message] = []
    if system is not None and (told := _joined(_blocks(system, "system"), "system")):
        messages.append({"role": "system", "content": told})
    roles = [_role(turn, f"message {number}") for number, turn in enumerate(turns, 1)]
    places = itertools.groupby(range(len(turns)), key=roles.__getitem__)
    for role, numbers in places:
        blocks = [
            (block, f"message {number + 1}")
            for number in numbers
            for block in _blocks(turns[number].get("content"), f"message {number + 1}")
        ]
        messages += _of_assistant(blocks) if role == "assistant" else _of_user(role, blocks)
    return messages


def _role(turn: Any, place: str) -> str:
    role = turn.get("role") if isinstance(turn, dict) else None
    if not isinstance(role, str) or role not in _ROLES:
        raise InputError(f"{place} has no known role", f"use one of {', '.join(_ROLES)}")
    return role


def _blocks(content: Any, place: str) -> list[Block]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list) or not all(isinstance(each, dict) for each in content):
        raise InputError(f"{place} has no content", "send a text, or a list of blocks")
    return content


def _of_assistant(blocks: list[tuple[Block, str]]) -> list[Message]:
    """What was answered: text and calls in one message."""
    texts, thoughts, calls = [], [], []
    for block, place in blocks:
        match block.get("type"):
            case "text":
                texts.append(_text(block, place))
            case "thinking":
                thoughts.append(_text(block, place, "thinking"))
            case "redacted_thinking":  # nobody can read it
                pass
            case "tool_use":
                calls.append(_call(block, place))
            case kind:
                raise _unknown(kind, place, "text, thinking and tool_use")
    message: Message = {"role": "assistant", "content": BETWEEN.join(filter(None, texts)) or (None if calls else "")}
    if any(thoughts):
        message["reasoning_content"] = BETWEEN.join(filter(None, thoughts))
    return [message | ({"tool_calls": calls} if calls else {})]


def _of_user(role: str, blocks: list[tuple[Block, str]]) -> Iterator[Message]:
    """What was asked: results of calls, each a message of its own, and what stands between them."""
    for are_results, group in itertools.groupby(blocks, key=lambda each: each[0].get("type") == "tool_result"):
        if are_results:
            yield from (_result(*each) for each in group)
        else:
            yield {"role": role, "content": _parts(list(group))}
    if not blocks:
        yield {"role": role, "content": ""}


def _result(block: Block, place: str) -> Message:
    identity, content = block.get("tool_use_id"), block.get("content")
    if not isinstance(identity, str):
        raise InputError(f"{place} has a tool_result without tool_use_id", "send the id of its tool_use")
    parts = _parts([(each, place) for each in _blocks("" if content is None else content, f"{place}: a tool_result")])
    if block.get("is_error") is True:  # templates know no other way to say so
        parts = f"Error: {parts}" if isinstance(parts, str) else [{"type": "text", "text": "Error: "}, *parts]
    return {"role": "tool", "tool_call_id": identity, "content": parts}


def _parts(blocks: list[tuple[Block, str]]) -> str | list[Block]:
    """Texts and images as chats have them; one text where there are no images."""
    parts: list[Block] = []
    for block, place in blocks:
        match block.get("type"):
            case "text":
                text = _text(block, place)
                if parts and parts[-1]["type"] == "text":
                    parts[-1]["text"] += BETWEEN + text
                else:
                    parts.append({"type": "text", "text": text})
            case "image":
                parts.append({"type": "image_url", "image_url": {"url": _url(block.get("source"), place)}})
            case kind:
                raise _unknown(kind, place, "text, image and tool_result")
    if any(each["type"] != "text" for each in parts):
        return parts
    return parts[0]["text"] if parts else ""


def _url(source: Any, place: str) -> str:
    """Where an image is; one in base64 as a data: URL, whose data may have been cut out of the body."""
    given = source if isinstance(source, dict) else {}
    match given.get("type"):
        case "base64" if isinstance(given.get("data"), str) and isinstance(given.get("media_type"), str):
            return f"data:{given['media_type']};base64,{given['data']}"
        case "url" if isinstance(given.get("url"), str):
            return str(given["url"])
    form = '{"type": "base64", "media_type": "image/png", "data": …}'
    raise InputError(f"{place} has an image without a source that can be read", f"send {form}")


def _call(block: Block, place: str) -> Message:
    identity, name, given = block.get("id"), block.get("name"), block.get("input")
    if not isinstance(identity, str) or not isinstance(name, str) or not isinstance(given, dict):
        raise InputError(f"{place} has a tool_use without id, name or input", "send it back as it came")
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": given}}


def _joined(blocks: list[Block], place: str) -> str:
    texts = []
    for block in blocks:
        if block.get("type") != "text":
            raise _unknown(block.get("type"), place, "text")
        texts.append(_text(block, place))
    return BETWEEN.join(filter(None, texts))


def _text(block: Block, place: str, name: str = "text") -> str:
    text = block.get(name)
    if not isinstance(text, str):
        raise InputError(f"{place} has a {name} block without {name}", "give it one")
    return text


def _unknown(kind: Any, place: str, known: str) -> InputError:
    named = f"of type {shown(kind)}" if isinstance(kind, str) else "without a type"
    return InputError(f"{place} has a block {named}, which is not available", f"send {known}")
