"""Tars of strangers: what is wrong is refused from the headers, before a byte is unpacked."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tracemalloc
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit_runtime.errors import InputError
from edgekit_runtime.formats import bundle_source
from edgekit_runtime.formats.bundle import file_digest, open_bundle
from edgekit_runtime.formats.tar import MAX_EXTENSION, MAX_MEMBERS, read_members
from tests.runtime.formats.test_manifest import document

GIB = 1024**3
ZEROS = bytes(tarfile.BLOCKSIZE)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % tarfile.BLOCKSIZE)


def member(name: str, content: bytes = b"", *, kind: bytes = tarfile.REGTYPE, size: int | None = None) -> bytes:
    """A member as raw bytes; ``size`` is what its header claims."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(content) if size is None else size
    return info.tobuf(tarfile.GNU_FORMAT) + padded(content)


def pax(records: dict[str, str], kind: bytes = tarfile.XHDTYPE) -> bytes:
    lines = b""
    for key, value in records.items():
        rest = f" {key}={value}\n".encode()
        length = len(rest) + 1
        while len(str(length)) + len(rest) != length:
            length += 1
        lines += str(length).encode() + rest
    return member("pax", lines, kind=kind)


def long_name(name: bytes) -> bytes:
    return member("././@LongLink", name + b"\0", kind=tarfile.GNUTYPE_LONGNAME)


