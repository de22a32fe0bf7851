"""What a store lacks of a bundle in a registry: that alone is downloaded, into the store's temporary area."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit_runtime.errors import InputError
from edgekit_runtime.files.private_folder import kept_folder, private_folder
from edgekit_runtime.formats.bundle import Bundle
from edgekit_runtime.formats.manifest import FileEntry, needed_files
from edgekit_runtime.store.incoming import named
from edgekit_runtime.store.objects import Objects

if TYPE_CHECKING:  # its HTTP client is loaded where something is downloaded
    from edgekit_runtime.registry.source import RegistryBundle

_BEGUN = ".begun"  # ends the name of a folder that has what arrived of a file; an object is never named so
_FILE = "file"


@contextmanager
def take_pulled(source: RegistryBundle, objects: Objects, trust: Path | None) -> Iterator[Bundle]:
    """Download what a device needs of a bundle and its store lacks, and check it as it is written.

    The bundle that is yielded is a private copy, with the manifest whose signature was checked.  What has arrived
    stays when the line breaks, whole files too, also over a restart; `gc` removes it.  Errors within the block name
    the reference.

    Raises:
        InputError: not what its digests say, no room, or not signed by one of the keys.
        TargetError: the registry can't be reached.
    """
    with ExitStack() as kept, private_folder(objects.scratch) as private:
        folder = private.path
        manifest = source.read_manifest(trust).manifest
        source.check_listing(manifest)
        needed = needed_files(manifest.base, manifest.adapters)
        there = {digest for digest in needed.values() if objects.is_sound(digest)}
        files = [file for file in manifest.files if file.path in needed]
        objects.check_room(sum(file.size - _begun(objects, file) for file in files if file.sha256 not in there))
        arrived: dict[str, Path] = {}
        whole: list[Path] = []
        for file in files:
            target = folder / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():  # names that differ in nothing but case, on some systems
                raise InputError(f"{source.where} holds {file.path} twice", "export the bundle again")
            if file.sha256 in there:
                objects.lend(file.sha256, target)
            elif file.sha256 in arrived:
                shutil.copyfile(arrived[file.sha256], target)
            else:
                begun = kept.enter_context(kept_folder(objects.scratch, file.sha256 + _BEGUN)) / _FILE
                source.download(file, begun)
                _have_twice(begun, target)
                arrived[file.sha256] = target
                whole.append(begun)
        try:
            with named(folder, source.where):
                yield Bundle(folder, manifest)
        except InputError:  # what is refused is of no use to the next try
            for begun in whole:
                begun.unlink(missing_ok=True)
            raise


def _have_twice(begun: Path, target: Path) -> None:
    """What has arrived as a whole stays where it is until all is installed."""
    try:
        os.link(begun, target)
    except OSError:  # a file system without links
        begun.rename(target)


def _begun(objects: Objects, file: FileEntry) -> int:
    """Bytes of a file that have arrived earlier."""
    try:
        return min((objects.scratch / (file.sha256 + _BEGUN) / _FILE).stat().st_size, file.size)
    except OSError:
        return 0
