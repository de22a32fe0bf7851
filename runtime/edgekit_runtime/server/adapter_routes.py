"""Adapters over HTTP, as vLLM loads and unloads them and llama-server lists them.

Errors that its clients look for are in vLLM's words.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from edgekit_runtime.errors import InputError, shown
from edgekit_runtime.formats.adapter import check_name
from edgekit_runtime.formats.manifest import BASE
from edgekit_runtime.server.adapters import Adapters
from edgekit_runtime.server.fields import Fields
from edgekit_runtime.server.models import lora_adapters
from edgekit_runtime.server.parameters import LOAD, UNLOAD, check, header_of
from edgekit_runtime.server.refusals import Refused
from edgekit_runtime.server.supervisor import Supervisor

PLAIN = "text/plain"


class AdapterRoutes:
    """Loads, unloads and lists."""

    def __init__(
        self, supervisor: Supervisor, adapters: Adapters, read: Callable[[Request], Awaitable[dict[str, Any]]]
    ) -> None:
        """Bodies are read by ``read``."""
        self._supervisor, self._adapters, self._read = supervisor, adapters, read

    async def load(self, request: Request) -> Response:
        """Load a file under a name."""
        document = await self._read(request)
        ignored, fields = check(document, LOAD), Fields(document)
        name, path = fields.text("lora_name"), fields.text("lora_path")
        if not name or not path or name == BASE:
            raise InputError(
                "Both 'lora_name' and 'lora_path' must be provided", f"name an adapter (not {BASE}) and its file"
            )
        check_name(name)
        older = fields.flag("allow_downgrade") is True
        in_place = fields.flag("load_inplace") is True or older
        entry = await self._adapters.load(name, Path(path), allow_downgrade=older, in_place=in_place)
        said = f"Success: LoRA adapter '{entry['name']}' added successfully."
        return _done(request, said, {"status": "loaded", "id": entry["name"], "digest": entry["digest"]}, ignored)

    async def unload(self, request: Request) -> Response:
        """Forget an adapter."""
        document = await self._read(request)
        ignored, name = check(document, UNLOAD), Fields(document).text("lora_name")
        if not name:
            raise InputError("'lora_name' needs to be provided", "name an adapter")
        if name == BASE or all(each["name"] != name for each in self._supervisor.models):
            said = f"The lora adapter {shown(name)} cannot be found."
            raise Refused(404, said, "invalid_request_error", "model_not_found")
        await self._adapters.unload(name)
        said = f"Success: LoRA adapter '{name}' removed successfully."
        return _done(request, said, {"status": "unloaded", "id": name}, ignored)

    async def listed(self, request: Request) -> Response:
        """The adapters with the numbers that requests may name them by."""
        if request.method == "POST":
            raise InputError(
                "scales can't be set for all requests", 'send "model", or "lora": [{"id": 0, "scale": 1.0}], with each'
            )
        return JSONResponse(lora_adapters(self._supervisor))


def _done(request: Request, said: str, document: dict[str, Any], ignored: tuple[str, ...]) -> Response:
    """What was done: in JSON, or in vLLM's words alone for a client that asks for plain text."""
    headers = header_of(ignored)
    if request.headers.get("accept", "").startswith(PLAIN):
        return PlainTextResponse(said, headers=headers)
    return JSONResponse(document | {"message": said}, headers=headers)
