"""Who may ask a service that has no key: programs on this machine, and no web page of another site.

A browser lets any page send requests to loopback addresses; it says which page it was (``Origin``), and which name led
here (``Host``, which a page can have resolve to loopback).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.requests import Request

from edgekit_runtime.errors import UsageError, shown

ANY_SITE = "*"


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_origin(text: str) -> str:
    """A site as browsers name it, or ``*`` for all.

    Raises:
        UsageError: it is none.
    """
    try:
        parts = urlsplit(text)
        bare = not (parts.path or parts.query or parts.fragment or parts.username) and parts.port != 0
        sound = (
            bare
            and parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and text == text.lower()
            and ANY_SITE not in text
        )
    except ValueError:
        sound = False
    if text != ANY_SITE and not sound:
        raise UsageError(f"{shown(text)} is no site", "give one as https://app.example, or * for all")
    return text


def is_foreign(request: Request, allowed: Collection[str] = ()) -> bool:
    """Whether a page of another site than these is asking, or this machine was found under another's name."""
    host = request.headers.get("host", "")
    origin = request.headers.get("origin")
    try:
        if origin is not None and urlsplit(origin).netloc != host and not {origin, ANY_SITE} & set(allowed):
            return True
        return bool(host) and not is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:  # no address at all
        return True
