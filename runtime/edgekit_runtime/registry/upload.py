"""Writing to a registry's repository: blobs that it lacks, manifests, and what refers to them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from edgekit_runtime.errors import TargetError
from edgekit_runtime.registry.artifact import (
    NO_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    file_artifact,
    index_of,
)
from edgekit_runtime.registry.connection import Broken, Connection, Response
from edgekit_runtime.registry.reference import ALGORITHM
from edgekit_runtime.registry.repository import noted_referrers, noted_under

_KNOWS_REFERRERS = "OCI-Subject"  # the header of a registry that lists them itself
_BYTES = "application/octet-stream"


def upload_file(connection: Connection, path: Path, digest: str, size: int) -> int:
    """Upload a file unless the registry has it; returns the bytes that were sent.

    A blob is sent in one request, which all registries take: after a broken connection it is sent again from its start.

    Raises:
        TargetError: the registry can't be reached, or refuses it.
    """

    def content() -> BinaryIO:
        return path.open("rb")

    return connection.patiently(lambda: _upload(connection, content, digest, size))


def upload_bytes(connection: Connection, content: bytes) -> None:
    """Upload a small blob unless the registry has it.

    Raises:
        TargetError: the registry can't be reached, or refuses it.
    """
    digest = hashlib.sha256(content).hexdigest()
    connection.patiently(lambda: _upload(connection, lambda: content, digest, len(content)))


def put_manifest(connection: Connection, name: str, content: bytes, media_type: str = OCI_MANIFEST) -> bool:
    """Write a manifest under a tag or its digest.

    Returns:
        Whether the registry has noted what it refers to.

    Raises:
        TargetError: the registry can't be reached, or refuses it.
    """

    def put() -> bool:
        headers = {"Content-Type": media_type, "Content-Length": str(len(content))}
        with connection.ask("PUT", f"/manifests/{name}", headers=headers, body=lambda: content) as response:
            _check(connection, response, "manifests")
            return _KNOWS_REFERRERS in response.headers

    return connection.patiently(put)


def put_file(connection: Connection, name: str, content: bytes) -> None:
    """Write a small file of a fleet under a tag of its name, which leads to it when all of it is there.

    Raises:
        TargetError: the registry can't be reached, or refuses it.
    """
    upload_bytes(connection, NO_CONFIG)
    upload_bytes(connection, content)
    put_manifest(connection, name, file_artifact(content, name))


def put_referrer(connection: Connection, content: bytes, subject: str, artifact_type: str) -> None:
    """Write a manifest that refers to another one, and note it where the registry doesn't (OCI 1.1's tag).

    Args:
        connection: to the repository.
        content: the manifest.
        subject: digest of what it refers to.
        artifact_type: what it says that it is.

    Raises:
        InputError: what is noted there already is no list.
        TargetError: the registry can't be reached, or refuses it.
    """
    described = Descriptor.of(content, OCI_MANIFEST, artifact_type=artifact_type)
    if put_manifest(connection, ALGORITHM + described.digest, content):
        return
    entries: list[dict[str, Any]] = noted_referrers(connection, subject)
    if described.document() not in entries:
        put_manifest(connection, noted_under(subject), index_of([*entries, described.document()]), OCI_INDEX)


def _upload(connection: Connection, content: Callable[[], BinaryIO | bytes], digest: str, size: int) -> int:
    with connection.ask("HEAD", f"/blobs/{ALGORITHM}{digest}") as response:
        if response.status == 200:
            return 0
    with connection.ask("POST", "/blobs/uploads/", headers={"Content-Length": "0"}) as response:
        _check(connection, response, "uploads")
        place = response.headers.get("Location")
    if not place:
        raise TargetError(f"{connection.reference.host} says no place for an upload", "ask whoever runs the registry")
    place = f"{place}{'&' if '?' in place else '?'}digest={ALGORITHM}{digest}"
    headers = {"Content-Type": _BYTES, "Content-Length": str(size)}
    with connection.ask("PUT", place, headers=headers, body=content) as response:
        if response.status != 201:  # the place of an upload is gone when the registry has restarted
            raise Broken(
                f"{connection.reference.host} lost an upload", "run this again: what is there is not sent again"
            )
    return size


def _check(connection: Connection, response: Response, what: str) -> None:
    if response.status not in (201, 202):
        host, repository = connection.reference.host, connection.reference.repository
        raise TargetError(
            f"{host} takes no {what} for {repository} ({response.status})", "make the repository there first"
        )
