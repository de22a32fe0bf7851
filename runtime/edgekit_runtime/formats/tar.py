"""What a .tar holds, from one bounded pass over its headers; nothing is unpacked.

Understood are regular files and folders in the ustar, GNU and pax formats, with long names and sizes.  Links, devices,
sparse files and whatever else a header may ask for are refused, as are headers that are larger than names can be.
"""

from __future__ import annotations

import re
import tarfile
from dataclasses import dataclass
from typing import BinaryIO, NoReturn

from edgekit_runtime.errors import InputError, shown
from edgekit_runtime.formats.manifest import is_safe_path

BLOCK = tarfile.BLOCKSIZE
MAX_MEMBERS = 10_000
MAX_EXTENSION = 64 * 1024  # bytes of a pax header or a GNU long name
_MEND = "pack the bundle's folder again: `tar cf FILE.tar FOLDER`"
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_SPARSE = "GNU.sparse"
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"PK\x03\x04": "zip",
    b"7z\xbc\xaf\x27\x1c": "7-zip",
}


@dataclass(frozen=True)
class TarMember:
    """A file in a .tar: ``size`` bytes from ``offset``."""

    offset: int
    size: int


@dataclass
class _Said:
    """What extension headers say of the member that follows."""

    name: str | None = None
    size: int | None = None


def read_members(stream: BinaryIO, where: str) -> dict[str, TarMember]:
    """Every file of a .tar by its name, in their order.

    Args:
        stream: the archive, which has to be seekable.
        where: names it in errors.

    Raises:
        InputError: no sound .tar, or one with members that no bundle has.
    """
    return _Pass(stream, where).run()


class _Pass:
    def __init__(self, stream: BinaryIO, where: str) -> None:
        self.stream, self.where = stream, where
        self.end = stream.seek(0, 2)
        self.at = 0

    def run(self) -> dict[str, TarMember]:
        members: dict[str, TarMember] = {}
        said = _Said()
        for count in range(self.end // BLOCK + 1):
            header = self.header()
            if header is None:
                break
            if count >= MAX_MEMBERS:
                self.fail(f"it has more than {MAX_MEMBERS} members")
            if header.type in (*_PAX, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME):
                self.extension(header, said)
                continue
            name, size = said.name or header.name, header.size if said.size is None else said.size
            said = _Said()
            name = name.removeprefix("./")
            if header.type == tarfile.DIRTYPE or (header.type in _FILES and name.endswith("/")):
                self.check_name(name.rstrip("/"), folder=True)
                continue
            if header.type not in _FILES:
                kind = "sparse" if header.type == tarfile.GNUTYPE_SPARSE else "a link, a device or of an unknown kind"
                self.fail(f"{shown(name)} is {kind}")
            self.check_name(name)
            if name in members:
                self.fail(f"{shown(name)} is in it twice")
            members[name] = TarMember(self.at, size)
            self.skip(size, name)
        if not members:
            self.fail("it holds no file")
        return members

    def header(self) -> tarfile.TarInfo | None:
        """The header at the cursor, which moves behind it; None at the end."""
        block = self.read(max(0, min(BLOCK, self.end - self.at)))
        if (not block and self.at) or block == bytes(BLOCK):
            return None
        if self.at == len(block):
            for magic, name in _COMPRESSED.items():
                if block.startswith(magic):
                    self.fail(f"it is compressed ({name})", "unpack it, and give the .tar or the folder")
        try:
            found = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.TarError, ValueError, OverflowError) as error:
            self.fail(str(error))
        if found.size < 0:
            self.fail(f"{shown(found.name)} has a size below 0")
        return found

    def extension(self, header: tarfile.TarInfo, said: _Said) -> None:
        if header.size > MAX_EXTENSION:
            self.fail(f"it has a header of {header.size} bytes, and none needs more than {MAX_EXTENSION}")
        start = self.at
        content = self.read(header.size)
        if len(content) < header.size:
            self.fail("it is cut off")
        self.at = start
        self.skip(header.size, header.name)
        if header.type == tarfile.GNUTYPE_LONGNAME:
            said.name = content.partition(b"\0")[0].decode("utf-8", "surrogateescape")
            return
        records = self.pax_records(content)
        if any(key.startswith(_SPARSE) for key in records):
            self.fail("it has a sparse file")
        if header.type == tarfile.XGLTYPE:
            if {"path", "size"} & records.keys():
                self.fail("one header names all files")
            return
        said.name = records.get("path", said.name)
        if "size" in records:
            if not re.fullmatch(r"[0-9]{1,18}", records["size"]):
                self.fail("a size is no number")
            said.size = int(records["size"])

    def pax_records(self, content: bytes) -> dict[str, str]:
        """``LENGTH KEY=VALUE``, each ended by a newline, as POSIX has it."""
        records: dict[str, str] = {}
        at = 0
        while at < len(content) and content[at]:
            found = re.compile(rb"([0-9]{1,6}) ").match(content, at)
            length = int(found[1]) if found else 0
            record = content[at : at + length]
            key, equals, value = record[len(found[0]) if found else 0 :].partition(b"=")
            if len(record) < length or not equals or not value.endswith(b"\n"):
                self.fail("a pax header is malformed")
            records[key.decode("utf-8", "surrogateescape")] = value[:-1].decode("utf-8", "surrogateescape")
            at += length
        return records

    def check_name(self, name: str, *, folder: bool = False) -> None:
        if folder and name in ("", "."):
            return
        if not is_safe_path(name):
            self.fail(f"{shown(name)} leaves the bundle, or is no name that a bundle can have")

    def read(self, length: int) -> bytes:
        self.stream.seek(self.at)
        content = self.stream.read(length)
        self.at += len(content)
        return content

    def skip(self, size: int, name: str) -> None:
        if size > self.end - self.at:
            self.fail(f"it is cut off within {shown(name)}")
        self.at += -(-size // BLOCK) * BLOCK

    def fail(self, problem: str, hint: str = _MEND) -> NoReturn:
        raise InputError(f"{self.where} is not a sound .tar of a bundle: {problem}", hint)
