"""A teacher on loopback that says what a test has written, failures included."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

AGAIN = {"retry-after-ms": "1"}  # so that a test needn't wait


@dataclass
class Said:
    """What is sent for a request: a text as a whole answer, or any status and body; ``cut`` breaks the connection."""

    text: str | None = None
    status: int = 200
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    finish: str = "stop"
    tokens: int | None = 30
    cut: bool = False


@dataclass
class ScriptedTeacher:
    """Where it listens, and the bodies and headers of all requests, in their order."""

    url: str
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def teacher_saying(script: Callable[[int, dict[str, Any]], Said]) -> Iterator[ScriptedTeacher]:
    """Answer each request with ``script(number from 0, body)`` until the block is left."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                number = len(teacher.asked)
                teacher.asked.append(body)
                teacher.headers.append({name.lower(): value for name, value in self.headers.items()})
            said = script(number, body)
            content = said.body if said.body is not None else _completion(said)
            self.send_response(said.status)
            self.send_header("content-type", "application/json")
            for name, value in said.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            if said.cut:
                self.wfile.write(content[: len(content) // 2])
                self.wfile.flush()
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    teacher = ScriptedTeacher(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield teacher
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _completion(said: Said) -> bytes:
    message = {"role": "assistant", "content": said.text}
    document: dict[str, Any] = {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "big",
        "choices": [{"index": 0, "message": message, "finish_reason": said.finish}],
    }
    if said.tokens is not None:
        usage = {"prompt_tokens": said.tokens - 10, "completion_tokens": 10, "total_tokens": said.tokens}
        document["usage"] = usage
    if said.status != 200:
        document = {"error": {"message": said.text or "no"}}
    return json.dumps(document).encode()
