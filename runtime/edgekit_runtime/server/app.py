"""The service's routes, over a supervised worker."""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from edgekit_runtime.errors import SHOWN
from edgekit_runtime.server import parameters
from edgekit_runtime.server.adapter_routes import AdapterRoutes
from edgekit_runtime.server.adapters import Adapters
from edgekit_runtime.server.answering import ROUTE, Answering, Dialect
from edgekit_runtime.server.anthropic import dialect as anthropic
from edgekit_runtime.server.anthropic.writing import anthropic_error
from edgekit_runtime.server.guard import Guard, Handler
from edgekit_runtime.server.images import ImageReader
from edgekit_runtime.server.metrics import CONTENT_TYPE, Connections, Metrics
from edgekit_runtime.server.models import model_cards
from edgekit_runtime.server.ollama.errors import ollama_error
from edgekit_runtime.server.ollama.routes import PREFIX as OLLAMA
from edgekit_runtime.server.ollama.routes import ollama_routes
from edgekit_runtime.server.openai import dialects as openai
from edgekit_runtime.server.refusals import NoModel, Refused, error_response, openai_error
from edgekit_runtime.server.responses_api import dialect as responses
from edgekit_runtime.server.supervisor import Supervisor
from edgekit_runtime.server.text_routes import TextRoutes

ANTHROPIC = "/v1/messages"
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
    cors: Sequence[str] = (),
) -> Starlette:
    """The ASGI application over a started worker.

    Args:
        supervisor: answers; it is not closed here.
        adapters: takes adapters at run time.
        api_key: what clients have to send as ``Authorization: Bearer …`` or ``x-api-key: …``; None asks for nothing.
        queue: requests that may wait or run at once.
        timeout: seconds for an answer, waiting included.
        images: reads those of requests; None for a text bundle.
        connections: counts of the server's; None where nobody counts them.
        cors: sites whose pages may ask.
    """
    connections = connections or Connections()
    metrics = Metrics(lambda: supervisor.stats, lambda: supervisor.restarts, connections)
    reader = images or ImageReader(task="text", files=None)
    answering = Answering(supervisor, metrics, reader, queue=queue, timeout=timeout)
    overview = _Overview(supervisor, adapters, answering, metrics, connections)
    of_texts = TextRoutes(supervisor, answering.read_object)
    of_adapters = AdapterRoutes(supervisor, adapters, answering.read_object)
    guarded = Guard(api_key, cors)

    def answers(dialect: Dialect) -> Handler:
        return guarded(answering.route(dialect), dialect.errors)

    def counts(dialect: Dialect, told: Callable[[int], dict[str, Any]]) -> Handler:
        return guarded(answering.counting(dialect, told), dialect.errors)

    return Starlette(
        routes=[
            *(Route(path, _page_file(*file)) for path, file in PAGE_FILES.items()),
            Route("/health", overview.health),
            Route("/status", guarded(overview.status)),
            Route("/metrics", guarded(overview.metrics)),
            Route("/v1/models", guarded(overview.models)),
            Route("/v1/models/{name}", guarded(overview.model)),
            Route("/v1/chat/completions", answers(openai.CHAT), methods=["POST"]),
            Route("/v1/completions", answers(openai.COMPLETION), methods=["POST"]),
            Route("/v1/embeddings", answers(openai.EMBEDDINGS), methods=["POST"]),
            Route("/v1/responses", answers(responses.RESPONSE), methods=["POST"]),
            Route("/v1/responses/input_tokens", counts(responses.RESPONSE, responses.counted), methods=["POST"]),
            Route("/v1/messages", answers(anthropic.MESSAGES), methods=["POST"]),
            Route("/v1/messages/count_tokens", counts(anthropic.TO_COUNT, anthropic.counted), methods=["POST"]),
            Route("/v1/load_lora_adapter", guarded(of_adapters.load), methods=["POST"]),
            Route("/v1/unload_lora_adapter", guarded(of_adapters.unload), methods=["POST"]),
            Route("/tokenize", guarded(of_texts.tokenize), methods=["POST"]),
            Route("/detokenize", guarded(of_texts.detokenize), methods=["POST"]),
            Route("/apply-template", guarded(of_texts.template), methods=["POST"]),
            Route("/tokenizer_info", guarded(of_texts.tokenizer)),
            Route("/lora-adapters", guarded(of_adapters.listed), methods=["GET", "POST"]),
            *ollama_routes(supervisor, answering, guarded),
        ],
        exception_handlers={404: _no_such_route, 405: _no_such_route},
        middleware=[_for_sites(cors)] if cors else [],
    )


def _for_sites(origins: Sequence[str]) -> Middleware:
    """Lets browsers show answers to pages of these sites; the key travels in headers, never in cookies."""
    return Middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=[parameters.IGNORED, ROUTE, "Retry-After"],
    )


class _Overview:
    """What this service is and does now."""

    def __init__(
        self,
        supervisor: Supervisor,
        adapters: Adapters,
        answering: Answering,
        metrics: Metrics,
        connections: Connections,
    ) -> None:
        self._supervisor, self._adapters, self._answering = supervisor, adapters, answering
        self._metrics, self._connections = metrics, connections

    async def health(self, _: Request) -> Response:
        ready = self._supervisor.ready
        document = {"status": "ok" if ready else "restarting", "busy": self._answering.busy}
        return JSONResponse(document, 200 if ready else 503)

    async def status(self, _: Request) -> Response:
        supervisor = self._supervisor
        return JSONResponse(
            {
                "ready": supervisor.ready,
                "worker": supervisor.pid,
                "busy": self._answering.busy,
                "connections": asdict(self._connections),
                "bundle": supervisor.bundle,
                "adapters": supervisor.models,
                "rejected": list(self._adapters.rejected),
                "restarts": supervisor.restarts,
                "errors": [{"time": time, "what": what} for time, what in supervisor.errors],
                "stats": supervisor.stats,
            }
        )

    async def metrics(self, _: Request) -> Response:
        return Response(self._metrics.text(), media_type=CONTENT_TYPE)

    async def models(self, _: Request) -> Response:
        return JSONResponse({"object": "list", "data": model_cards(self._supervisor), "has_more": False})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        found = next((card for card in model_cards(self._supervisor) if card["id"] == name), None)
        if found is None:
            raise NoModel(name)
        return JSONResponse(found)


def _page_file(name: str, kind: str) -> Handler:
    content = (importlib.resources.files("edgekit_runtime.server") / "page" / name).read_bytes()
    headers = {"Content-Security-Policy": PAGE_POLICY, "X-Content-Type-Options": "nosniff"}

    async def send(_: Request) -> Response:
        return HTMLResponse(content, headers=headers, media_type=kind)

    return send


async def _no_such_route(request: Request, error: Exception) -> Response:
    """What Starlette says of paths and methods, as their clients read it; headers name the methods that there are."""
    assert isinstance(error, HTTPException)
    asked = f"{request.method} {request.url.path}"
    asked = asked if len(asked) <= SHOWN else f"{asked[:SHOWN]}..."
    refused = Refused(error.status_code, f"{asked} is not answered here", "invalid_request_error", "unknown_url")
    path = request.url.path
    form = ollama_error if path.startswith(OLLAMA) else anthropic_error if path.startswith(ANTHROPIC) else openai_error
    response = error_response(refused, form)
    response.headers.update(error.headers or {})
    return response
