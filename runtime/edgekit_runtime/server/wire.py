"""What the service's front and its worker say to each other: one JSON object a line, over a socket pair.

Front to worker::

    {"op": "start", "id": n, "options": {…}}        arguments of Runtime.stream; of each image "width",
                                                    "height" and "rgb", the number of bytes that follow the line;
                                                    with "progress": true it is told how the prompt is being read
    {"op": "embed", "id": n, "options": {…}}        arguments of Runtime.embedding_request
    {"op": "inspect", "id": n, "what": …, "options": {…}}
                                                    a method of Runtime.texts, or "count" for Runtime.count_tokens, and
                                                    its arguments; answered by "done" or "error"
    {"op": "cancel", "id": n}
    {"op": "load", "id": n, "path": …, "digest": …, "name": …, "version": …}
                                                    answered by "done" or "error", as are the next two
    {"op": "unload", "id": n, "name": …}
    {"op": "refresh", "id": n, "generation": …, "without": […]}
                                                    read the store again; digests that may not answer
    {"op": "mix", "id": 0}                          decode different adapters together again, where the engine can

Worker to front::

    {"op": "ready"} or {"op": "error", "id": 0, …}   once, when the base is loaded or can't be
    {"op": "accepted", "id": n, "prompt_tokens": n, "thinking": …}
                                                     a request is sound and queued; how reasoning is told in its answer;
                                                     with "calls", how they are read, where some may come; with
                                                     "route", which adapter was chosen where it was asked for auto
    {"op": "progress", "id": n, "total": n, "cached": n, "processed": n, "ms": x}
                                                     so many of the prompt's tokens have been read
    {"op": "text", "id": n, "text": …, "scores": […]}
                                                     calls as the model writes them; the first one has the prompt's
                                                     scores as "echoed"
    {"op": "done", "id": n, "value": …}              the whole Generation, "vectors" of texts (float32 in base64)
                                                     with "usage", or a command's answer
    {"op": "error", "id": n, "type": …, "problem": …, "hint": …}
    {"op": "models", "models": […], "bundle": {…}}   when they change
    {"op": "beat", "stats": {…}}                     twice a second: the worker lives
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from edgekit_runtime import errors
from edgekit_runtime.errors import EdgekitError

BEAT_SECONDS = 0.5
NO_MEMORY = 137  # exit code of a worker that has none left, as shells tell of one that the kernel ended for it
Message = dict[str, Any]


def pack(message: Message) -> bytes:
    """One line."""
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass") + b"\n"


def unpack(line: bytes | bytearray) -> Message:
    """The message of a line."""
    message: Message = json.loads(line)
    return message


def with_pixels(message: Message) -> list[bytes]:
    """One line, and the pixels of its images as they are: JSON would cost all others the time to read it."""
    images = _images(message)
    if not images:
        return [pack(message)]
    counted = [each | {"rgb": len(each["rgb"])} for each in images]
    return [
        pack(message | {"options": message["options"] | {"image": counted}}),
        *(each["rgb"] for each in images),
    ]


class Incoming:
    """Messages out of bytes, in whatever pieces they come."""

    def __init__(self) -> None:
        self._unread = bytearray()
        self._looked = 0  # at so many of them: there is no end of a line
        self._message: Message | None = None  # whose pixels are coming
        self._without: list[Message] = []  # its images that have none

    def feed(self, data: bytes) -> Iterator[Message]:
        """What is there as a whole now."""
        self._unread += data
        while (message := self._next()) is not None:
            yield message

    def _next(self) -> Message | None:
        if self._message is None:
            end = self._unread.find(b"\n", self._looked)
            if end < 0:
                self._looked = len(self._unread)
                return None
            self._message = unpack(self._take(end + 1))
            self._without = _images(self._message)
            self._looked = 0
        while self._without:
            size = self._without[0]["rgb"]
            if len(self._unread) < size:
                return None
            self._without.pop(0)["rgb"] = self._take(size)
        message, self._message = self._message, None
        return message

    def _take(self, size: int) -> bytes:
        with memoryview(self._unread) as unread, unread[:size] as taken:
            data = bytes(taken)
        del self._unread[:size]
        return data


def _images(message: Message) -> list[Message]:
    return list(message.get("options", {}).get("image") or ())


def error_message(number: int, error: EdgekitError) -> Message:
    """An error as a message."""
    kind = type(error).__name__
    return {"op": "error", "id": number, "type": kind, "problem": error.problem, "hint": error.hint}


def message_error(message: Message) -> EdgekitError:
    """The error of a message."""
    kind: type[EdgekitError] = getattr(errors, message["type"], EdgekitError)
    return kind(message["problem"], message["hint"])
