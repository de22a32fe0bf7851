"""A bundle as an OCI artifact: its manifest, and what else refers to it.

The config is the bundle's ``manifest.json``, byte for byte, and each other file is a layer, titled with its path, so
that a blob's digest is the sha256 that the bundle lists.  ``manifest.sig`` is a layer too: tools that copy one artifact
copy the signature with it.  It is also an artifact of its own whose subject is the bundle's, as others can add theirs
later without a change of the bundle's digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgekit_runtime.errors import InputError, shown
from edgekit_runtime.files.strict_json import json_object
from edgekit_runtime.formats.manifest import SIGNATURE_FILE, Manifest, needed_files
from edgekit_runtime.registry.reference import ALGORITHM

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
BUNDLE = "application/vnd.edgekit.bundle.v1"
CONFIG = "application/vnd.edgekit.bundle.manifest.v1+json"
BASE_LAYER = "application/vnd.edgekit.base.v1"
ADAPTER_LAYER = "application/vnd.edgekit.adapter.v1"
FILE_LAYER = "application/vnd.edgekit.file.v1"
SIGNATURE = "application/vnd.edgekit.signature.v1"
FLEET_FILE = "application/vnd.edgekit.fleet.file.v1"
TITLE = "org.opencontainers.image.title"
NO_CONFIG = b"{}"  # the content of ``EMPTY``
_MEND = "push the bundle again"


@dataclass(frozen=True)
class Descriptor:
    """What OCI says of a blob or a manifest; ``digest`` in hex, of sha256; ``title`` is a layer's path."""

    media_type: str
    digest: str
    size: int
    title: str | None = None
    artifact_type: str | None = None

    @classmethod
    def of(
        cls, content: bytes, media_type: str, title: str | None = None, artifact_type: str | None = None
    ) -> Descriptor:
        """Of these bytes."""
        return cls(media_type, hashlib.sha256(content).hexdigest(), len(content), title, artifact_type)

    @classmethod
    def read(cls, document: object, where: str) -> Descriptor:
        """Of JSON that a registry gave.

        Raises:
            InputError: it is none, or has a digest of another kind.
        """
        given = document if isinstance(document, dict) else {}
        kind, digest, size = given.get("mediaType"), given.get("digest"), given.get("size")
        hexed = digest.removeprefix(ALGORITHM) if isinstance(digest, str) and digest.startswith(ALGORITHM) else ""
        if not isinstance(kind, str) or type(size) is not int or size < 0 or not _is_hex(hexed):
            raise InputError(f"{where}: a descriptor is none: it needs mediaType, digest (sha256) and size", _MEND)
        annotations = given.get("annotations")
        title = annotations.get(TITLE) if isinstance(annotations, dict) else None
        artifact_type = given.get("artifactType")
        return cls(
            kind,
            hexed,
            size,
            title if isinstance(title, str) else None,
            artifact_type if isinstance(artifact_type, str) else None,
        )

    def document(self) -> dict[str, Any]:
        """As JSON."""
        told: dict[str, Any] = {"mediaType": self.media_type, "digest": ALGORITHM + self.digest, "size": self.size}
        if self.artifact_type is not None:
            told["artifactType"] = self.artifact_type
        if self.title is not None:
            told["annotations"] = {TITLE: self.title}
        return told


@dataclass(frozen=True)
class Artifact:
    """A manifest of OCI, read: its ``config`` and its ``layers``."""

    config: Descriptor
    layers: tuple[Descriptor, ...]

    @classmethod
    def read(cls, content: bytes, config_type: str, what: str, where: str) -> Artifact:
        """Read a manifest whose digest has been checked.

        Args:
            content: its bytes.
            config_type: the media type that its config has to have.
            what: such an artifact, in errors.
            where: names this one in errors.

        Raises:
            InputError: it is no manifest, or one of something else.
        """
        document = json_object(content) or {}
        layers = document.get("layers")
        if document.get("mediaType", OCI_MANIFEST) != OCI_MANIFEST or not isinstance(layers, list):
            kind = shown(str(document.get("mediaType")))
            raise InputError(f"{where} is {kind}, not one artifact", f"name the digest of {what}")
        config = Descriptor.read(document.get("config"), where)
        if config.media_type != config_type:
            raise InputError(
                f"{where} is not {what}: its config is {shown(config.media_type)}", "`edgekit push` makes one"
            )
        return cls(config, tuple(Descriptor.read(each, where) for each in layers))


def bundle_artifact(manifest: Manifest, content: bytes, signature: bytes | None) -> bytes:
    """The OCI manifest of a bundle: the same bundle gives the same bytes.

    Args:
        manifest: of the bundle.
        content: the bytes of its ``manifest.json``.
        signature: of these bytes; None where it is not signed.
    """
    adapters = {entry.file for entry in manifest.adapters}
    needed = needed_files(manifest.base, manifest.adapters)

    def kind(path: str) -> str:
        return ADAPTER_LAYER if path in adapters else BASE_LAYER if path in needed else FILE_LAYER

    layers = [Descriptor(kind(file.path), file.sha256, file.size, file.path) for file in manifest.files]
    if signature is not None:
        layers.append(signature_layer(signature))
    annotations = {
        TITLE: manifest.name,
        "org.opencontainers.image.version": manifest.version,
        "org.opencontainers.image.created": manifest.created,
    }
    return _manifest(BUNDLE, Descriptor.of(content, CONFIG), layers, annotations=annotations)


def signature_layer(signature: bytes) -> Descriptor:
    """A signature as a blob."""
    return Descriptor.of(signature, SIGNATURE, SIGNATURE_FILE)


def signature_artifact(signature: bytes, subject: Descriptor) -> bytes:
    """The OCI manifest of a signature of the bundle ``subject``."""
    return _manifest(SIGNATURE, Descriptor.of(NO_CONFIG, EMPTY), [signature_layer(signature)], subject=subject)


def file_artifact(content: bytes, name: str) -> bytes:
    """The OCI manifest of a small file of a fleet."""
    layer = Descriptor.of(content, FLEET_FILE, name)
    return _manifest(FLEET_FILE, Descriptor.of(NO_CONFIG, EMPTY), [layer])


def index_of(manifests: Sequence[dict[str, Any]]) -> bytes:
    """An OCI index of descriptors, as their documents."""
    return _json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(manifests)})


def _manifest(
    kind: str,
    config: Descriptor,
    layers: Sequence[Descriptor],
    *,
    subject: Descriptor | None = None,
    annotations: dict[str, str] | None = None,
) -> bytes:
    document: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": kind}
    document |= {"config": config.document(), "layers": [each.document() for each in layers]}
    if subject is not None:
        document["subject"] = subject.document()
    if annotations is not None:
        document["annotations"] = annotations
    return _json(document)


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _is_hex(text: str) -> bool:
    return len(text) == 64 and all(sign in "0123456789abcdef" for sign in text)
