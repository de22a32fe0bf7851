"""A bundle as it came, folder or .tar: its manifest is read once, and its files are checked as they are read.

Nothing that a bundle holds is used before the bytes of its manifest have the signature that the device asks for, and
nothing is used but the very bytes that were checked: whoever can write to a folder may change it at any moment.
"""

from __future__ import annotations

import hashlib
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edgekit_runtime.errors import InputError, NoRoom, shown
from edgekit_runtime.files.regular import chunks_of, open_regular, read_small
from edgekit_runtime.formats.manifest import MANIFEST_FILE, MAX_DEPTH, SIGNATURE_FILE, FileEntry, Manifest
from edgekit_runtime.formats.tar import MAX_MEMBERS, TarMember, read_members
from edgekit_runtime.formats.trust import SIGNATURE_BYTES, check_signed

MAX_MANIFEST_BYTES = 4 * 1024 * 1024
_MEND = "copy or export the bundle again"


@dataclass(frozen=True)
class SignedManifest:
    """A manifest with the bytes that it was read from, and their signature where there is one."""

    manifest: Manifest
    content: bytes
    signature: bytes | None


class BundleSource(ABC):
    """Where a bundle comes from; ``where`` names it in errors."""

    def __init__(self, where: str) -> None:
        self.where = where

    def read_manifest(self, trust: Path | None = None) -> SignedManifest:
        """Read the manifest, once; its signature is checked before anything in it is looked at.

        Args:
            trust: public keys, one of which has to have signed it; None takes unsigned ones too.

        Raises:
            InputError: missing, malformed, or not signed by one of the keys.
        """
        content = self._small(MANIFEST_FILE, MAX_MANIFEST_BYTES)
        if content is None:
            raise InputError(f"{self.where} is not a bundle: it has no {MANIFEST_FILE}", "`edgekit export` makes one")
        signature = self._small(SIGNATURE_FILE, SIGNATURE_BYTES)
        if trust is not None:
            check_signed(content, signature, trust, self.where)
        return SignedManifest(Manifest.parse(content, where=f"{self.where}/{MANIFEST_FILE}"), content, signature)

    def check_listing(self, manifest: Manifest) -> None:
        """Check that the bundle holds the files of its manifest and no others, each of its size.

        Raises:
            InputError: one is missing, not listed, or of another size.
        """
        sizes = self._sizes()
        listed = {file.path for file in manifest.files}
        for name in sizes:
            if name not in listed and name not in (MANIFEST_FILE, SIGNATURE_FILE):
                raise InputError(f"{shown(name)} in {self.where} is not listed in the manifest", "remove it")
        for file in manifest.files:
            if file.path not in sizes:
                raise InputError(f"{self.where}/{file.path} is missing from the bundle", _MEND)
            if sizes[file.path] != file.size:
                problem = f"{self.where}/{file.path} has {sizes[file.path]} bytes, not {file.size}"
                raise InputError(problem, _MEND)

    def read(self, file: FileEntry) -> Iterator[bytes]:
        """A file's content, piece by piece; the last piece is followed by the judgement.

        Raises:
            InputError: it is not the file that the manifest lists.  What was read until then is worth nothing.
        """
        digest = hashlib.sha256()
        for chunk in self._chunks(file):
            digest.update(chunk)
            yield chunk
        if digest.hexdigest() != file.sha256:
            problem = f"{self.where}/{file.path} is not the file that was exported: its sha256 differs"
            raise InputError(problem, _MEND)

    @abstractmethod
    def _sizes(self) -> dict[str, int]:
        """Bytes of every file by its path."""

    @abstractmethod
    def _small(self, name: str, most: int) -> bytes | None:
        """The content of a small file; None when it isn't there."""

    @abstractmethod
    def _chunks(self, file: FileEntry) -> Iterator[bytes]:
        """A file's content; refused when it isn't of the size that is listed."""


