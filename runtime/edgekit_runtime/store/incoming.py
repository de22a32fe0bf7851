"""What comes from outside is copied into the store before anything looks at it, and checked while it is written.

A path can lead to other bytes each time that it is opened.  So a file is opened once, its private copy is what its
digest and signature are of, and that copy is what is read, tried and renamed into place.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edgekit_runtime.errors import EdgekitError, InputError
from edgekit_runtime.files.private_folder import private_folder
from edgekit_runtime.files.regular import chunks_of, open_regular
from edgekit_runtime.formats.bundle import Bundle
from edgekit_runtime.formats.bundle_source import BundleSource, open_source
from edgekit_runtime.formats.manifest import FileEntry, needed_files
from edgekit_runtime.formats.trust import adapter_message, adapter_signature, check_signed
from edgekit_runtime.store.objects import Objects


@dataclass(frozen=True)
class Incoming:
    """The private copy of a file: ``path`` has its name, in a folder of its own in the store."""

    path: Path
    digest: str
    size: int


@contextmanager
def take_file(source: Path, objects: Objects, trust: Path | None) -> Iterator[Incoming]:
    """Copy an adapter file into the store's temporary area while hashing it, and check the signature of that copy.

    Errors within the block name ``source``, not the copy, which is gone afterwards unless it was moved.

    Args:
        source: the file; its signature lies beside it.
        objects: of the store.
        trust: public keys, one of which has to have signed it; None takes unsigned ones too.

    Raises:
        InputError: no regular file, no room for it, or not signed by one of the keys.
    """
    with private_folder(objects.scratch) as private:
        copy = private.path / source.name
        digest = hashlib.sha256()
        with _opened(source) as stream, copy.open("xb") as output:
            size = os.fstat(stream.fileno()).st_size
            objects.check_room(size)
            for chunk in chunks_of(stream, size, str(source)):
                digest.update(chunk)
                output.write(chunk)
            _sync(output)
        incoming = Incoming(copy, digest.hexdigest(), size)
        if trust is not None:
            check_signature(incoming, source, trust)
        with named(copy, source):
            yield incoming


def check_signature(incoming: Incoming, source: Path, trust: Path) -> None:
    """Check that one of the keys in ``trust`` has signed a private copy; the signature lies beside ``source``.

    Raises:
        InputError: nobody has, or somebody else.
    """
    check_signed(adapter_message(incoming.digest), adapter_signature(source), trust, str(source))


@contextmanager
def take_bundle(path: Path, objects: Objects, trust: Path | None) -> Iterator[Bundle]:
    """Check a bundle, and copy what a device needs of it into the store's temporary area.

    The bundle that is yielded is that copy, with the manifest whose signature was checked.  What the store has already
    is linked, not copied.  Errors within the block name ``path``.

    Raises:
        InputError: no bundle, one that is not what its manifest says, no room, or not signed by one of the keys.
    """
    with open_source(path) as source, private_folder(objects.scratch) as private:
        folder = private.path
        manifest = source.read_manifest(trust).manifest
        source.check_listing(manifest)
        needed = needed_files(manifest.base, manifest.adapters)
        there = {digest for digest in needed.values() if objects.is_sound(digest)}
        new = [file for file in manifest.files if file.path in needed and file.sha256 not in there]
        objects.check_room(sum(file.size for file in new))
        for file in manifest.files:
            target = folder / file.path
            if file not in new:
                for _ in source.read(file):
                    pass
                if file.path in needed:
                    objects.lend(file.sha256, target)
            else:
                _write(source, file, target)
        with named(folder, path):
            yield Bundle(folder, manifest)


def _opened(source: Path) -> BinaryIO:
    try:
        return open_regular(source)
    except FileNotFoundError:
        raise InputError(f"there is no {source}", "give an adapter file") from None
    except OSError as error:
        raise InputError(f"{source} can't be read ({error.strerror})", "check its permissions") from None


def _write(source: BundleSource, file: FileEntry, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as output:
            for chunk in source.read(file):
                output.write(chunk)
            _sync(output)
    except (FileExistsError, NotADirectoryError):  # names that differ in nothing but case, on some systems
        raise InputError(f"{source.where} holds {file.path} twice", "export the bundle again") from None


def _sync(output: BinaryIO) -> None:
    output.flush()
    os.fsync(output.fileno())


@contextmanager
def named(copy: Path, source: Path | str) -> Iterator[None]:
    """Let errors say where a file came from."""
    try:
        yield
    except EdgekitError as error:
        problem = error.problem.replace(str(copy), str(source))
        if problem == error.problem:
            raise
        raise type(error)(problem, error.hint) from error
