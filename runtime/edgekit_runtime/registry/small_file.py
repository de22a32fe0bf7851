"""Small files in a repository, each under a tag of its name."""

from __future__ import annotations

from edgekit_runtime.errors import InputError
from edgekit_runtime.registry.artifact import EMPTY, Artifact
from edgekit_runtime.registry.connection import Connection
from edgekit_runtime.registry.repository import read_blob, read_manifest


def read_file(connection: Connection, name: str, most: int) -> bytes | None:
    """The content of a file, None where the registry has none of this name.

    Args:
        connection: to the repository.
        name: of the file, and its tag.
        most: bytes that it may have.

    Raises:
        InputError: something else has this tag, or it is larger.
        TargetError: the registry can't be asked.
    """
    content = read_manifest(connection, name)
    if content is None:
        return None
    where = f"{connection.reference}:{name}"
    layers = Artifact.read(content, EMPTY, "a file of a fleet", where).layers
    if len(layers) != 1:
        raise InputError(f"{where} has {len(layers)} layers, and one is right", "publish the fleet again")
    return read_blob(connection, layers[0], most, where)
