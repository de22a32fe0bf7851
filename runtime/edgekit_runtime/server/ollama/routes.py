"""What Ollama's clients ask for besides answers: which models there are, what one is, and other models."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edgekit_runtime.files.strict_json import strict_json
from edgekit_runtime.formats.manifest import AUTO, BASE
from edgekit_runtime.server.answering import Answering
from edgekit_runtime.server.fields import Fields
from edgekit_runtime.server.guard import Guard, Handler
from edgekit_runtime.server.left_out import ASIDE
from edgekit_runtime.server.ollama import dialects, models, tables
from edgekit_runtime.server.ollama.errors import ollama_error
from edgekit_runtime.server.ollama.names import named
from edgekit_runtime.server.ollama.writing import OllamaWriter
from edgekit_runtime.server.parameters import check, header_of
from edgekit_runtime.server.refusals import NoModel, Refused
from edgekit_runtime.server.supervisor import Supervisor

PREFIX = "/api/"
VERSION = "0.33.0"  # of Ollama, whose API this is: clients ask for it to know what they may send
NOT_HERE = 501
# What Ollama does on its own machine, and how it is done here.
ELSEWHERE = {
    "pull": "nothing is downloaded here: POST /v1/load_lora_adapter loads an adapter file of this machine, "
    "`edgekit-runtime adapters install` installs files and bundles",
    "push": "nothing is sent from here: `edgekit deploy` sends bundles to devices",
    "create": "models are made on a workstation: `edgekit import-ollama MODELFILE` makes a bundle, "
    "`edgekit-runtime adapters install` installs it",
    "copy": "an adapter gets another name when it is loaded: POST /v1/load_lora_adapter",
    "delete": "POST /v1/unload_lora_adapter forgets an adapter, `edgekit-runtime adapters remove` takes it out of a "
    "store",
}


def ollama_routes(supervisor: Supervisor, answering: Answering, guarded: Guard) -> list[Route]:
    """All of its paths."""
    models_of = _Models(supervisor, answering.read_object)

    def route(name: str, handler: Handler, *methods: str) -> Route:
        return Route(f"{PREFIX}{name}", guarded(handler, ollama_error), methods=methods or ("POST",))

    return [
        route("chat", answering.route(dialects.CHAT)),
        route("generate", answering.route(dialects.GENERATE)),
        route("embed", answering.route(dialects.EMBED)),
        route("embeddings", answering.route(dialects.EMBEDDINGS)),
        route("version", models_of.version, "GET"),
        route("tags", models_of.tags, "GET"),
        route("ps", models_of.running, "GET"),
        route("show", models_of.show),
        route("pull", models_of.pull),
        *(route(what, _elsewhere(what)) for what in ("push", "create", "copy")),
        route("delete", _elsewhere("delete"), "DELETE"),
        route("blobs/{digest}", _elsewhere("create"), "GET", "POST"),
    ]


class _Models:
    """Lists and shows models."""

    def __init__(self, supervisor: Supervisor, read: Callable[[Request], Awaitable[dict[str, Any]]]) -> None:
        """Bodies are read by ``read``."""
        self._supervisor, self._read = supervisor, read

    async def version(self, _: Request) -> Response:
        """Ollama's, and our own."""
        own = importlib.metadata.version("edgekit-runtime")
        return JSONResponse({"version": VERSION, "edgekit_runtime": own})

    async def tags(self, _: Request) -> Response:
        """The models that there are."""
        return JSONResponse({"models": models.listed(self._supervisor)})

    async def running(self, _: Request) -> Response:
        """Those in memory."""
        return JSONResponse({"models": models.running(self._supervisor)})

    async def show(self, request: Request) -> Response:
        """One of them."""
        document = await self._read(request)
        ignored = check(document, tables.SHOW)
        name = self._known(document)
        # Of auto there is no more to say than of the base.
        about = await self._supervisor.inspect("about", {"model": BASE if self._chooses(name) else name})
        return JSONResponse(models.shown(self._supervisor, name, about), headers=header_of(ignored))

    async def pull(self, request: Request) -> Response:
        """A model that is here already is no work; others are not fetched."""
        document = await self._read(request)
        ignored = check(document, tables.PULL)
        try:
            self._known(document)
        except NoModel as error:
            raise Refused(NOT_HERE, f"{error}, and {ELSEWHERE['pull']}", "invalid_request_error", "not_here") from None
        done, headers = {"status": "success"}, header_of(ignored)
        if Fields(document).flag("stream") is False:
            return JSONResponse(done, headers=headers)
        return Response(f"{strict_json(done)}\n", media_type=OllamaWriter.media_type, headers=headers)

    def _known(self, document: dict[str, Any]) -> str:
        given, name = named(document, "model", "name")
        answering = {each["name"] for each in (*self._supervisor.models, *self._supervisor.stacks) if ASIDE not in each}
        if name not in (BASE, *answering) and not self._chooses(name):
            raise NoModel(given)
        return name

    def _chooses(self, name: str) -> bool:
        return name == AUTO and self._supervisor.chooses


def _elsewhere(what: str) -> Handler:
    """Refuses what is done in another way here, and says in which."""

    async def refuse(_: Request) -> Response:
        raise Refused(NOT_HERE, ELSEWHERE[what], "invalid_request_error", "not_here")

    return refuse
