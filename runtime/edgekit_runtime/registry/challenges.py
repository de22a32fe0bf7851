"""How a registry asks who we are: Basic, or Bearer with a token that another service gives."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlencode

_SCHEME = re.compile(r"(?:^|,)\s*(basic|bearer)\s+", re.IGNORECASE)
_PARAMETER = re.compile(r'([A-Za-z_]+)\s*=\s*(?:"([^"]*)"|([^\s,"]+))')


@dataclass(frozen=True)
class Challenge:
    """One of the ways that a registry takes: ``scheme`` in lower case; ``realm`` is where a token comes from."""

    scheme: str
    realm: str
    service: str

    def token_url(self, scope: str) -> str:
        """Where to ask for a token that allows ``scope``."""
        query = urlencode({name: text for name, text in (("service", self.service), ("scope", scope)) if text})
        return f"{self.realm}{'&' if '?' in self.realm else '?'}{query}"


def challenge_of(headers: Iterable[str]) -> Challenge | None:
    """The challenge to answer, of all values of WWW-Authenticate: Bearer before Basic; None where there is neither."""
    found: dict[str, Challenge] = {}
    for value in headers:
        starts = list(_SCHEME.finditer(value))
        ends = [*(each.start() for each in starts[1:]), len(value)]
        for start, end in zip(starts, ends, strict=False):
            given = {
                name.lower(): quoted or bare for name, quoted, bare in _PARAMETER.findall(value[start.end() : end])
            }
            scheme = start[1].lower()
            found.setdefault(scheme, Challenge(scheme, given.get("realm", ""), given.get("service", "")))
    return found.get("bearer") or found.get("basic")
