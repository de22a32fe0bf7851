"""Images of rows: their files, and their places in the messages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekit.data.row import IMAGE
from edgekit_runtime.errors import InputError
from edgekit_runtime.prompts.chat import IMAGE_PART, Message, parts_of

IMAGES = "images"  # as other trainers call it
_WRITTEN = "<image>"  # how LLaVA and LLaMA-Factory write the place of an image into the text


def read_images(document: dict[str, Any], folder: Path, where: str) -> tuple[Path, ...]:
    """Take the images out of a row's object.

    Raises:
        InputError: they are no paths, or there is no such file.
    """
    if IMAGE in document and IMAGES in document:
        raise InputError(f"{where}: there are {IMAGE} and {IMAGES}", "keep one")
    value = document.pop(IMAGE, document.pop(IMAGES, None))
    several = value if isinstance(value, list) else [] if value in (None, "") else [value]
    if any(isinstance(each, (bytes, dict)) for each in several):
        raise InputError(f"{where}: the {IMAGE} is inside the data file", "write it to a file of its own, and its path")
    if not all(isinstance(each, str) and each for each in several):
        raise InputError(f"{where}: {IMAGE} has to be a path, or a list of paths", 'write "image": "photo.jpg"')
    paths = tuple(folder / each for each in several)
    for path in paths:
        if not _is_file(path):
            shown = str(path).encode(errors="backslashreplace").decode()
            raise InputError(f"{where}: there is no image {shown}", "correct the path; it starts at the data file")
    return paths


def place_images(messages: Sequence[Message], count: int) -> list[Message]:
    """Messages whose texts say ``<image>`` as often as there are images, with these as parts; others as they are."""
    parts = [part for message in messages for part in parts_of(message)]
    written = sum(part["text"].count(_WRITTEN) for part in parts if part != IMAGE_PART)
    if not count or written != count or IMAGE_PART in parts:
        return list(messages)
    return [
        message if _WRITTEN not in _texts(message) else {**message, "content": _split(message)} for message in messages
    ]


def _texts(message: Message) -> str:
    return "".join(part["text"] for part in parts_of(message))


def _split(message: Message) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = []
    for part in parts_of(message):
        for number, text in enumerate(part["text"].split(_WRITTEN)):
            if number:
                result.append(IMAGE_PART)
                text = text.removeprefix("\n")
            if text:
                result.append({"type": "text", "text": text})
    return result


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or has a NUL in it
        return False
