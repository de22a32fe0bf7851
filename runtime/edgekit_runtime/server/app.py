"""The service's routes: OpenAI's protocol over a supervised worker.

Requests that wait are bounded, and more are turned away with 429; when a client goes away its generation stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import importlib.resources
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from edgekit_runtime.errors import EdgekitError, InputError, UsageError
from edgekit_runtime.runtime import BASE
from edgekit_runtime.server import replies
from edgekit_runtime.server.adapters import Adapters, Busy
from edgekit_runtime.server.images import ImageReader
from edgekit_runtime.server.left_out import ASIDE
from edgekit_runtime.server.metrics import CONTENT_TYPE, Metrics
from edgekit_runtime.server.origins import is_foreign
from edgekit_runtime.server.requests import Asked, read_chat, read_completion, read_object
from edgekit_runtime.server.supervisor import SetAside, Supervisor, Unavailable
from edgekit_runtime.strict_json import strict_json

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 1024 * 1024
BODY_SECONDS = 30.0
RETRY_AFTER_S = 1
GONE = 499  # nobody reads it
DEFAULT_QUEUE = 32
DEFAULT_TIMEOUT_S = 600.0
PAGE_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'"
PAGE_FILES = {
    "/": ("status.html", "text/html"),
    "/status.js": ("status.js", "text/javascript"),
    "/status.css": ("status.css", "text/css"),
    "/colours.css": ("colours.css", "text/css"),
}
Handler = Callable[[Request], Awaitable[Response]]


def make_app(
    supervisor: Supervisor,
    adapters: Adapters,
    *,
    api_key: str | None = None,
    queue: int = DEFAULT_QUEUE,
    timeout: float = DEFAULT_TIMEOUT_S,
    images: ImageReader | None = None,
) -> Starlette:
    """The ASGI application over a started worker.

    Args:
        supervisor: answers; it is not closed here.
        adapters: takes adapters at run time.
        api_key: what clients have to send as ``Authorization: Bearer …``; None asks for nothing.
        queue: requests that may wait or run at once.
        timeout: seconds for an answer, waiting included.
        images: reads those of requests; None for a text bundle.
    """
    service = _Service(supervisor, adapters, queue, timeout, images or ImageReader(task="text", files=None))
    guarded = _Guard(api_key, service.metrics)
    return Starlette(
        routes=[
            *(Route(path, _page_file(*file)) for path, file in PAGE_FILES.items()),
            Route("/health", service.health),
            Route("/status", guarded(service.status)),
            Route("/metrics", guarded(service.show_metrics)),
            Route("/v1/models", guarded(service.models)),
            Route("/v1/chat/completions", guarded(service.chat), methods=["POST"]),
            Route("/v1/completions", guarded(service.complete), methods=["POST"]),
            Route("/v1/load_lora_adapter", guarded(service.load), methods=["POST"]),
            Route("/v1/unload_lora_adapter", guarded(service.unload), methods=["POST"]),
        ],
        exception_handlers={404: _no_such_route, 405: _no_such_route},
    )


class _Guard:
    """Asks for the key, and turns errors into OpenAI's form."""

    def __init__(self, api_key: str | None, metrics: Metrics) -> None:
        self._expected = None if api_key is None else f"Bearer {api_key}".encode()
        self._metrics = metrics

    def __call__(self, handler: Handler) -> Handler:
        async def guarded(request: Request) -> Response:
            given = request.headers.get("authorization", "").encode("latin-1")  # the bytes that were sent
            if self._expected is not None and not hmac.compare_digest(given, self._expected):
                return _error(401, "the API key is missing or wrong", "authentication_error", "invalid_api_key")
            if self._expected is None and is_foreign(request):
                return _error(403, "without an API key only this machine may ask", "permission_error", "foreign")
            try:
                return await handler(request)
            except SetAside as error:
                return _error(409, str(error), "invalid_request_error", "adapter_set_aside")
            except Busy as error:
                return _later(429, str(error), "rate_limit_error", "loading")
            except (InputError, UsageError) as error:
                return _error(400, str(error), "invalid_request_error")
            except Unavailable as error:
                return _later(503, str(error), "server_error", "unavailable")
            except TimeoutError:
                return _error(504, "the answer took too long", "server_error", "timeout")
            except ClientDisconnect:
                return Response(status_code=GONE)
            except Exception:
                log.exception("a request failed")
                return _error(500, "the service failed; its log says why", "server_error")

        return guarded


