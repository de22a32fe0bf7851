"""Bringing a blob over a line that breaks: what has arrived is kept, and the rest is asked for."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from pathlib import Path
from typing import BinaryIO

from edgekit_runtime.errors import InputError
from edgekit_runtime.registry.connection import Broken, Connection, Response
from edgekit_runtime.registry.reference import ALGORITHM

log = logging.getLogger(__name__)

_CHUNK = 1024 * 1024
_FIRST_BYTE = re.compile(r"bytes (\d+)-")
_MEND = "push the bundle again, or ask whoever runs the registry"


def download(connection: Connection, digest: str, size: int, target: Path, what: str) -> int:
    """Have a blob at ``target``, on the disk and with its digest; what is there of it is not downloaded again.

    A beginning that turns out to be of something else is thrown away, and the blob downloaded as a whole.

    Args:
        connection: to the repository.
        digest: sha256, in hex.
        size: bytes.
        target: the file, or its beginning; it stays when this fails.
        what: names the blob in errors.

    Returns:
        Bytes that were downloaded.

    Raises:
        InputError: the registry lacks it, or has another one; ``target`` is empty then.
        TargetError: the registry can't be asked, or the line broke for good.
    """
    with target.open("a+b") as output:
        begun = _Begun(output, size)
        earlier = begun.have
        _complete(connection, begun, digest, what)
        if begun.hexdigest() != digest and earlier:
            log.info("what was there of %s is damaged: downloading all of it", what)
            begun.clear()
            _complete(connection, begun, digest, what)
        if begun.hexdigest() != digest:
            begun.clear()
            raise InputError(f"{what} is not what its digest says", _MEND)
        output.flush()
        os.fsync(output.fileno())
    return begun.brought


class _Begun:
    """The beginning of a blob in a file: the bytes that it has, hashed so far, and how many of them we brought."""

    def __init__(self, output: BinaryIO, size: int) -> None:
        self._output, self.size, self.have, self.brought = output, size, 0, 0
        self._hash = hashlib.sha256()
        if output.seek(0, os.SEEK_END) > size:
            self.clear()
        output.seek(0)
        while chunk := output.read(_CHUNK):
            self._hash.update(chunk)
            self.have += len(chunk)

    def add(self, piece: bytes) -> None:
        self._output.write(piece)
        self._hash.update(piece)
        self.have += len(piece)
        self.brought += len(piece)

    def clear(self) -> None:
        self._output.truncate(0)
        self.have, self._hash = 0, hashlib.sha256()

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def _complete(connection: Connection, begun: _Begun, digest: str, what: str) -> None:
    """Download until it is whole, over as many connections as it takes while each comes further than all before."""
    waits, furthest = list(connection.waits), begun.have
    while begun.have < begun.size:
        try:
            _some(connection, begun, digest, what)
        except Broken as error:
            if begun.have > furthest:
                waits, furthest = list(connection.waits), begun.have
            if not waits or not connection.answered:
                problem = f"{error.problem}, and {begun.size - begun.have} of {begun.size} bytes of {what} are to come"
                raise Broken(problem, "run this again: what has arrived is kept") from None
            connection.pause(waits.pop(0), error)


def _some(connection: Connection, begun: _Begun, digest: str, what: str) -> None:
    """Download what one connection brings."""
    headers = {"Range": f"bytes={begun.have}-"} if begun.have else {}
    with connection.ask("GET", f"/blobs/{ALGORITHM}{digest}", headers=headers) as response:
        if response.status == 404:
            raise InputError(f"{what} is missing from {connection.reference.host}", _MEND)
        _check_length(response, begun, what)
        start = _start(response)
        if start != begun.have:  # a registry, or a proxy, that knows no ranges
            begun.clear()
            if start != 0:
                raise Broken(f"{connection.reference.host} sends another range than it was asked for", _MEND)
        for piece in connection.pieces(response):
            if begun.have + len(piece) > begun.size:
                begun.clear()
                raise InputError(f"{what} has more than its {begun.size} bytes", _MEND)
            begun.add(piece)
    if begun.have < begun.size:
        raise Broken(f"{connection.reference.host} ended too early", "try again later")


def _check_length(response: Response, begun: _Begun, what: str) -> None:
    """Refuse a blob that is shorter in the registry than it has to be: no connection would bring the rest.

    Raises:
        InputError: it is.
    """
    whole = response.status == 200
    length = response.headers.get("Content-Length", "") if whole else _range(response).rpartition("/")[2]
    if length.isdecimal() and int(length) < begun.size:
        begun.clear()
        raise InputError(f"{what} has {int(length)} of its {begun.size} bytes in the registry", _MEND)


def _start(response: Response) -> int | None:
    """The first byte of what is sent; None where nothing of the blob is."""
    if response.status != 206:
        return 0 if response.status == 200 else None
    found = _FIRST_BYTE.match(_range(response))
    return int(found[1]) if found else None


def _range(response: Response) -> str:
    return str(response.headers.get("Content-Range", ""))
