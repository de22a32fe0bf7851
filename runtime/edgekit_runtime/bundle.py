"""Opening and verifying bundles: a folder, or a .tar of one."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgekit_runtime.base_files import BaseFiles
from edgekit_runtime.errors import InputError
from edgekit_runtime.manifest import BUNDLE_SCHEMA, Manifest, is_safe_path

MANIFEST_FILE = "manifest.json"
SIGNATURE_FILE = "manifest.sig"
MAX_MANIFEST_BYTES = 16 * 1024 * 1024
MAX_TAR_MEMBERS = 10_000
MAX_TAR_BYTES = 64 * 1024**3
_MEND = "copy or export the bundle again"


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
        return BaseFiles(self.manifest.engine, self.base_path, parts)

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
def open_bundle(path: Path | str, *, verify: bool = True) -> Iterator[Bundle]:
    """Open a bundle folder or .tar (unpacked to a temporary folder).

    Args:
        path: folder or tar file.
        verify: check size and sha256 of every file.

    Raises:
        InputError: no bundle, or one that is not what its manifest says.
    """
    path = Path(path)
    if path.is_dir():
        yield Bundle(path, verify_bundle(path) if verify else read_manifest(path))
    elif path.is_file():
        with tempfile.TemporaryDirectory(prefix="edgekit-bundle-") as folder:
            root = _unpack(path, Path(folder))
            yield Bundle(root, verify_bundle(root) if verify else read_manifest(root))
    else:
        raise InputError(f"there is no bundle at {path}", "give a bundle's folder or .tar; `edgekit export` makes one")


def is_bundle(folder: Path) -> bool:
    """Whether ``folder`` is a bundle that an export may replace."""
    try:
        return BUNDLE_SCHEMA.encode() in (folder / MANIFEST_FILE).read_bytes()
    except OSError:
        return False


def read_manifest(root: Path) -> Manifest:
    """Read the manifest of a bundle folder without looking at the other files.

    Raises:
        InputError: missing or malformed.
    """
    path = root / MANIFEST_FILE
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise InputError(f"{path} is too large for a manifest", _MEND)
        return Manifest.parse(path.read_bytes(), where=str(path))
    except FileNotFoundError:
        raise InputError(f"{root} is not a bundle: it has no {MANIFEST_FILE}", "`edgekit export` makes one") from None
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror})", "check its permissions") from None


def verify_bundle(root: Path) -> Manifest:
    """Check that a folder holds exactly the files of its manifest, each with its size and sha256.

    Raises:
        InputError: a file is missing, altered, not listed, or a link.
    """
    manifest = read_manifest(root)
    listed = {entry.path: entry for entry in manifest.files}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            raise InputError(f"{path} is a link", _MEND)
        if path.is_file() and name not in listed and name not in (MANIFEST_FILE, SIGNATURE_FILE):
            raise InputError(f"{path} is not listed in the manifest", "remove it")
    for name, entry in listed.items():
        path = root / name
        if not path.is_file():
            raise InputError(f"{path} is missing from the bundle", _MEND)
        if path.stat().st_size != entry.size:
            raise InputError(f"{path} has {path.stat().st_size} bytes, not {entry.size}", _MEND)
        if file_digest(path) != entry.sha256:
            raise InputError(f"{path} is not the file that was exported: its sha256 differs", _MEND)
    return manifest


def file_digest(path: Path) -> str:
    """sha256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _unpack(archive: Path, folder: Path) -> Path:
    """Unpack regular files under safe names; returns the folder that has the manifest."""
    try:
        with tarfile.open(archive, "r:") as tar:
            total = 0
            for count, member in enumerate(tar, 1):
                name = member.name.removeprefix("./").rstrip("/")
                total += member.size
                if count > MAX_TAR_MEMBERS or total > MAX_TAR_BYTES:
                    raise InputError(f"{archive} is larger than a bundle can be", _MEND)
                if member.isdir() and (name in ("", ".") or is_safe_path(name)):
                    continue
                if not member.isfile() or not is_safe_path(name):
                    raise InputError(
                        f"{archive} holds {member.name!r}, which is a link, a device or leaves the bundle",
                        _MEND,
                    )
                if total > shutil.disk_usage(folder).free:
                    raise InputError(f"there is no room in {folder} to unpack {archive}", "free some space")
                stream = tar.extractfile(member)
                assert stream is not None  # regular files have data
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as output:
                    shutil.copyfileobj(stream, output, 1024 * 1024)
    except (tarfile.TarError, EOFError, FileExistsError) as error:
        raise InputError(f"{archive} is not a sound .tar ({error})", _MEND) from None
    inner = [entry for entry in folder.iterdir() if entry.is_dir()]
    if not (folder / MANIFEST_FILE).exists() and len(inner) == 1:
        return inner[0]
    return folder
