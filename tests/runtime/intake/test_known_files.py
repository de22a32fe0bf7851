"""Files that were digested once: what has changed is refused, what hasn't is not read again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgekit_runtime import InputError
from edgekit_runtime.formats.bundle import file_digest
from edgekit_runtime.intake import known_files
from edgekit_runtime.intake.known_files import KnownFiles


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files that were digested."""
    found: list[Path] = []

    def digest(path: Path) -> str:
        found.append(path)
        return file_digest(path)

    monkeypatch.setattr(known_files, "file_digest", digest)
    monkeypatch.setattr(known_files, "SETTLED_NS", -(10**12))  # else a test would have to wait
    return found


def test_an_unchanged_file_is_digested_once(tmp_path: Path, reads: list[Path]) -> None:
    file = tmp_path / "a.gguf"
    file.write_bytes(b"adapter")
    known, digest = KnownFiles(), file_digest(file)
    for _ in range(3):
        known.check(file, digest)
    assert reads == [file]
    KnownFiles().check(file, digest)  # what another one knows is nothing here
    assert reads == [file, file]


def test_a_change_is_refused_though_size_and_time_of_modification_are_set_back(
    tmp_path: Path, reads: list[Path]
) -> None:
    file = tmp_path / "a.gguf"
    file.write_bytes(b"adapter")
    known, digest, before = KnownFiles(), file_digest(file), file.stat()
    known.check(file, digest)
    file.write_bytes(b"changed")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    for _ in range(2):
        with pytest.raises(InputError, match="changed since"):
            known.check(file, digest)
    file.write_bytes(b"adapter")
    known.check(file, digest)


def test_a_file_that_was_written_just_now_is_digested_again(
    tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_files, "SETTLED_NS", 10**12)
    file = tmp_path / "a.gguf"
    file.write_bytes(b"adapter")
    known = KnownFiles()
    for _ in range(2):
        known.check(file, file_digest(file))
    assert len(reads) == 2


def test_a_file_that_is_gone_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a.gguf can't be read"):
        KnownFiles().check(tmp_path / "a.gguf", "0" * 64)
