"""Opening and verifying bundles: a folder, or a .tar of one."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.base_files import BaseFiles
from edgekit_runtime.formats.bundle_source import BundleSource, SignedManifest, check_disk, open_source
from edgekit_runtime.formats.manifest import BUNDLE_SCHEMA, F16, MANIFEST_FILE, SIGNATURE_FILE, Manifest


@dataclass(frozen=True)
class Bundle:
    """An open bundle: ``root`` is a folder for as long as it is open."""

    root: Path
    manifest: Manifest

    @property
    def base_path(self) -> Path:
        """The base's file."""
        return self.root / self.manifest.base.file

    @property
    def base_files(self) -> BaseFiles:
        """All files of the base."""
        parts = {part.name: self.root / part.file for part in self.manifest.base.parts}
        kv_cache = self.manifest.base.kv_cache or F16
        return BaseFiles(self.manifest.engine, self.base_path, parts, self.projector_path, kv_cache)

    @property
    def projector_path(self) -> Path | None:
        """What reads images for the base; None in text bundles."""
        projector = self.manifest.base.projector
        return None if projector is None else self.root / projector

    def adapter_path(self, name: str) -> Path:
        """An adapter's file.

        Raises:
            InputError: no such adapter.
        """
        return self.root / self.manifest.adapter(name).file


@contextmanager
def open_bundle(path: Path | str, *, verify: bool = True, trust: Path | None = None) -> Iterator[Bundle]:
    """Open a bundle folder or .tar.

    A .tar is unpacked into a temporary folder of this user's, and what is there is what was verified.  A folder is
    used where it is: whoever can write to it can change it after it was verified.

    Args:
        path: folder or tar file.
        verify: check size and sha256 of every file of a folder; those of a .tar always are.
        trust: public keys, one of which has to have signed it; None takes unsigned ones too.

    Raises:
        InputError: no bundle, one that is not what its manifest says, or not signed by one of the keys.
    """
    path = Path(path)
    with open_source(path) as source:
        signed = source.read_manifest(trust)
        if path.is_dir():
            if verify:
                _verify(source, signed.manifest)
            yield Bundle(path, signed.manifest)
            return
        with tempfile.TemporaryDirectory(prefix="edgekit-bundle-") as folder:
            _unpack(source, signed, Path(folder))
            yield Bundle(Path(folder), signed.manifest)


def is_bundle(folder: Path) -> bool:
    """Whether ``folder`` is a bundle that an export may replace."""
    try:
        return BUNDLE_SCHEMA.encode() in (folder / MANIFEST_FILE).read_bytes()
    except OSError:
        return False


def read_manifest(root: Path) -> Manifest:
    """Read the manifest of a bundle without looking at the other files.

    Raises:
        InputError: missing or malformed.
    """
    with open_source(root) as source:
        return source.read_manifest().manifest


def verify_bundle(root: Path) -> Manifest:
    """Check that a bundle holds exactly the files of its manifest, each with its size and sha256.

    Raises:
        InputError: a file is missing, altered, not listed, or a link.
    """
    with open_source(root) as source:
        manifest = source.read_manifest().manifest
        _verify(source, manifest)
        return manifest


def file_digest(path: Path) -> str:
    """sha256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _verify(source: BundleSource, manifest: Manifest) -> None:
    source.check_listing(manifest)
    for file in manifest.files:
        for _ in source.read(file):
            pass


def _unpack(source: BundleSource, signed: SignedManifest, folder: Path) -> None:
    """Write manifest, signature and the listed files, each of its listed size."""
    source.check_listing(signed.manifest)
    check_disk(folder, sum(file.size for file in signed.manifest.files), source.where)
    (folder / MANIFEST_FILE).write_bytes(signed.content)
    if signed.signature is not None:
        (folder / SIGNATURE_FILE).write_bytes(signed.signature)
    for file in signed.manifest.files:
        target = folder / file.path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as output:
                for chunk in source.read(file):
                    output.write(chunk)
        except (FileExistsError, NotADirectoryError):  # names that differ in nothing but case, on some systems
            raise InputError(f"{source.where} holds {file.path} twice", "export the bundle again") from None
