"""The service's routes.

Requests are answered one after another; those that wait are bounded, and more are turned away with 429.
"""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.generation import Stream
from edgekit_runtime.runtime import BASE, Runtime
from edgekit_runtime.server import protocol
from edgekit_runtime.server.protocol import ChatRequest

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 1024 * 1024
RETRY_AFTER_S = 1
Handler = Callable[[Request], Awaitable[Response]]


def make_app(runtime: Runtime, *, api_key: str | None = None, queue: int = 16) -> Starlette:
    """The ASGI application over one runtime.

    Args:
        runtime: answers; it is not closed here.
        api_key: what clients have to send as ``Authorization: Bearer …``; None asks for nothing.
        queue: requests that may wait or run at once.
    """
    service = _Service(runtime, queue)
    guarded = _Guard(api_key)
    return Starlette(
        routes=[
            Route("/health", service.health),
            Route("/v1/models", guarded(service.models)),
            Route("/v1/chat/completions", guarded(service.chat), methods=["POST"]),
            Route("/v1/load_lora_adapter", guarded(service.load), methods=["POST"]),
            Route("/v1/unload_lora_adapter", guarded(service.unload), methods=["POST"]),
        ]
    )


class _Guard:
    """Asks for the key, and turns errors into OpenAI's form."""

    def __init__(self, api_key: str | None) -> None:
        self._expected = None if api_key is None else f"Bearer {api_key}".encode()

    def __call__(self, handler: Handler) -> Handler:
        async def guarded(request: Request) -> Response:
            given = request.headers.get("authorization", "").encode()
            if self._expected is not None and not hmac.compare_digest(given, self._expected):
                return _error(401, "the API key is missing or wrong", "authentication_error", "invalid_api_key")
            try:
                return await handler(request)
            except (InputError, UsageError) as error:
                return _error(400, str(error), "invalid_request_error")
            except Exception:
                log.exception("a request failed")
                return _error(500, "the service failed; its log says why", "server_error")

        return guarded


class _Service:
    def __init__(self, runtime: Runtime, queue: int) -> None:
        self._runtime, self._queue, self._busy = runtime, queue, 0

    async def health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok", "busy": self._busy})

    async def models(self, _: Request) -> Response:
        names = [BASE, *(entry.name for entry in self._runtime.manifest.adapters)]
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "edgekit"} for name in names]
        return JSONResponse({"object": "list", "data": data})

    async def chat(self, request: Request) -> Response:
        chat = protocol.read_chat_request(await _body(request))
        if not self._knows(chat.model):
            return _error(404, f"there is no model {chat.model!r}", "invalid_request_error", "model_not_found")
        if self._busy >= self._queue:
            refused = _error(429, "too many requests are waiting", "rate_limit_error", "queue_full")
            refused.headers["Retry-After"] = str(RETRY_AFTER_S)
            return refused
        stream = self._runtime.stream(adapter=chat.model, **chat.options)  # checks everything, starts nothing
        if chat.stream:
            return StreamingResponse(self._events(chat, stream), media_type="text/event-stream")
        self._busy += 1
        try:
            await run_in_threadpool(_drain, stream)
        finally:
            self._busy -= 1
        assert stream.result is not None  # drained
        return JSONResponse(protocol.completion(chat, stream.result))

    async def load(self, request: Request) -> Response:
        document = await _object(request)
        name, path = document.get("lora_name"), document.get("lora_path")
        if not isinstance(name, str) or not isinstance(path, str) or name == BASE:
            raise InputError("lora_name and lora_path are needed", f"name an adapter (not {BASE}) and its file")
        entry = await run_in_threadpool(self._runtime.add_adapter, Path(path), name)
        log.info("adapter %s %s loaded from %s", entry.name, entry.version, path)
        return JSONResponse({"status": "loaded", "id": entry.name, "digest": entry.digest})

    async def unload(self, request: Request) -> Response:
        name = (await _object(request)).get("lora_name")
        if not isinstance(name, str) or name == BASE or not self._knows(name):
            return _error(404, f"there is no adapter {name!r}", "invalid_request_error", "model_not_found")
        await run_in_threadpool(self._runtime.remove_adapter, name)
        return JSONResponse({"status": "unloaded", "id": name})

    def _knows(self, model: str) -> bool:
        return model == BASE or any(entry.name == model for entry in self._runtime.manifest.adapters)

    async def _events(self, chat: ChatRequest, stream: Stream) -> AsyncIterator[str]:
        """Server-sent events; when the client has gone, generation stops before its next token."""
        self._busy += 1
        try:
            yield _event(protocol.chunk(chat, {"role": "assistant", "content": ""}))
            while (piece := await run_in_threadpool(next, stream, None)) is not None:
                yield _event(protocol.chunk(chat, {"content": piece}))
            assert stream.result is not None  # the stream has ended
            yield _event(protocol.chunk(chat, {}, stream.result.finish_reason))
            if chat.include_usage:
                yield _event(protocol.usage_chunk(chat, stream.result))
            yield "data: [DONE]\n\n"
        except InputError as error:  # the answer can't be finished, and the status has been sent
            yield _event(protocol.error_document(str(error), "server_error"))
        finally:
            self._busy -= 1
            stream.close()


def _drain(stream: Stream) -> None:
    for _ in stream:
        pass


async def _body(request: Request) -> bytes:
    """The body, as long as it is not too long; a length that lies is noticed while reading."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise InputError(f"the body is longer than {MAX_BODY_BYTES} bytes", "send less")
    return body


async def _object(request: Request) -> dict[str, Any]:
    try:
        document = json.loads(await _body(request))
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise InputError("the body is not a JSON object", "send one")
    return document


def _event(document: dict[str, Any]) -> str:
    return f"data: {json.dumps(document, ensure_ascii=False)}\n\n"


def _error(status: int, message: str, kind: str, code: str | None = None) -> JSONResponse:
    return JSONResponse(protocol.error_document(message, kind, code), status_code=status)