def names(content: bytes) -> list[str]:
    return list(read_members(io.BytesIO(content), "line-3.tar"))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle of the right form; its model files are not models."""
    root = tmp_path / "line-3"
    whole = document()
    for entry in whole["files"]:
        path = root / entry["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(entry["path"].encode() * 100)
        entry["size"], entry["sha256"] = path.stat().st_size, file_digest(path)
    whole["base"]["digest"] = whole["files"][0]["sha256"]
    whole["adapters"][0]["digest"] = whole["files"][1]["sha256"]
    (root / "manifest.json").write_text(json.dumps(whole))
    return root


@pytest.fixture
def unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def refused(archive: Path, words: str) -> None:
    with pytest.raises(InputError, match=words) as error, open_bundle(archive):
        pass
    said = str(error.value)
    assert said.isprintable()
    assert len(said) < 1000


@pytest.mark.parametrize(
    "arguments",
    [
        ["cf", "T", "line-3"],
        ["cf", "T", "-C", "line-3", "."],
        ["cf", "T", "--format=pax", "line-3"],
        ["cf", "T", "--format=ustar", "line-3"],
        ["cf", "T", "--format=v7", "line-3"],
        ["cf", "T", "--sort=name", "-C", "line-3", "base", "adapters", "manifest.json"],
        ["cf", "T", "--xattrs", "--format=posix", "line-3"],
    ],
)
def test_what_tar_makes_of_the_folder_opens(bundle: Path, arguments: list[str]) -> None:
    archive = bundle.parent / "packed.tar"
    subprocess.run(["tar", *[each.replace("T", str(archive)) for each in arguments]], cwd=bundle.parent, check=True)
    with open_bundle(archive) as opened:
        assert opened.base_path.read_bytes() == (bundle / "base/model.gguf").read_bytes()
        assert {path.name for path in opened.root.rglob("*.*")} == {"manifest.json", "model.gguf", "a-1.gguf"}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_are_read_in_every_format(form: int) -> None:
    name = "/".join(["adapters", "x" * 80, "y" * 60])
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=form) as tar:
        for each in ("manifest.json", name):
            info = tarfile.TarInfo(each)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
    assert names(packed.getvalue()) == ["manifest.json", name]


HOSTILE: dict[str, tuple[bytes, str]] = {
    "sparse, as old GNU tars have it": (member("base/model.gguf", kind=tarfile.GNUTYPE_SPARSE, size=3 * GIB), "sparse"),
    "sparse, by pax": (
        pax({"GNU.sparse.major": "1", "GNU.sparse.realsize": str(3 * GIB)}) + member("a", b"x"),
        "sparse",
    ),
    "sparse, for all members": (pax({"GNU.sparse.size": "1"}, tarfile.XGLTYPE) + member("a", b"x"), "sparse"),
    "a pax header of 2 GB": (member("pax", kind=tarfile.XHDTYPE, size=2 * GIB), "header of 2147483648 bytes"),
    "a pax header that is too large by one": (
        member("pax", bytes(MAX_EXTENSION + 1), kind=tarfile.XHDTYPE),
        "none needs more than",
    ),
    "a long name of 8 GB": (
        member("././@LongLink", kind=tarfile.GNUTYPE_LONGNAME, size=8 * GIB - 1),
        "none needs more than",
    ),
    "a name of 300 bytes in one part": (long_name(b"base/" + b"x" * 300) + member("x", b"x"), "no name"),
    "a name of 3,000 parts": (long_name(b"a/" * 3000 + b"x") + member("x", b"x"), "no name"),
    "a folder of 3,000 parts": (long_name(b"a/" * 3000) + member("x", kind=tarfile.DIRTYPE), "no name"),
    "a name of 60,000 bytes": (long_name(b"a" * 60_000) + member("x", b"x"), "no name"),
    "a newline in a name": (long_name(b"base/a\nerror: nothing") + member("x", b"x"), "no name"),
    "ESC in a name": (member("base/\x1b[2J", b"x"), "no name"),
    "a name that is no UTF-8": (long_name(b"base/\xff\xfe") + member("x", b"x"), "no name"),
    "a NUL in a pax name": (pax({"path": "base/a\0b"}) + member("x", b"x"), "no name"),
    "a name that leaves the bundle, by pax": (pax({"path": "../evil"}) + member("x", b"x"), "leaves the bundle"),
    "a name from the root, as long name": (long_name(b"/etc/passwd") + member("x", b"x"), "leaves the bundle"),
    "one name for all members": (pax({"path": "a"}, tarfile.XGLTYPE) + member("x", b"x"), "names all files"),
    "a size that is no number": (pax({"size": "many"}) + member("x", b"x"), "no number"),
    "a size of 5,000 digits": (pax({"size": "9" * 5000}) + member("x", b"x"), "no number"),
    "a size beyond the file": (member("x", b"x", size=GIB), "cut off"),
    "a size beyond the file, by pax": (pax({"size": str(10**17)}) + member("x", b"x"), "cut off"),
    "a pax record of length 0": (member("p", b"0 path=x\n", kind=tarfile.XHDTYPE) + member("x", b"x"), "malformed"),
    "a pax record without end": (member("p", b"99 path=x\n", kind=tarfile.XHDTYPE) + member("x", b"x"), "malformed"),
    "a link": (member("base/model.gguf", kind=tarfile.SYMTYPE), "link, a device"),
    "a hard link": (member("base/model.gguf", kind=tarfile.LNKTYPE), "link, a device"),
    "a device": (member("base/model.gguf", kind=tarfile.BLKTYPE), "link, a device"),
    "a FIFO": (member("base/model.gguf", kind=tarfile.FIFOTYPE), "link, a device"),
    "a kind that nobody knows": (member("base/model.gguf", kind=b"Q"), "unknown kind"),
    "a long link name": (member("x", b"y" * 99, kind=tarfile.GNUTYPE_LONGLINK), "unknown kind"),
    "a file twice": (member("a", b"x") + member("a", b"y"), "twice"),
    "a file twice, the second as ./": (member("a", b"x") + member("./a", b"y"), "twice"),
    "too many members": (member("a", kind=tarfile.DIRTYPE) * (MAX_MEMBERS + 1), "more than 10000 members"),
    "headers for ever": (pax({"path": "a"}) * 10_001, "more than 10000 members"),
    "text": (b"no tar" * 1000, "not a sound .tar"),
    "nothing": (b"", "not a sound .tar"),
    "zeros": (ZEROS * 20, "holds no file"),
}


@pytest.mark.parametrize(("content", "words"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_tars_are_refused_in_one_line_and_write_nothing(
    content: bytes, words: str, tmp_path: Path, unpacked: Path
) -> None:
    archive = tmp_path / "line-3.tar"
    archive.write_bytes(content + (ZEROS * 2 if content else b""))
    tracemalloc.start()
    try:
        refused(archive, words)
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024**2
    finally:
        tracemalloc.stop()
    assert list(unpacked.iterdir()) == []


@pytest.mark.parametrize(
    ("pack", "words"),
    [
        (gzip.compress, "compressed (gzip)"),
        (lzma.compress, "compressed (xz)"),
        (lambda content: b"\x28\xb5\x2f\xfd" + content, "compressed (zstd)"),
        (lambda content: b"PK\x03\x04" + content, "compressed (zip)"),
    ],
)
def test_a_compressed_tar_is_named_as_one(pack: Callable[[bytes], bytes], words: str, tmp_path: Path) -> None:
    archive = tmp_path / "line-3.tar.gz"
    archive.write_bytes(pack(bytes(GIB // 64)))
    with pytest.raises(InputError) as error, open_bundle(archive):
        pass
    assert words in str(error.value)
    assert "unpack it" in str(error.value)


def test_a_sparse_tar_of_gnu_tar_is_refused(bundle: Path, unpacked: Path) -> None:
    with (bundle / "base/model.gguf").open("wb") as stream:
        stream.truncate(3 * GIB)
    archive = bundle.parent / "packed.tar"
    for form in ("gnu", "pax"):
        command = ["tar", "-S", f"--format={form}", "-cf", str(archive), "line-3"]
        subprocess.run(command, cwd=bundle.parent, check=True)
        assert archive.stat().st_size < 100_000
        refused(archive, "sparse")
    assert list(unpacked.iterdir()) == []


def _packed(bundle: Path, change: Callable[[dict[str, Any]], None] | None = None, extra: bytes = b"") -> Path:
    whole = json.loads((bundle / "manifest.json").read_bytes())
    if change is not None:
        change(whole)
    files = {path.relative_to(bundle).as_posix(): path.read_bytes() for path in bundle.rglob("*.gguf")}
    content = b"".join(member(name, each) for name, each in files.items())
    archive = bundle.parent / "packed.tar"
    archive.write_bytes(content + extra + member("manifest.json", json.dumps(whole).encode()) + ZEROS * 2)
    return archive


def test_the_manifest_may_come_last_and_only_what_it_lists_is_written(bundle: Path) -> None:
    with open_bundle(_packed(bundle)) as opened:
        assert opened.manifest.name == "line-3"
    refused(_packed(bundle, extra=member("base/more.bin", bytes(1000))), "'base/more.bin' .* is not listed")


def test_a_file_that_is_longer_or_shorter_than_listed_is_refused_unread(bundle: Path, unpacked: Path) -> None:
    def shorter(whole: dict[str, Any]) -> None:
        whole["files"][0]["size"] -= 1

    refused(_packed(bundle, shorter), "has 1500 bytes, not 1499")
    assert list(unpacked.iterdir()) == []


def test_a_disk_without_room_is_told_before_anything_is_written(
    bundle: Path, unpacked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(bundle_source.shutil, "disk_usage", lambda _: usage(10, 8, 2))
    refused(_packed(bundle), "there is no room .* 1 MiB are needed, 0 are free")
    assert list(unpacked.iterdir()) == []


def test_a_tar_that_ends_anywhere_is_whole_or_refused(bundle: Path) -> None:
    archive = _packed(bundle)
    content = archive.read_bytes()
    end = len(content.rstrip(b"\0"))  # of the manifest, which comes last
    for length in [*range(0, end, 173), end - 1]:
        archive.write_bytes(content[:length])
        refused(archive, "cut off|not a bundle|not a sound .tar|missing")
    archive.write_bytes(content[:end])  # nothing but zeros is gone
    with open_bundle(archive) as opened:
        assert opened.manifest.name == "line-3"


def test_a_manifest_of_many_bytes_is_refused_unread(bundle: Path) -> None:
    archive = bundle.parent / "packed.tar"
    archive.write_bytes(member("manifest.json", b" " * (4 * 1024**2 + 1)) + ZEROS * 2)
    refused(archive, "larger than the 4194304 bytes")
    archive.write_bytes(member("manifest.json", b"{}") + member("manifest.sig", bytes(65)) + ZEROS * 2)
    refused(archive, "larger than the 64 bytes")


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 100_000, b"\xff", b"1" * 5000, b'"\\ud800"', b"null"])
def test_a_manifest_of_strange_json_is_refused(content: bytes, tmp_path: Path) -> None:
    archive = tmp_path / "packed.tar"
    archive.write_bytes(member("manifest.json", content) + ZEROS * 2)
    refused(archive, "manifest.json")


@pytest.mark.parametrize("path", ["base/model.gguf/x", "manifest.json", "manifest.sig", "base/" + "a/" * 20 + "x"])
def test_a_manifest_whose_paths_cannot_be_made_is_refused(path: str, bundle: Path, unpacked: Path) -> None:
    def more(whole: dict[str, Any]) -> None:
        whole["files"].append({"path": path, "size": 0, "sha256": "0" * 64})

    refused(_packed(bundle, more), "in another file|lists itself|leaves the bundle")
    assert list(unpacked.iterdir()) == []


def _headers(content: bytes) -> list[int]:
    at, found = 0, []
    while content[at : at + 512].strip(b"\0"):
        found.append(at)
        size = tarfile.TarInfo.frombuf(content[at : at + 512], "utf-8", "surrogateescape").size
        at += 512 + -(-size // 512) * 512
    return found


FIELDS = {
    "name": (0, 100),
    "mode": (100, 8),
    "size": (124, 12),
    "type": (156, 1),
    "magic": (257, 8),
    "prefix": (345, 155),
}
VALUES = st.one_of(
    st.binary(max_size=155),
    st.sampled_from([b"../x", b"/x", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"77777777777\0", b"x" * 155, b"0", b"\0"]),
)


def _checksum(block: bytearray) -> None:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)


@pytest.fixture(scope="module")
def whole_tar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[bytes, Path]]:
    root = tmp_path_factory.mktemp("tars") / "line-3"
    whole = document()
    for entry in whole["files"]:
        path = root / entry["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(entry["path"].encode())
        entry["size"], entry["sha256"] = path.stat().st_size, file_digest(path)
    whole["base"]["digest"] = whole["files"][0]["sha256"]
    whole["adapters"][0]["digest"] = whole["files"][1]["sha256"]
    (root / "manifest.json").write_text(json.dumps(whole))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(root, "line-3", filter=_dated)
    yield packed.getvalue(), root.parent
    shutil.rmtree(root.parent)


def _dated(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """With half a second, which a PAX header alone can hold."""
    info.mtime = 1.5  # type: ignore[assignment]
    return info


@given(data=st.data())
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_a_header_says_a_tar_is_opened_as_what_it_is_or_refused(
    whole_tar: tuple[bytes, Path], data: st.DataObject
) -> None:
    """Headers are changed field by field, with checksums that are right: what changes is what is read."""
    content, folder = bytearray(whole_tar[0]), whole_tar[1]
    starts = _headers(bytes(content))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.sampled_from(starts))
        start, length = FIELDS[data.draw(st.sampled_from(sorted(FIELDS)))]
        block = content[at : at + 512]
        block[start : start + length] = data.draw(VALUES)[:length].ljust(length, b"\0")
        _checksum(block)
        content[at : at + 512] = block
    archive = folder / "changed.tar"
    archive.write_bytes(content)
    said = ""
    try:
        with open_bundle(archive) as opened:
            for name in ("base/model.gguf", "adapters/a-1.gguf"):
                assert (opened.root / name).read_bytes() == name.encode()
    except InputError as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 1000


@given(content=st.binary(max_size=2048), kind=st.sampled_from([tarfile.XHDTYPE, tarfile.XGLTYPE, b"L", b"X"]))
@settings(max_examples=300, deadline=None)
def test_whatever_an_extension_header_holds_is_read_or_refused(content: bytes, kind: bytes) -> None:
    try:
        found = names(member("header", content, kind=kind) + member("a", b"x") + ZEROS * 2)
    except InputError:
        return
    assert len(found) == 1


def test_opening_a_tar_takes_no_memory_for_what_it_claims(tmp_path: Path) -> None:
    """In a process of its own whose memory is limited, as a box's is."""
    archive = tmp_path / "x.tar"
    archive.write_bytes(HOSTILE["a pax header of 2 GB"][0] + ZEROS * 2)
    with archive.open("r+b") as stream:
        stream.truncate(3 * GIB)  # holes: the bytes are there, and none is on the disk
    code = (
        "import sys\nfrom edgekit_runtime.formats.bundle import open_bundle\n"
        "from edgekit_runtime.errors import InputError\n"
        "try:\n  open_bundle(sys.argv[1]).__enter__()\nexcept InputError as error:\n  print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(archive)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (GIB, GIB)),
        check=True,
    )
    assert "header of 2147483648 bytes" in done.stdout
