"""What a store lacks of a bundle in a registry: that alone is downloaded, into the store's temporary area."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
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

    The bundle that is yielded is a private copy, with the manifest whose signature was checked.  What has arrived of a
    file stays when the line breaks, also over a restart; `gc` removes it.  Errors within the block name the reference.

    Raises:
        InputError: not what its digests say, no room, or not signed by one of the keys.
        TargetError: the registry can't be reached.
    """
    with private_folder(objects.scratch) as private:
        folder = private.path
        manifest = source.read_manifest(trust).manifest
        source.check_listing(manifest)
        needed = needed_files(manifest.base, manifest.adapters)
        there = {digest for digest in needed.values() if objects.is_sound(digest)}
        files = [file for file in manifest.files if file.path in needed]
        objects.check_room(sum(file.size - _begun(objects, file) for file in files if file.sha256 not in there))
        arrived: dict[str, Path] = {}
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
                with kept_folder(objects.scratch, file.sha256 + _BEGUN) as begun:
                    source.download(file, begun / _FILE)
                    (begun / _FILE).rename(target)
                arrived[file.sha256] = target
        with named(folder, source.where):
            yield Bundle(folder, manifest)


def _begun(objects: Objects, file: FileEntry) -> int:
    """Bytes of a file that have arrived earlier."""
    try:
        return min((objects.scratch / (file.sha256 + _BEGUN) / _FILE).stat().st_size, file.size)
    except OSError:
        return 0
