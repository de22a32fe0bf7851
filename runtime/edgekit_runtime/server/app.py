"""The service's routes: OpenAI's protocol over a supervised worker.

Requests that wait are bounded, and more are turned away with 429; when a client goes away its generation stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.resources
from collections.abc import AsyncGenerator, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from edgekit_runtime.errors import SHOWN, EdgekitError, InputError, TargetError, UsageError, shown
from edgekit_runtime.files.strict_json import strict_json
from edgekit_runtime.formats.manifest import BASE
from edgekit_runtime.server import responses as replies
from edgekit_runtime.server.adapters import Adapters
from edgekit_runtime.server.bodies import (
    Images,
    Reading,
    Room,
    Share,
    cut_images,
    placed,
    read_body,
)
from edgekit_runtime.server.disconnects import ClientGone, heeding
from edgekit_runtime.server.guard import Guard, Handler, error_response, later
from edgekit_runtime.server.images import ImageReader
from edgekit_runtime.server.left_out import ASIDE
from edgekit_runtime.server.metrics import CONTENT_TYPE, Connections, Metrics
from edgekit_runtime.server.requests import Asked, read_chat, read_completion, read_object
from edgekit_runtime.server.supervisor import Supervisor
from edgekit_runtime.server.tool_responses import Deltas

DEFAULT_QUEUE = 32
DEFAULT_TIMEOUT_S = 600.0
PAGE_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'"
PAGE_FILES = {
    "/": ("status.html", "text/html"),
    "/status.js": ("status.js", "text/javascript"),
    "/status.css": ("status.css", "text/css"),
    "/colours.css": ("colours.css", "text/css"),
}


def make_app(
    supervisor: Supervisor,
    adapters: Adapters,
    *,
    api_key: str | None = None,
    queue: int = DEFAULT_QUEUE,
    timeout: float = DEFAULT_TIMEOUT_S,
    images: ImageReader | None = None,
    connections: Connections | None = None,
) -> Starlette:
    """The ASGI application over a started worker.

    Args:
        supervisor: answers; it is not closed here.
        adapters: takes adapters at run time.
        api_key: what clients have to send as ``Authorization: Bearer …``; None asks for nothing.
        queue: requests that may wait or run at once.
        timeout: seconds for an answer, waiting included.
        images: reads those of requests; None for a text bundle.
        connections: counts of the server's; None where nobody counts them.
    """
    images = images or ImageReader(task="text", files=None)
    service = _Service(supervisor, adapters, queue, timeout, images, connections or Connections())
    guarded = Guard(api_key)
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


class _Service:
    def __init__(
        self,
        supervisor: Supervisor,
        adapters: Adapters,
        queue: int,
        timeout: float,
        images: ImageReader,
        connections: Connections,
    ) -> None:
        self._supervisor, self._adapters, self._images = supervisor, adapters, images
        self._queue, self._timeout, self._busy = queue, timeout, 0
        self._room, self._reading = Room(), Reading()
        self._connections = connections
        self.metrics = Metrics(lambda: supervisor.stats, lambda: supervisor.restarts, connections)

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
                "connections": asdict(self._connections),
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
        with contextlib.ExitStack() as held:
            share = held.enter_context(self._room.share())
            asked = await self._read_chat(request, share)
            return await self._answer(request, asked, held.pop_all())

    async def _read_chat(self, request: Request, share: Share) -> Asked:
        """What is asked for; ``share`` holds the pixels of its images then, and its body no longer."""
        body = await read_body(request, share, self._images.max_body_bytes)
        asked, images = await self._reading.read(_chat_of if self._images.max_body_bytes else _text_chat_of, body)
        if urls := asked.options[0]["image"]:
            asked.options[0]["image"] = await self._images.read(placed(urls, images), share, len(body))
        share.hold(sum(len(each["rgb"]) for each in asked.options[0]["image"] or ()))
        return asked

    async def complete(self, request: Request) -> Response:
        with self._room.share() as share:
            asked = await self._reading.read(_completion_of, await read_body(request, share))
        return await self._answer(request, asked, contextlib.ExitStack())

    async def _object(self, request: Request) -> dict[str, Any]:
        with self._room.share() as share:
            return await self._reading.read(read_object, await read_body(request, share))

    async def load(self, request: Request) -> Response:
        document = await self._object(request)
        name, path = document.get("lora_name"), document.get("lora_path")
        if not isinstance(name, str) or not isinstance(path, str) or name == BASE:
            raise InputError("lora_name and lora_path are needed", f"name an adapter (not {BASE}) and its file")
        older = document.get("allow_downgrade", False)
        if not isinstance(older, bool):
            raise InputError("allow_downgrade has to be true or false", "send true, or leave it out")
        entry = await self._adapters.load(name, Path(path), allow_downgrade=older)
        return JSONResponse({"status": "loaded", "id": entry["name"], "digest": entry["digest"]})

    async def unload(self, request: Request) -> Response:
        name = (await self._object(request)).get("lora_name")
        if not isinstance(name, str) or name == BASE or not self._knows(name):
            return error_response(
                404, f"there is no adapter {shown(str(name))}", "invalid_request_error", "model_not_found"
            )
        await self._adapters.unload(name)
        return JSONResponse({"status": "unloaded", "id": name})

    def _knows(self, model: str) -> bool:
        return model == BASE or any(each["name"] == model for each in self._supervisor.models)

    async def _answer(self, request: Request, asked: Asked, held: contextlib.ExitStack) -> Response:
        """Answer; ``held`` is closed when that is done."""
        with contextlib.ExitStack() as here:
            here.enter_context(held)
            if (early := self._refused(asked)) is not None:
                return early
            # From here to where it is counted nothing may be awaited: others would slip past the limit in between.
            if not asked.stream:
                with self._counted(len(asked.options)):
                    async with heeding(request):
                        return await self._whole(asked)
            events = self._streamed(asked, here.pop_all())
            try:
                async with heeding(request):
                    accepted = await anext(events)  # or an error with a status of its own
            except ClientGone:
                await events.aclose()
                raise
        deltas = Deltas(accepted.get("calls"))
        return StreamingResponse(self._sent(asked, events, deltas), media_type="text/event-stream")

    def _refused(self, asked: Asked) -> Response | None:
        if not self._knows(asked.model):
            said = f"there is no model {shown(asked.model)}"
            return error_response(404, said, "invalid_request_error", "model_not_found")
        if self._busy + len(asked.options) > max(self._queue, len(asked.options)):
            self.metrics.requests.labels(asked.model, "refused").inc()
            return later(429, "too many requests are waiting", "rate_limit_error", "queue_full")
        return None

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

    async def _streamed(self, asked: Asked, held: contextlib.ExitStack) -> AsyncGenerator[dict[str, Any], None]:
        with held, self._counted(1):
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

    async def _sent(
        self, asked: Asked, events: AsyncGenerator[dict[str, Any], None], deltas: Deltas
    ) -> AsyncGenerator[str, None]:
        """Server-sent events; leaving stops the generation."""
        try:
            if asked.chat:
                yield _event(replies.first_chunk(asked))
            async for event in events:
                if event["op"] == "text" and not asked.chat:
                    yield _event(replies.chunk(asked, event["text"], event["scores"]))
                elif event["op"] == "text":
                    for each in replies.chunks(asked, deltas.feed(event["text"]), event["scores"]):
                        yield _event(each)
                else:
                    result = event["value"]
                    for each in replies.chunks(asked, deltas.finish(), []):
                        yield _event(each)
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
        except TargetError:
            outcome = "unavailable"
            raise
        finally:
            self.metrics.requests.labels(asked.model, outcome).inc()
            await events.aclose()


def _chat_of(body: bytearray) -> tuple[Asked, Images]:
    text, images = cut_images(body)
    return read_chat(read_object(text)), images


def _text_chat_of(body: bytearray) -> tuple[Asked, Images]:
    return read_chat(read_object(body)), {}


def _completion_of(body: bytearray) -> Asked:
    return read_completion(read_object(body))


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
    asked = f"{request.method} {request.url.path}"
    asked = asked if len(asked) <= SHOWN else f"{asked[:SHOWN]}..."
    response = error_response(
        error.status_code, f"{asked} is not answered here", "invalid_request_error", "unknown_url"
    )
    response.headers.update(error.headers or {})
    return response
