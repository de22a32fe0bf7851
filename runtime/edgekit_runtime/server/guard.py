"""Who may ask, and how clients are told what is wrong: errors in OpenAI's form, each with its status."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable, Collection

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from edgekit_runtime.errors import ContextExceeded, InputError, TargetError, UsageError
from edgekit_runtime.server import responses as replies
from edgekit_runtime.server.adapters import Busy, NotFound
from edgekit_runtime.server.bodies import NoRoom, TooLarge, TooLate
from edgekit_runtime.server.disconnects import ClientGone
from edgekit_runtime.server.origins import is_foreign
from edgekit_runtime.server.supervisor import Deadly, SetAside

log = logging.getLogger(__name__)

RETRY_AFTER_S = 1
GONE = 499  # nobody reads it
Handler = Callable[[Request], Awaitable[Response]]


class Guard:
    """Asks for the key, and turns errors into OpenAI's form."""

    def __init__(self, api_key: str | None, origins: Collection[str] = ()) -> None:
        """Ask for a key.

        Args:
            api_key: the key; None for none, and then programs of this machine alone may ask.
            origins: and pages of these sites.
        """
        self._key = None if api_key is None else api_key.encode()
        self._origins = origins

    def __call__(self, handler: Handler) -> Handler:
        """The handler behind it."""

        async def guarded(request: Request) -> Response:
            if not self._has_key(request):
                return error_response(401, "the API key is missing or wrong", "authentication_error", "invalid_api_key")
            if self._key is None and is_foreign(request, self._origins):
                return error_response(
                    403, "without an API key only this machine may ask", "permission_error", "foreign"
                )
            try:
                return await handler(request)
            except SetAside as error:
                return error_response(409, str(error), "invalid_request_error", "adapter_set_aside")
            except Deadly as error:
                return error_response(422, str(error), "invalid_request_error", "engine_crashes")
            except NotFound as error:
                return error_response(404, str(error), "invalid_request_error", "adapter_not_found")
            except Busy as error:
                return later(429, str(error), "rate_limit_error", "loading")
            except MemoryError:
                log.error("there was no memory for a request")
                return later(503, "there is no memory for this request now", "server_error", "no_room")
            except NoRoom as error:
                return later(503, str(error), "server_error", "no_room")
            except TooLarge as error:
                return error_response(413, str(error), "invalid_request_error", "too_large")
            except TooLate as error:
                return error_response(408, str(error), "invalid_request_error", "request_timeout")
            except ContextExceeded as error:
                return error_response(400, str(error), "invalid_request_error", "context_length_exceeded")
            except (InputError, UsageError) as error:
                return error_response(400, str(error), "invalid_request_error")
            except TargetError as error:  # there is no worker, or no memory in it
                return later(503, str(error), "server_error", "unavailable")
            except TimeoutError:
                return error_response(504, "the answer took too long", "server_error", "timeout")
            except (ClientDisconnect, ClientGone):
                return Response(status_code=GONE)
            except Exception:
                log.exception("a request failed")
                return error_response(500, "the service failed; its log says why", "server_error")

        return guarded

    def _has_key(self, request: Request) -> bool:
        """Whether the key came, as OpenAI's or as Anthropic's clients send one."""
        if self._key is None:
            return True
        sent = request.headers.get("authorization", ""), request.headers.get("x-api-key", "")
        bearer, plain = (each.encode("latin-1") for each in sent)  # the bytes that were sent
        good = hmac.compare_digest(bearer, b"Bearer " + self._key), hmac.compare_digest(plain, self._key)
        return any(good)


def later(status: int, message: str, kind: str, code: str) -> JSONResponse:
    """An error that may be none when the client asks again in a moment."""
    response = error_response(status, message, kind, code)
    response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


def error_response(status: int, message: str, kind: str, code: str | None = None) -> JSONResponse:
    """An error as OpenAI's clients read it."""
    return JSONResponse(replies.error_document(message, kind, code), status_code=status)
