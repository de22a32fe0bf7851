"""What the service's front and its worker say to each other: one JSON object a line, over a socket pair.

Front to worker::

    {"op": "start", "id": n, "options": {…}}        arguments of Runtime.stream; images as Picture.as_wire
    {"op": "cancel", "id": n}
    {"op": "load", "id": n, "path": …, "digest": …, "name": …, "version": …}
                                                    answered by "done" or "error", as are the next two
    {"op": "unload", "id": n, "name": …}
    {"op": "refresh", "id": n, "generation": …, "without": […]}
                                                    read the store again; digests that may not answer

Worker to front::

    {"op": "ready"} or {"op": "error", "id": 0, …}   once, when the base is loaded or can't be
    {"op": "accepted", "id": n}                      a request is sound and queued
    {"op": "text", "id": n, "text": …, "scores": […]}
    {"op": "done", "id": n, "value": …}              the whole Generation, or a command's answer
    {"op": "error", "id": n, "type": …, "problem": …, "mend": …}
    {"op": "models", "models": […], "bundle": {…}}   when they change
    {"op": "beat", "stats": {…}}                     twice a second: the worker lives
"""

from __future__ import annotations

import json
from typing import Any

from edgekit_runtime import errors
from edgekit_runtime.errors import EdgekitError

BEAT_SECONDS = 0.5
Message = dict[str, Any]


def pack(message: Message) -> bytes:
    """One line."""
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass") + b"\n"


def unpack(line: bytes | bytearray) -> Message:
    """The message of a line."""
    message: Message = json.loads(line)
    return message


def error_message(number: int, error: EdgekitError) -> Message:
    """An error as a message."""
    kind = type(error).__name__
    return {"op": "error", "id": number, "type": kind, "problem": error.problem, "mend": error.mend}


def message_error(message: Message) -> EdgekitError:
    """The error of a message."""
    kind: type[EdgekitError] = getattr(errors, message["type"], EdgekitError)
    return kind(message["problem"], message["mend"])