@contextmanager
def open_source(path: Path) -> Iterator[BundleSource]:
    """Open a bundle folder or .tar without looking at more than the headers of the .tar.

    Raises:
        InputError: neither is there, or the .tar is not sound.
    """
    if path.is_dir():
        yield _Folder(path)
        return
    try:
        stream = open_regular(path)
    except FileNotFoundError:
        hint = "give a bundle's folder or .tar; `edgekit export` makes one"
        raise InputError(f"there is no bundle at {path}", hint) from None
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror})", "check the path and its permissions") from None
    with stream:
        yield _Tar(stream, str(path))


def check_disk(folder: Path, needed: int, what: str) -> None:
    """Refuse before anything is written.

    Raises:
        NoRoom: ``folder`` has no room for ``needed`` bytes.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        mib = 1024**2
        problem = f"there is no room in {folder} for {what}: {-(-needed // mib)} MiB are needed, {free // mib} are free"
        raise NoRoom(problem, "free some space")


class _Folder(BundleSource):
    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        self._root = root

    def _sizes(self) -> dict[str, int]:
        sizes: dict[str, int] = {}
        folders: list[tuple[Path, int]] = [(self._root, 1)]
        while folders:
            folder, depth = folders.pop()
            try:
                entries = sorted(folder.iterdir())
            except OSError as error:
                raise InputError(f"{folder} can't be read ({error.strerror})", "check its permissions") from None
            for path in entries:
                name = path.relative_to(self._root).as_posix()
                if path.is_symlink():
                    raise InputError(f"{path} is a link", _MEND)
                if path.is_dir():
                    if depth == MAX_DEPTH:
                        raise InputError(f"{self.where} has deeper folders than a bundle", "remove them")
                    folders.append((path, depth + 1))
                elif path.is_file():
                    sizes[name] = path.stat().st_size
                else:
                    raise InputError(f"{path} is neither a file nor a folder", "remove it")
            if len(sizes) > MAX_MEMBERS:
                raise InputError(f"{self.where} has more than {MAX_MEMBERS} files", "give a bundle's folder")
        return sizes

    def _small(self, name: str, most: int) -> bytes | None:
        path = self._root / name
        try:
            return read_small(path, most, follow=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(f"{path} can't be read ({error.strerror})", "check its permissions") from None

    def _chunks(self, file: FileEntry) -> Iterator[bytes]:
        path = self._root / file.path
        try:
            with open_regular(path, follow=False) as stream:
                yield from chunks_of(stream, file.size, str(path))
                if stream.read(1):
                    raise InputError(f"{path} has more than {file.size} bytes", _MEND)
        except FileNotFoundError:
            raise InputError(f"{path} is missing from the bundle", _MEND) from None
        except OSError as error:
            raise InputError(f"{path} can't be read ({error.strerror})", "check its permissions") from None


class _Tar(BundleSource):
    """One open file from first to last: what happens to its name meanwhile changes nothing."""

    def __init__(self, stream: BinaryIO, where: str) -> None:
        super().__init__(where)
        self._stream = stream
        members = read_members(stream, where)
        prefix = _prefix(members)
        outside = next((name for name in members if not name.startswith(prefix)), None)
        if outside is not None:
            raise InputError(f"{shown(outside)} in {where} is not listed in the manifest", "pack the bundle alone")
        self._members = {name.removeprefix(prefix): member for name, member in members.items()}

    def _sizes(self) -> dict[str, int]:
        return {name: member.size for name, member in self._members.items()}

    def _small(self, name: str, most: int) -> bytes | None:
        member = self._members.get(name)
        if member is None:
            return None
        if member.size > most:
            raise InputError(f"{self.where}/{name} is larger than the {most} bytes that it can have", _MEND)
        return b"".join(self._member(name))

    def _chunks(self, file: FileEntry) -> Iterator[bytes]:
        return self._member(file.path)  # its header's size is the manifest's

    def _member(self, name: str) -> Iterator[bytes]:
        member = self._members[name]
        self._stream.seek(member.offset)
        return chunks_of(self._stream, member.size, f"{self.where}/{name}")


def _prefix(members: dict[str, TarMember]) -> str:
    """The folder that holds the bundle in a .tar, with a slash; nothing when it lies at the top."""
    tops = {name.partition("/")[0] for name in members}
    inner = f"{tops.pop()}/" if len(tops) == 1 else ""
    return inner if f"{inner}{MANIFEST_FILE}" in members else ""
