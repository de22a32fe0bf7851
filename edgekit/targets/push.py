"""A bundle into a registry: blobs that it lacks, the artifact, its signature, and the tag at the end."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit_runtime.errors import UsageError
from edgekit_runtime.files.regular import read_small
from edgekit_runtime.formats.bundle import open_bundle
from edgekit_runtime.formats.bundle_source import MAX_MANIFEST_BYTES
from edgekit_runtime.formats.manifest import MANIFEST_FILE, SIGNATURE_FILE, Manifest
from edgekit_runtime.formats.trust import SIGNATURE_BYTES
from edgekit_runtime.registry.artifact import (
    NO_CONFIG,
    OCI_MANIFEST,
    SIGNATURE,
    Descriptor,
    bundle_artifact,
    signature_artifact,
)
from edgekit_runtime.registry.connection import PUSH, WAITS, Connection
from edgekit_runtime.registry.reference import ALGORITHM, Reference
from edgekit_runtime.registry.upload import put_manifest, put_referrer, upload_bytes, upload_file

log = logging.getLogger(__name__)

MIB = 1024**2


@dataclass(frozen=True)
class Pushed:
    """What a push did: ``reference`` with its digest, bytes of files that were sent, whether it is signed.

    ``name`` and ``version`` are the bundle's.
    """

    reference: Reference
    sent: int
    signed: bool
    name: str
    version: str


def push(bundle: Path, reference: Reference, *, ca: Path | None = None, waits: Sequence[float] = WAITS) -> Pushed:
    """Push a bundle, folder or .tar; its tag appears when everything else is there.

    Args:
        bundle: the bundle, each of whose files is checked first.
        reference: where to, with a tag.
        ca: certificates (PEM) that the registry's may be of, besides the system's.
        waits: seconds before each next try where a connection breaks.

    Raises:
        UsageError: the reference names no tag.
        InputError: no bundle, or one that is not what its manifest says.
        TargetError: the registry can't be reached, or refuses.
    """
    if reference.tag is None or reference.digest is not None:
        raise UsageError(f"{reference} does not name a tag alone", "push to oci://HOST/REPOSITORY:TAG")
    with open_bundle(bundle) as opened:
        connection = Connection(reference, ca=ca, actions=PUSH, waits=waits)
        content = read_small(opened.root / MANIFEST_FILE, MAX_MANIFEST_BYTES)
        manifest = Manifest.parse(content, where=f"{bundle}/{MANIFEST_FILE}")
        sent = 0
        for file in {file.sha256: file for file in manifest.files}.values():
            brought = upload_file(connection, opened.root / file.path, file.sha256, file.size)
            log.info("%s: %s", file.path, f"{brought / MIB:.1f} MiB sent" if brought else "is there")
            sent += brought
        signature = _signature(opened.root)
    upload_bytes(connection, content)
    if signature is not None:
        upload_bytes(connection, signature)
    artifact = bundle_artifact(manifest, content, signature)
    subject = Descriptor.of(artifact, OCI_MANIFEST)
    put_manifest(connection, ALGORITHM + subject.digest, artifact)
    if signature is not None:
        upload_bytes(connection, NO_CONFIG)
        put_referrer(connection, signature_artifact(signature, subject), subject.digest, SIGNATURE)
    put_manifest(connection, reference.tag, artifact)
    return Pushed(reference.at(subject.digest), sent, signature is not None, manifest.name, manifest.version)


def _signature(folder: Path) -> bytes | None:
    try:
        return read_small(folder / SIGNATURE_FILE, SIGNATURE_BYTES)
    except FileNotFoundError:
        return None
