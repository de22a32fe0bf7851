"""Reading a repository: manifests and small blobs as a whole, each held against its digest."""

from __future__ import annotations

import hashlib
import re
from typing import Any
from urllib.parse import urlsplit

from edgekit_runtime.errors import InputError
from edgekit_runtime.files.strict_json import json_object
from edgekit_runtime.registry.artifact import OCI_INDEX, OCI_MANIFEST, Descriptor
from edgekit_runtime.registry.connection import Connection
from edgekit_runtime.registry.reference import ALGORITHM

MAX_MANIFEST_BYTES = 4 * 1024 * 1024  # as registries have it
_TAGS_AT_ONCE, _MOST_PAGES = 1000, 1000
_NEXT = re.compile(r'<([^>]+)>\s*;\s*rel="?next"?')  # of the header Link (RFC 8288)
_DIGEST_HEADER = "Docker-Content-Digest"
_MEND = "push it again, or ask whoever runs the registry"


def read_manifest(connection: Connection, wanted: str, media_type: str = OCI_MANIFEST) -> bytes | None:
    """The bytes of a manifest, which have the digest that was asked for or that the registry told.

    Args:
        connection: to the repository.
        wanted: a tag, or a digest with its algorithm.
        media_type: the kind of manifest.

    Returns:
        None where the registry has none.

    Raises:
        InputError: it is another one.
        TargetError: the registry can't be asked.
    """
    where = f"{connection.reference.host}: {wanted}"

    def ask() -> tuple[bytes, str] | None:
        with connection.ask("GET", f"/manifests/{wanted}", headers={"Accept": media_type}) as response:
            if response.status == 404:
                return None
            told = response.headers.get(_DIGEST_HEADER, "")
            return connection.whole(response, MAX_MANIFEST_BYTES, where), told

    answer = connection.patiently(ask)
    if answer is None:
        return None
    content, told = answer
    expected = wanted if wanted.startswith(ALGORITHM) else told or None
    if expected is not None and expected != ALGORITHM + hashlib.sha256(content).hexdigest():
        raise InputError(f"{where} is not what its digest says", _MEND)
    return content


def read_blob(connection: Connection, descriptor: Descriptor, most: int, what: str) -> bytes:
    """The content of a small blob.

    Raises:
        InputError: it is missing, larger than ``most``, or not what its descriptor says.
        TargetError: the registry can't be asked.
    """

    def ask() -> bytes | None:
        with connection.ask("GET", f"/blobs/{ALGORITHM}{descriptor.digest}") as response:
            return None if response.status == 404 else connection.whole(response, min(descriptor.size, most), what)

    if descriptor.size > most:
        raise InputError(f"{what} has more than the {most} bytes that it can have", _MEND)
    content = connection.patiently(ask)
    if content is None:
        raise InputError(f"{what} is missing from {connection.reference.host}", _MEND)
    if hashlib.sha256(content).hexdigest() != descriptor.digest:
        raise InputError(f"{what} is not what its digest says", _MEND)
    return content


def tags(connection: Connection) -> list[str]:
    """All tags of a repository; none where the registry has no such repository.

    Raises:
        InputError: the list is none, or has no end.
        TargetError: the registry can't be asked.
    """
    where = f"{connection.reference.host}: the tags of {connection.reference.repository}"
    found: list[str] = []
    path: str | None = f"/tags/list?n={_TAGS_AT_ONCE}"
    for _ in range(_MOST_PAGES):
        content, path = connection.patiently(lambda asked=path: _page(connection, str(asked), where))  # type: ignore[misc]
        names = (json_object(content) or {}).get("tags") or []
        if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
            raise InputError(f"{where} are no list", _MEND)
        found += names
        if path is None:
            return found
    raise InputError(f"{where} have no end", _MEND)


def _page(connection: Connection, path: str, where: str) -> tuple[bytes, str | None]:
    """One part of a list, and where the next one is."""
    with connection.ask("GET", path) as response:
        if response.status == 404:
            return b"{}", None
        content = connection.whole(response, MAX_MANIFEST_BYTES, where)
        following = _NEXT.search(response.headers.get("Link", ""))
        return content, f"/tags/list?{urlsplit(following[1]).query}" if following else None


def referrers(connection: Connection, digest: str) -> list[Descriptor]:
    """What refers to a manifest: what the registry lists, or, where it has no such list, what clients wrote down.

    Raises:
        InputError: the list is none.
        TargetError: the registry can't be asked.
    """
    where = f"{connection.reference.host}: what refers to {digest[:12]}"

    def ask() -> bytes | None:
        path = f"/referrers/{ALGORITHM}{digest}"
        with connection.ask("GET", path, headers={"Accept": OCI_INDEX}) as response:
            return None if response.status == 404 else connection.whole(response, MAX_MANIFEST_BYTES, where)

    listed = connection.patiently(ask)
    documents = noted_referrers(connection, digest) if listed is None else _entries(listed, where)
    return [Descriptor.read(each, where) for each in documents]


def noted_referrers(connection: Connection, digest: str) -> list[dict[str, Any]]:
    """The descriptors under the tag that stands for a registry's list where it has none (OCI 1.1)."""
    content = read_manifest(connection, noted_under(digest), OCI_INDEX)
    return [] if content is None else _entries(content, f"{connection.reference.host}: {noted_under(digest)}")


def noted_under(digest: str) -> str:
    """That tag."""
    return f"sha256-{digest}"


def _entries(content: bytes, where: str) -> list[dict[str, Any]]:
    entries = (json_object(content) or {}).get("manifests")
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        raise InputError(f"{where} is no index", _MEND)
    return entries
