"""A bundle out of a registry, as a folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit_runtime.errors import InputError
from edgekit_runtime.files.atomic import check_replaceable, publish
from edgekit_runtime.files.private_folder import kept_folder
from edgekit_runtime.formats.bundle import file_digest, is_bundle, read_manifest
from edgekit_runtime.formats.bundle_source import check_disk
from edgekit_runtime.formats.manifest import MANIFEST_FILE, SIGNATURE_FILE, FileEntry
from edgekit_runtime.registry.connection import WAITS
from edgekit_runtime.registry.reference import Reference
from edgekit_runtime.registry.source import RegistryBundle


@dataclass(frozen=True)
class Pulled:
    """What a pull did: the ``folder``, the ``reference`` with its digest, bytes of files that were downloaded."""

    folder: Path
    reference: Reference
    downloaded: int
    signed: bool


def pull(
    reference: Reference,
    folder: Path,
    *,
    trust: Path | None = None,
    ca: Path | None = None,
    waits: Sequence[float] = WAITS,
) -> Pulled:
    """Pull a bundle into ``folder``, which appears as a whole.

    Files that an earlier bundle in ``folder`` has are not downloaded.  What arrives is kept beside ``folder`` until all
    is there, so that the next call goes on.

    Args:
        reference: a digest, or a tag.
        folder: a bundle that is there is replaced.
        trust: public keys, one of which has to have signed it.
        ca: certificates (PEM) that the registry's may be of, besides the system's.
        waits: seconds before each next try where a connection breaks.

    Raises:
        InputError: not what its digests say, not signed by one of the keys, no room, or ``folder`` holds other things.
        TargetError: the registry can't be reached, or refuses.
    """
    check_replaceable(folder, is_bundle)
    source = RegistryBundle(reference, ca=ca, waits=waits)
    signed = source.read_manifest(trust, signature=True)
    source.check_listing(signed.manifest)
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    with kept_folder(folder.absolute().parent, f".{folder.name}.begun") as arrived:
        _bring(source, signed.manifest.files, arrived, _earlier(folder))
        with publish(folder, is_ours=is_bundle) as made:
            (made / MANIFEST_FILE).write_bytes(signed.content)
            if signed.signature is not None:
                (made / SIGNATURE_FILE).write_bytes(signed.signature)
            _place(signed.manifest.files, arrived, made)
    return Pulled(folder, source.reference, source.downloaded, signed.signature is not None)


def _bring(source: RegistryBundle, files: Sequence[FileEntry], arrived: Path, earlier: Mapping[str, Path]) -> None:
    """Have each file in ``arrived``, under its sha256."""
    missing = {file.sha256: file for file in files if not (arrived / file.sha256).exists()}
    check_disk(arrived, sum(file.size for file in missing.values()), source.where)
    for digest, file in {file.sha256: file for file in files}.items():
        if digest in missing and digest in earlier and file_digest(earlier[digest]) == digest:
            shutil.copyfile(earlier[digest], arrived / digest)
        source.download(file, arrived / digest)


def _place(files: Sequence[FileEntry], arrived: Path, folder: Path) -> None:
    placed: dict[str, Path] = {}
    for file in files:
        target = folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.sha256 in placed:
            shutil.copyfile(placed[file.sha256], target)
        else:
            placed[file.sha256] = (arrived / file.sha256).rename(target)


def _earlier(folder: Path) -> dict[str, Path]:
    """The files of a bundle that is there, by the sha256 that its manifest says."""
    if not is_bundle(folder):
        return {}
    try:
        return {
            file.sha256: folder / file.path for file in read_manifest(folder).files if (folder / file.path).is_file()
        }
    except InputError:  # it is replaced
        return {}