class _Service:
    def __init__(
        self, supervisor: Supervisor, adapters: Adapters, queue: int, timeout: float, images: ImageReader
    ) -> None:
        self._supervisor, self._adapters, self._images = supervisor, adapters, images
        self._queue, self._timeout, self._busy = queue, timeout, 0
        self.metrics = Metrics(lambda: supervisor.stats, lambda: supervisor.restarts)

    async def health(self, _: Request) -> Response:
        ready = self._supervisor.ready
        document = {"status": "ok" if ready else "restarting", "busy": self._busy}
        return JSONResponse(document, 200 if ready else 503)

    async def status(self, _: Request) -> Response:
        supervisor = self._supervisor
        return JSONResponse(
            {
                "ready": supervisor.ready,
                "worker": supervisor.pid,
                "busy": self._busy,
                "bundle": supervisor.bundle,
                "adapters": supervisor.models,
                "rejected": list(self._adapters.rejected),
                "restarts": supervisor.restarts,
                "errors": [{"time": time, "what": what} for time, what in supervisor.errors],
                "stats": supervisor.stats,
            }
        )

    async def show_metrics(self, _: Request) -> Response:
        return Response(self.metrics.text(), media_type=CONTENT_TYPE)

    async def models(self, _: Request) -> Response:
        names = [BASE, *(model["name"] for model in self._supervisor.models if ASIDE not in model)]
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "edgekit"} for name in names]
        return JSONResponse({"object": "list", "data": data})

    async def chat(self, request: Request) -> Response:
        asked = read_chat(read_object(await _body(request, self._images.max_body_bytes)))
        if urls := asked.options[0]["image"]:
            asked.options[0]["image"] = await self._images.read(urls)
        return await self._answer(request, asked)

    async def complete(self, request: Request) -> Response:
        return await self._answer(request, read_completion(read_object(await _body(request))))

    async def load(self, request: Request) -> Response:
        document = read_object(await _body(request))
        name, path = document.get("lora_name"), document.get("lora_path")
        if not isinstance(name, str) or not isinstance(path, str) or name == BASE:
            raise InputError("lora_name and lora_path are needed", f"name an adapter (not {BASE}) and its file")
        older = document.get("allow_downgrade", False)
        if not isinstance(older, bool):
            raise InputError("allow_downgrade has to be true or false", "correct it")
        entry = await self._adapters.load(name, Path(path), allow_downgrade=older)
        return JSONResponse({"status": "loaded", "id": entry["name"], "digest": entry["digest"]})

    async def unload(self, request: Request) -> Response:
        name = read_object(await _body(request)).get("lora_name")
        if not isinstance(name, str) or name == BASE or not self._knows(name):
            return _error(404, f"there is no adapter {name!r}", "invalid_request_error", "model_not_found")
        await self._adapters.unload(name)
        return JSONResponse({"status": "unloaded", "id": name})

    def _knows(self, model: str) -> bool:
        return model == BASE or any(each["name"] == model for each in self._supervisor.models)

    async def _answer(self, request: Request, asked: Asked) -> Response:
        if not self._knows(asked.model):
            return _error(404, f"there is no model {asked.model!r}", "invalid_request_error", "model_not_found")
        if self._busy + len(asked.options) > max(self._queue, len(asked.options)):
            self.metrics.requests.labels(asked.model, "refused").inc()
            return _later(429, "too many requests are waiting", "rate_limit_error", "queue_full")
        # From here to where it is counted nothing may be awaited: others would slip past the limit in between.
        if asked.stream:
            events = self._streamed(asked)
            try:
                async with _heeding(request):
                    await anext(events)  # accepted, or an error with a status of its own
            except _ClientGone:
                await events.aclose()
                return Response(status_code=GONE)
            return StreamingResponse(self._sent(asked, events), media_type="text/event-stream")
        with self._counted(len(asked.options)):
            try:
                async with _heeding(request):
                    return await self._whole(asked)
            except _ClientGone:
                return Response(status_code=GONE)

    @contextlib.contextmanager
    def _counted(self, prompts: int) -> Iterator[None]:
        """Prompts that run or wait, for as long as they do."""
        self._busy += prompts
        self.metrics.busy.set(self._busy)
        try:
            yield
        finally:
            self._busy -= prompts
            self.metrics.busy.set(self._busy)

    async def _streamed(self, asked: Asked) -> AsyncGenerator[dict[str, Any], None]:
        with self._counted(1):
            async with contextlib.aclosing(self._events(asked, asked.options[0])) as events:
                async for event in events:
                    yield event

    async def _whole(self, asked: Asked) -> Response:
        """All prompts at once, each answer in one piece."""

        async def one(options: dict[str, Any]) -> tuple[replies.Result, list[replies.Score]]:
            scores: list[replies.Score] = []
            async with contextlib.aclosing(self._events(asked, options)) as events:
                async for event in events:
                    scores += event.get("scores", ())
                    if event["op"] == "done":
                        return event["value"], scores
            raise AssertionError("an answer without an end")

        done = await asyncio.gather(*map(one, asked.options), return_exceptions=True)
        answers = []
        for outcome in done:
            if isinstance(outcome, BaseException):
                raise outcome
            answers.append(outcome)
        results, scores = zip(*answers, strict=True)
        return JSONResponse(replies.reply(asked, list(results), list(scores)))

    async def _sent(self, asked: Asked, events: AsyncGenerator[dict[str, Any], None]) -> AsyncGenerator[str, None]:
        """Server-sent events; leaving stops the generation."""
        try:
            if asked.chat:
                yield _event(replies.first_chunk(asked))
            async for event in events:
                if event["op"] == "text":
                    yield _event(replies.chunk(asked, event["text"], event["scores"]))
                else:
                    result = event["value"]
                    yield _event(replies.chunk(asked, None, [], result["finish_reason"]))
                    if asked.include_usage:
                        yield _event(replies.usage_chunk(asked, result))
            yield "data: [DONE]\n\n"
        except EdgekitError as error:  # the status has been sent
            yield _event(replies.error_document(str(error), "server_error"))
        except TimeoutError:
            yield _event(replies.error_document("the answer took too long", "server_error", "timeout"))
        finally:
            await events.aclose()

    async def _events(self, asked: Asked, options: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The worker's events for one prompt, within the time; what came of it goes into the metrics."""
        deadline = asyncio.get_running_loop().time() + self._timeout
        outcome = "cancelled"
        events = self._supervisor.answer(options)
        try:
            while True:
                left = deadline - asyncio.get_running_loop().time()
                event = await asyncio.wait_for(anext(events), left)
                if event["op"] == "done":
                    outcome = event["value"]["finish_reason"]
                    self.metrics.answered(asked.model, event["value"])
                yield event
                if event["op"] == "done":
                    return
        except TimeoutError:
            outcome = "timeout"
            raise
        except (InputError, UsageError):
            outcome = "bad"
            raise
        except Unavailable:
            outcome = "unavailable"
            raise
        finally:
            self.metrics.requests.labels(asked.model, outcome).inc()
            await events.aclose()


class _ClientGone(Exception):
    """Nobody reads the answer."""


@contextlib.asynccontextmanager
async def _heeding(request: Request) -> AsyncIterator[None]:
    """Stop the block, by _ClientGone, when the client goes away.  What it awaits first is begun at once."""
    me = asyncio.current_task()
    assert me is not None  # a request is handled in one
    inside = True
    gone = asyncio.ensure_future(_gone(request))
    gone.add_done_callback(lambda each: me.cancel() if inside and not each.cancelled() else None)
    try:
        yield
    except asyncio.CancelledError:
        if gone.cancelled() or not gone.done():
            raise
        me.uncancel()
        raise _ClientGone from None
    finally:
        inside = False
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _body(request: Request, for_images: int = 0) -> bytes:
    """The body, as long as it is not too long; a length that lies is noticed while reading."""
    body, most = bytearray(), MAX_BODY_BYTES + for_images
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > most:
                    raise InputError(f"the body is longer than {most} bytes", "send less")
    except TimeoutError:
        raise InputError(f"the body was not there after {BODY_SECONDS:g} s", "send it at once") from None
    return bytes(body)


def _page_file(name: str, kind: str) -> Handler:
    content = (importlib.resources.files("edgekit_runtime.server") / "page" / name).read_bytes()
    headers = {"Content-Security-Policy": PAGE_POLICY, "X-Content-Type-Options": "nosniff"}

    async def send(_: Request) -> Response:
        return HTMLResponse(content, headers=headers, media_type=kind)

    return send


def _event(document: dict[str, Any]) -> str:
    return f"data: {strict_json(document)}\n\n"


async def _no_such_route(request: Request, error: Exception) -> Response:
    """What Starlette says of paths and methods, in OpenAI's form; its headers name the methods that there are."""
    assert isinstance(error, HTTPException)
    said = f"{request.method} {request.url.path} is not answered here"
    response = _error(error.status_code, said, "invalid_request_error", "unknown_url")
    response.headers.update(error.headers or {})
    return response


def _later(status: int, message: str, kind: str, code: str) -> JSONResponse:
    response = _error(status, message, kind, code)
    response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


def _error(status: int, message: str, kind: str, code: str | None = None) -> JSONResponse:
    return JSONResponse(replies.error_document(message, kind, code), status_code=status)
