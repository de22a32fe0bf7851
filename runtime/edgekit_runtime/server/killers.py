"""Requests that the engine dies of although no adapter is to blame: each time, they would cost two engines."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Collection
from typing import Any

ALONE = 2  # engines that died, of the last one of which no other request may have been the reason
AMONG_OTHERS = 4  # engines that died, whoever else was at work
REMEMBERED = 1000  # requests; one is 64 letters and a number


class Killers:
    """Counts engines' deaths by request.  Whatever has been answered since is innocent."""

    def __init__(self) -> None:
        self._deaths: OrderedDict[str, int] = OrderedDict()
        self._refused: OrderedDict[str, None] = OrderedDict()

    def died(self, keys: Collection[str]) -> list[str]:
        """Note that an engine crashed over one of these requests; those that are refused from now on."""
        refused = []
        for key in keys:
            deaths = self._deaths.pop(key, 0) + 1
            if deaths >= AMONG_OTHERS or (deaths >= ALONE and len(keys) == 1):
                self._refused[key] = None
                refused.append(key)
            else:
                self._deaths[key] = deaths
        for each in (self._deaths, self._refused):
            while len(each) > REMEMBERED:
                each.popitem(last=False)
        return refused

    def answered(self, key: str) -> None:
        """It was not this one."""
        self._deaths.pop(key, None)

    def refuses(self, key: str) -> bool:
        """Whether the engine died of it too often."""
        return key in self._refused


def request_key(options: dict[str, Any]) -> str:
    """The sha256 of a request's arguments, pixels included: the same for the same request."""
    digest = hashlib.sha256()
    images = options.get("image") or ()
    for each in images:
        digest.update(f"{each['width']}x{each['height']}:".encode())
        digest.update(each["rgb"])
    plain = options | {"image": len(images)}
    digest.update(json.dumps(plain, sort_keys=True).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
