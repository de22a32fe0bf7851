"""Who may ask a service that has no key: programs on this machine, and no web page of another site.

A browser lets any page send requests to loopback addresses; it says which page it was (``Origin``), and which name led
here (``Host``, which a page can have resolve to loopback).
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.requests import Request


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_foreign(request: Request) -> bool:
    """Whether a page of another site is asking, or this machine was found under another's name."""
    host = request.headers.get("host", "")
    origin = request.headers.get("origin")
    try:
        if origin is not None and urlsplit(origin).netloc != host:
            return True
        return bool(host) and not is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:  # no address at all
        return True
