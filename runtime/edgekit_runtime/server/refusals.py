"""What a client is told when its request isn't answered: a status, words, and the form in which its kind reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.responses import JSONResponse

from edgekit_runtime.errors import ContextExceeded, InputError, NobodyAnswers, TargetError, UsageError, shown
from edgekit_runtime.formats.manifest import AUTO
from edgekit_runtime.server.adapters import Busy, NotFound
from edgekit_runtime.server.bodies import NoRoom, TooLarge, TooLate
from edgekit_runtime.server.supervisor import Deadly, SetAside

RETRY_AFTER_S = 1
_WRONG, _FAILED = "invalid_request_error", "server_error"

_TOO_LONG = "this model's maximum context length is exceeded"  # clients look for OpenAI's words, not for the code


class Refused(Exception):
    """A request that isn't answered.

    Attributes:
        status: HTTP's.
        kind: OpenAI's type of error.
        code: what programs tell it by.
        later: it may be answered when the client asks again in a moment.
    """

    def __init__(self, status: int, said: str, kind: str, code: str | None = None, *, later: bool = False) -> None:
        """Say what is wrong."""
        super().__init__(said)
        self.status, self.kind, self.code, self.later = status, kind, code, later


class NoModel(Refused):
    """Nothing of that name answers here.

    Attributes:
        name: what was asked for.
    """

    def __init__(self, name: str) -> None:
        super().__init__(404, f"there is no model {shown(name)}", _WRONG, "model_not_found")
        self.name = name


class NoRouter(NoModel):
    """Nobody can choose an adapter here."""

    def __init__(self) -> None:
        Refused.__init__(
            self,
            404,
            f"there is no model {AUTO}: this bundle was exported without it; add `auto: {{fallback: base}}` to"
            " edgekit.yaml and export again, or name an adapter",
            _WRONG,
            "model_not_found",
        )
        self.name = AUTO


ErrorForm = Callable[[Refused], dict[str, Any]]


def openai_error(refused: Refused) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    return {"error": {"message": str(refused), "type": refused.kind, "param": None, "code": refused.code}}


def error_response(refused: Refused, form: ErrorForm = openai_error) -> JSONResponse:
    """The answer that tells it."""
    headers = {"Retry-After": str(RETRY_AFTER_S)} if refused.later else None
    return JSONResponse(form(refused), refused.status, headers)


def refusal_of(error: Exception) -> Refused | None:
    """What a client is told of an error; None for one that nobody foresaw."""
    said = str(error)
    match error:
        case Refused():
            return error
        case SetAside():
            return Refused(409, said, _WRONG, "adapter_set_aside")
        case Deadly():
            return Refused(422, said, _WRONG, "engine_crashes")
        case NotFound():
            return Refused(404, said, _WRONG, "adapter_not_found")
        case Busy():
            return Refused(429, said, "rate_limit_error", "loading", later=True)
        case MemoryError():
            return Refused(503, "there is no memory for this request now", _FAILED, "no_room", later=True)
        case NoRoom():
            return Refused(503, said, _FAILED, "no_room", later=True)
        case TooLarge():
            return Refused(413, said, _WRONG, "too_large")
        case TooLate():
            return Refused(408, said, _WRONG, "request_timeout")
        case NobodyAnswers():
            return Refused(404, said, _WRONG, "no_adapter_for_this")
        case ContextExceeded():
            return Refused(400, f"{said} ({_TOO_LONG})", _WRONG, "context_length_exceeded")
        case InputError() | UsageError():
            return Refused(400, said, _WRONG)
        case TargetError():  # there is no worker, or no memory in it
            return Refused(503, said, _FAILED, "unavailable", later=True)
        case TimeoutError():
            return Refused(504, "the answer took too long", _FAILED, "timeout")
    return None
