"""Why a fleet's metadata is refused, in words that lead whoever reads them to what has to be done."""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Metadata, Root
from tuf.api.serialization import DeserializationError

from edgekit_runtime.errors import EdgekitError, InputError, one_line

ISSUED = "x-edgekit-issued"  # a field of timestamp.json: when it was signed
CLOCK_SECONDS = 24 * 3600.0  # that a clock may be behind
_RENEW = "renew it: `edgekit keys renew`"
_CLOCK = "check the clock of this device"
_LOST = "see whether the name is right; `edgekit keys renew` brings back what a registry has lost"


def refusal(error: Exception, fleet: str, asked: str, known: Iterable[bytes], now: datetime.datetime) -> EdgekitError:
    """What TUF's client says, as our error.

    Args:
        error: of the client: RepositoryError or DownloadError.
        fleet: names the fleet.
        asked: the file that came last.
        known: all metadata at hand, checked or not: when it expires is told.
        now: what the clock says.
    """
    if isinstance(error, DownloadError):
        if isinstance(error.__cause__, EdgekitError):  # of our connection
            return error.__cause__
        if isinstance(error, DownloadHTTPError):
            return InputError(f"{fleet} has no {asked}", _LOST)
        if isinstance(error, DownloadLengthMismatchError):
            return InputError(f"{asked} of {fleet} is larger than it may be ({_said(error)})", _RENEW)
        raise error
    if isinstance(error, ExpiredMetadataError):
        return _expired(fleet, known, now)
    if isinstance(error, UnsignedMetadataError):
        hint = "somebody may have altered it; where the fleet's keys were made anew, give this device its new root.json"
        return InputError(f"{asked} of {fleet} is not signed by enough of its keys ({_said(error)})", hint)
    if isinstance(error, BadVersionNumberError):
        hint = "somebody replays old files, or the registry came back from an old copy: `edgekit keys renew --restore`"
        return InputError(f"{asked} of {fleet} is older than what this device has seen ({_said(error)})", hint)
    if isinstance(error, LengthOrHashMismatchError):
        hint = f"it is altered, cut short or of another version; ask again, then {_RENEW}"
        return InputError(f"{asked} of {fleet} is not the file that its metadata names", hint)
    if isinstance(error, DeserializationError):
        return InputError(f"{asked} of {fleet} is damaged", f"ask again, then {_RENEW}")
    assert isinstance(error, RepositoryError)
    return InputError(f"{asked} of {fleet} is refused ({_said(error)})", _RENEW)


def check_clock(issued: object, fleet: str, now: datetime.datetime) -> None:
    """Refuse metadata of the future: with a clock that is behind, nothing would ever expire.

    Args:
        issued: what the timestamp says of when it was signed; anything else than a time is passed over.
        fleet: names the fleet.
        now: what the clock says.

    Raises:
        InputError: the clock is behind.
    """
    try:
        signed = datetime.datetime.fromisoformat(str(issued))
        behind = (signed - now).total_seconds()
    except (TypeError, ValueError):  # no time, or one without a zone
        return
    if behind > CLOCK_SECONDS:
        raise InputError(
            f"{fleet} was signed on {_day(signed)}, and the clock here says {_day(now)}",
            f"{_CLOCK}, then that of whoever signed",
        )


def _expired(fleet: str, known: Iterable[bytes], now: datetime.datetime) -> InputError:
    ends: dict[str, tuple[int, datetime.datetime]] = {}
    for content in known:
        try:
            signed = Metadata.from_bytes(content).signed
        except DeserializationError:
            continue
        ends[signed.type] = max(ends.get(signed.type, (0, now)), (signed.version, signed.expires))
    over = {kind: end for kind, (_, end) in ends.items() if end <= now}
    told = ", ".join(f"{kind}.json on {_day(end)}" for kind, end in over.items()) or "its metadata"
    problem = f"{fleet} has expired ({told}), and the clock here says {_day(now)}"
    wrong_clock = Root.type in over or len(over) == len(ends)
    return InputError(problem, f"{_CLOCK}; if it is right, {_RENEW}" if wrong_clock else f"{_RENEW}, or {_CLOCK}")


def _day(time: datetime.datetime) -> str:
    return f"{time:%Y-%m-%d}"


def _said(error: Exception) -> str:
    return one_line(str(error)) or type(error).__name__
