"""Rows of a data set: JSONL in any of three common shapes, every error with file and line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit_runtime.chat import Message, check_messages, text_of
from edgekit_runtime.errors import InputError

IMAGE = "image"


@dataclass(frozen=True)
class Row:
    """One question with its reference answer.

    Attributes:
        messages: the conversation before the answer.
        answer: what the model shall say.
        images: files of an image row, in the order in which the messages speak of them.
        where: ``file:line``, for errors and reports.
        tools: descriptions of functions that the model may call, as chat templates take them.
        reply: the answer as a whole message where it is more than text (tool calls, reasoning); None where not.
    """

    messages: tuple[Message, ...]
    answer: str
    images: tuple[Path, ...]
    where: str
    tools: tuple[dict[str, Any], ...] = ()
    reply: Message | None = None


def load_rows(path: Path) -> list[Row]:
    """Read all rows of a JSONL file.

    A row is ``{"messages": […]}`` whose last message is the assistant's, ``{"prompt", "completion"}``, or
    ``{"instruction", "input", "output"}`` (``input`` may be left out).  Blank lines are skipped.

    Raises:
        InputError: missing, unreadable or empty file, or a row that is none of these; names file and line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors on Windows put a mark in front
    except FileNotFoundError:
        raise InputError(f"there is no data file {path}", "correct the path under data: in edgekit.yaml") from None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise InputError(f"{path}:{line}: it is not UTF-8", "save the file as UTF-8") from None
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror})", "check its permissions") from None
    # Not splitlines(): that would also cut at signs that JSON allows inside text, such as U+2028.
    lines = enumerate(text.split("\n"), 1)
    rows = [_row(line, path, number) for number, line in lines if line.strip()]
    if not rows:
        raise InputError(f"{path} has no rows", "put at least one JSON object in it, one a line")
    return rows


def data_digest(paths: Iterable[Path]) -> str:
    """sha256 over the bytes of data files and of the images in their rows, in this order."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
        for image in (image for row in load_rows(path) for image in row.images):
            digest.update(hashlib.sha256(image.read_bytes()).digest())
    return digest.hexdigest()


def _row(line: str, path: Path, number: int) -> Row:
    where = f"{path}:{number}"
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: it is not JSON ({error})", "put one whole JSON object on the line") from None
    if not isinstance(document, dict):
        raise InputError(f"{where}: it is not a JSON object", "put one {…} on the line")
    images = _images(document.pop(IMAGE, None), path.parent, where)
    for keys, read in _SHAPES.items():
        required = {key for key in keys if key != "input"}
        if required <= set(document) <= set(keys):
            messages, answer = read(document, where)
            _check_places(messages, len(images), where)
            for text in (*map(text_of, messages), answer):
                _check_text(text, where)
            if not answer.strip():
                raise InputError(f"{where}: the answer is empty", "write one, or drop the row")
            return Row(tuple(messages), answer, images, where)
    raise InputError(
        f"{where}: the keys {', '.join(map(str, document)) or '(none)'} are no known kind of row",
        'use {"messages"}, {"prompt", "completion"} or {"instruction", "input", "output"}',
    )


def _images(value: Any, folder: Path, where: str) -> tuple[Path, ...]:
    several = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(each, str) and each for each in several):
        raise InputError(f"{where}: {IMAGE} has to be a path, or a list of paths", "correct it")
    paths = tuple(folder / each for each in several)
    for path in paths:
        if not _is_file(path):
            raise InputError(f"{where}: there is no image {path}", "correct the path; it starts at the data file")
    return paths


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def _check_places(messages: list[Message], images: int, where: str) -> None:
    try:
        check_messages(messages, images)
    except InputError as error:
        raise InputError(f"{where}: {error.problem}", error.mend) from None


def _check_text(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        sign = ascii(text[error.start])
        raise InputError(f"{where}: {sign} is half a character", "write the whole one, or drop the row") from None


def _read_messages(document: dict[str, Any], where: str) -> tuple[list[Message], str]:
    messages = document["messages"]
    if not isinstance(messages, list):
        raise InputError(f"{where}: messages has to be a list", "see docs/formats.md")
    last = messages[-1] if messages else None
    if len(messages) < 2 or not isinstance(last, dict) or last.get("role") != "assistant":
        _check_places(messages, 0, where)
        raise InputError(f"{where}: the last message is not an answer", "end with a message of role assistant")
    _check_places(messages[-1:], 0, where)
    return messages[:-1], text_of(last)


def _read_completion(document: dict[str, Any], where: str) -> tuple[list[Message], str]:
    prompt, answer = _texts(document, ("prompt", "completion"), where)
    return [{"role": "user", "content": prompt}], answer


def _read_instruction(document: dict[str, Any], where: str) -> tuple[list[Message], str]:
    instruction, given, answer = _texts({"input": ""} | document, ("instruction", "input", "output"), where)
    return [{"role": "user", "content": f"{instruction}\n\n{given}" if given else instruction}], answer


def _texts(document: dict[str, Any], keys: tuple[str, ...], where: str) -> list[str]:
    for key in keys:
        if not isinstance(document[key], str):
            raise InputError(f"{where}: {key} has to be text", "put it in quotes")
    if not document[keys[0]].strip():
        raise InputError(f"{where}: {keys[0]} is empty", "write one, or drop the row")
    return [document[key] for key in keys]


_SHAPES: dict[tuple[str, ...], Callable[[dict[str, Any], str], tuple[list[Message], str]]] = {
    ("messages",): _read_messages,
    ("prompt", "completion"): _read_completion,
    ("instruction", "input", "output"): _read_instruction,
}
