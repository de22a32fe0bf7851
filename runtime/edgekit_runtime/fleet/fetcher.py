"""The files of a fleet for TUF's client, over our connections to a registry."""

from __future__ import annotations

from collections.abc import Iterator

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface

from edgekit_runtime.registry.connection import Connection
from edgekit_runtime.registry.small_file import read_file

MOST_BYTES = 5_000_000  # of one file, as TUF's client has it for the largest
_MISSING = 404


class RegistryFetcher(FetcherInterface):
    """Files by the last part of their URL.

    Attributes:
        fetched: what came, by name.
        asked: the name that was asked for last.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.fetched: dict[str, bytes] = {}
        self.asked = ""

    def _fetch(self, url: str) -> Iterator[bytes]:
        self.asked = url.rpartition("/")[2]
        content = read_file(self._connection, self.asked, MOST_BYTES)
        if content is None:
            raise DownloadHTTPError(f"there is no {self.asked}", _MISSING)
        self.fetched[self.asked] = content
        return iter([content])
