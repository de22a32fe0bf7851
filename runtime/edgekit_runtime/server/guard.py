"""Who may ask, and errors of handlers turned into answers."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable, Collection

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from edgekit_runtime.server.disconnects import ClientGone
from edgekit_runtime.server.origins import is_foreign
from edgekit_runtime.server.refusals import ErrorForm, Refused, error_response, openai_error, refusal_of

log = logging.getLogger(__name__)

GONE = 499  # nobody reads it
Handler = Callable[[Request], Awaitable[Response]]


class Guard:
    """Asks for the key, and turns errors into the form that a route's clients read."""

    def __init__(self, api_key: str | None, origins: Collection[str] = ()) -> None:
        """Ask for a key.

        Args:
            api_key: the key; None for none, and then programs of this machine alone may ask.
            origins: and pages of these sites.
        """
        self._key = None if api_key is None else api_key.encode()
        self._origins = origins

    def __call__(self, handler: Handler, form: ErrorForm = openai_error) -> Handler:
        """The handler behind it."""

        async def guarded(request: Request) -> Response:
            try:
                self._check(request)
                return await handler(request)
            except (ClientDisconnect, ClientGone):
                return Response(status_code=GONE)
            except Exception as error:
                if isinstance(error, MemoryError):
                    log.error("there was no memory for a request")
                refused = refusal_of(error)
                if refused is None:
                    log.exception("a request failed")
                    refused = Refused(500, "the service failed; its log says why", "server_error")
                return error_response(refused, form)

        return guarded

    def _check(self, request: Request) -> None:
        if not self._has_key(request):
            raise Refused(401, "the API key is missing or wrong", "authentication_error", "invalid_api_key")
        if self._key is None and is_foreign(request, self._origins):
            raise Refused(403, "without an API key only this machine may ask", "permission_error", "foreign")

    def _has_key(self, request: Request) -> bool:
        """Whether the key came, as OpenAI's or as Anthropic's clients send one."""
        if self._key is None:
            return True
        sent = request.headers.get("authorization", ""), request.headers.get("x-api-key", "")
        bearer, plain = (each.encode("latin-1") for each in sent)  # the bytes that were sent
        good = hmac.compare_digest(bearer, b"Bearer " + self._key), hmac.compare_digest(plain, self._key)
        return any(good)
