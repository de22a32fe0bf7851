"""A bundle in a registry: its manifest and signature first, then the files that whoever asks lacks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from edgekit_runtime.errors import InputError, shown
from edgekit_runtime.formats.bundle_source import MAX_MANIFEST_BYTES, SignedManifest
from edgekit_runtime.formats.manifest import MANIFEST_FILE, SIGNATURE_FILE, FileEntry, Manifest
from edgekit_runtime.formats.trust import SIGNATURE_BYTES, check_signed
from edgekit_runtime.registry.artifact import CONFIG, EMPTY, SIGNATURE, Artifact, Descriptor
from edgekit_runtime.registry.connection import WAITS, Connection
from edgekit_runtime.registry.download import download
from edgekit_runtime.registry.reference import ALGORITHM, Reference
from edgekit_runtime.registry.repository import read_blob, read_manifest, referrers

log = logging.getLogger(__name__)

MIB = 1024**2
MOST_SIGNATURES = 16  # that are looked at; whoever may push can add more
_MEND = "push the bundle again"


class RegistryBundle:
    """A bundle in a registry.

    Attributes:
        reference: with the digest that was found.
        where: names it in errors.
        downloaded: bytes of the files that were downloaded.
    """

    def __init__(
        self,
        reference: Reference,
        *,
        ca: Path | None = None,
        waits: Sequence[float] = WAITS,
        rate: float | None = None,
    ) -> None:
        """Look it up.

        Args:
            reference: a digest, or a tag.
            ca: as for :class:`~edgekit_runtime.registry.connection.Connection`.
            waits: likewise.
            rate: likewise.

        Raises:
            InputError: the registry has none, or something else.
            TargetError: the registry can't be asked.
        """
        self._connection = Connection(reference, ca=ca, waits=waits, rate=rate)
        content = read_manifest(self._connection, reference.wanted)
        if content is None:
            raise InputError(f"there is no {reference}", "see what the registry has, or `edgekit push` the bundle")
        self.reference = reference.at(Descriptor.of(content, "").digest)
        self.where = str(self.reference)
        self.downloaded = 0
        self._artifact = Artifact.read(content, CONFIG, "a bundle", self.where)
        if reference.digest is None:
            log.info("%s is %s%s", reference, ALGORITHM, self.reference.digest)

    def read_manifest(self, trust: Path | None = None, *, signature: bool = False) -> SignedManifest:
        """Read the manifest; a signature is checked before anything in it is looked at.

        Args:
            trust: public keys, one of which has to have signed it; None takes unsigned ones too.
            signature: look for a signature where none is asked for, too.

        Raises:
            InputError: missing, malformed, or not signed by one of the keys.
            TargetError: the registry can't be asked.
        """
        where = f"{self.where}/{MANIFEST_FILE}"
        content = read_blob(self._connection, self._artifact.config, MAX_MANIFEST_BYTES, where)
        found = None
        if trust is not None:
            found = self._signed(content, trust)
        elif signature:
            found = next(self._signatures(), None)
        return SignedManifest(Manifest.parse(content, where=where), content, found)

    def check_listing(self, manifest: Manifest) -> None:
        """Check that the artifact's layers are the files of its manifest, and no others.

        Raises:
            InputError: one is missing, not listed, or another file.
        """
        layers = {layer.title: layer for layer in self._artifact.layers}
        listed = {SIGNATURE_FILE, *(file.path for file in manifest.files)}
        if len(layers) < len(self._artifact.layers):
            raise InputError(f"two layers of {self.where} have the same title", _MEND)
        for title in layers:
            if title not in listed:
                raise InputError(f"{shown(str(title))} in {self.where} is not listed in the manifest", _MEND)
        for file in manifest.files:
            layer = layers.get(file.path)
            if layer is None or (layer.digest, layer.size) != (file.sha256, file.size):
                raise InputError(f"{self.where}/{file.path} is no layer with the sha256 of the manifest", _MEND)

    def download(self, file: FileEntry, target: Path) -> None:
        """Have a file at ``target``, on the disk and checked; what is there of it is not downloaded again.

        Raises:
            InputError: the registry lacks it, or has another one.
            TargetError: the registry can't be asked, or the line broke for good; what has arrived stays.
        """
        begun = target.stat().st_size if target.exists() else 0
        log.info("downloading %s, %.1f MiB", file.path, max(file.size - begun, 0) / MIB)
        self.downloaded += download(self._connection, file.sha256, file.size, target, f"{self.where}/{file.path}")

    def _signed(self, content: bytes, trust: Path) -> bytes:
        """The signature by one of the keys in ``trust``.

        Raises:
            InputError: there is none.
        """
        problem: InputError | None = None
        for signature in self._signatures():
            try:
                check_signed(content, signature, trust, self.where)
            except InputError as error:
                problem = error
            else:
                return signature
        if problem is None:
            check_signed(content, None, trust, self.where)
        raise problem or AssertionError("nothing is signed by nobody")

    def _signatures(self) -> Iterator[bytes]:
        """The bundle's own, then those that were added to it; one that is malformed stands in the way of no other."""
        layers = [layer for layer in self._artifact.layers if layer.title == SIGNATURE_FILE]
        yield from self._sound(self._read_signature, layers)
        described = referrers(self._connection, str(self.reference.digest))
        added = [each for each in described if each.artifact_type == SIGNATURE]
        yield from self._sound(self._read_added, added[:MOST_SIGNATURES])

    def _sound(self, read: Callable[[Descriptor], bytes], described: Sequence[Descriptor]) -> Iterator[bytes]:
        for each in described:
            try:
                signature = read(each)
            except InputError as error:  # whoever may push can add such
                log.warning("%s", error.problem)
            else:
                yield signature

    def _read_signature(self, layer: Descriptor) -> bytes:
        return read_blob(self._connection, layer, SIGNATURE_BYTES, f"{self.where}/{SIGNATURE_FILE}")

    def _read_added(self, described: Descriptor) -> bytes:
        what = f"a signature of {self.where}"
        content = read_manifest(self._connection, ALGORITHM + described.digest)
        if content is None:
            raise InputError(f"{what} is missing from {self.reference.host}", _MEND)
        layers = Artifact.read(content, EMPTY, "a signature", what).layers
        if len(layers) != 1:
            raise InputError(f"{what} has {len(layers)} layers, and one is right", _MEND)
        return self._read_signature(layers[0])
