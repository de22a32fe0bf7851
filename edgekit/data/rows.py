"""One object of a file to a row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekit.data.columns import Columns
from edgekit.data.images import place_images, read_images
from edgekit.data.messages import read_messages
from edgekit.data.row import Record, Row
from edgekit.data.shapes import read_shape, with_each_answer
from edgekit.data.tools import read_tools
from edgekit.data.values import check_value
from edgekit_runtime.errors import InputError
from edgekit_runtime.prompts.chat import Message, check_messages, text_of


def read_row(record: Record, folder: Path, columns: Columns, *, preferences: bool = False) -> Row:
    """The row that an object is.

    Args:
        record: the object and its place.
        folder: where paths of images start.
        columns: which columns are left out or called otherwise.
        preferences: the object has a chosen and a rejected answer; the row is that of the chosen one.

    Raises:
        InputError: it is of no known kind, or something in it can't be right; names file and line.
    """
    where = record.where
    if not isinstance(record.value, dict):
        raise InputError(f"{where}: it is not a JSON object", "put one {…} on the line")
    document = columns.apply(record.value, where)
    if not preferences:
        return _row(document, folder, columns, where)
    chosen, rejected = (_row(each, folder, columns, where) for each in with_each_answer(document, where))
    if (chosen.messages, chosen.tools) != (rejected.messages, rejected.tools):
        raise InputError(f"{where}: chosen and rejected answer different questions", "give both the same messages")
    if (chosen.answer, chosen.reply) == (rejected.answer, rejected.reply):
        raise InputError(f"{where}: chosen and rejected are the same answer", "drop the row, or correct one")
    return replace(chosen, rejected=rejected)


def _row(document: dict[str, Any], folder: Path, columns: Columns, where: str) -> Row:
    images = read_images(document, folder, where)
    draft = read_shape(document, where, columns)
    check_value([draft.messages, draft.system], where)
    tools = read_tools(draft.tools, where)
    messages = _with_system(read_messages(draft.messages, where, columns), draft.system, where)
    check_value([messages, list(tools)], where)  # once more: JSON in texts has become values
    *before, last = _ending_in_answer(messages, where)
    before = _checked(place_images(before, len(images)), len(images), where)
    _checked([last], 0, where)
    answer = _answer(last)
    if not answer.strip():
        raise InputError(f"{where}: the answer is empty", "write one, or drop the row")
    reply = last if set(last) > {"role", "content"} else None
    return Row(tuple(before), answer, images, where, tools, reply)


def _with_system(messages: list[Message], system: str | None, where: str) -> list[Message]:
    if system is None:
        return messages
    if messages and messages[0]["role"] == "system":
        if text_of(messages[0]) == system:
            return messages
        raise InputError(f"{where}: there are two different system prompts", "keep one")
    return [{"role": "system", "content": system}, *messages]


def _ending_in_answer(messages: Sequence[Message], where: str) -> Sequence[Message]:
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise InputError(
            f"{where}: the last message is not an answer",
            "end with a message of role assistant that has others before it",
        )
    return messages


def _checked(messages: list[Message], images: int, where: str) -> list[Message]:
    try:
        check_messages(messages, images)
    except InputError as error:
        raise InputError(f"{where}: {error.problem}", error.hint) from None
    return messages


def _answer(message: Message) -> str:
    """What the message says; calls of tools as JSON, one a line."""
    calls: list[Any] = [call["function"] for call in message.get("tool_calls", ())]
    said = [text_of(message), *(json.dumps(call, ensure_ascii=False) for call in calls)]
    return "\n".join(part for part in said if part) if calls else said[0]
