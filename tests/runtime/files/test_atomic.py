"""Files and folders on disks that are full or can't be written: told in one line, and nothing lost or left."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit_runtime.errors import InputError
from edgekit_runtime.files.atomic import check_replaceable, publish, write_whole
from edgekit_runtime.files.system_errors import explained
from edgekit_runtime.formats.signing import make_key

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From now on the disk takes a file's name, and nothing of its content."""

    def write(path: Path, _: bytes) -> int:
        path.touch()
        raise FULL

    return lambda: monkeypatch.setattr(Path, "write_bytes", write)


def test_an_earlier_result_stays_when_the_disk_is_full(tmp_path: Path, full: Callable[[], None]) -> None:
    file = tmp_path / "deep" / "result.json"
    write_whole(file, b"earlier")
    full()
    with pytest.raises(OSError, match="No space"):
        write_whole(file, b"later")
    assert file.read_bytes() == b"earlier"
    assert _names(file.parent) == ["result.json"]


def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path) -> None:
    write_whole(Path(os.devnull), b"x")
    assert not Path(os.devnull).is_file()
    with pytest.raises(InputError, match="can't be written"):
        write_whole(tmp_path, b"x")
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


def test_a_folder_that_shutil_could_not_copy_is_a_full_disk(tmp_path: Path) -> None:
    collected = shutil.Error([("a", "b", str(FULL)), ("c", "d", str(FULL))])
    with pytest.raises(InputError, match="the disk is full"), publish(tmp_path / "out", is_ours=lambda _: False):
        raise collected
    assert _names(tmp_path) == []


@pytest.mark.parametrize(
    "text",
    [
        "No space left on device (os error 28)",
        'Error while serializing: IoError(Os { code: 28, kind: StorageFull, message: "No space left on device" })',
    ],
)
def test_libraries_that_wrap_the_systems_error_are_understood(text: str) -> None:
    told = explained(Exception(text))
    assert told is not None
    assert "the disk is full" in str(told)
    assert explained(Exception("something else")) is None


def test_half_a_pair_of_keys_does_not_stay(tmp_path: Path) -> None:
    (tmp_path / "a.key.pub").write_text("somebody's")
    with pytest.raises(InputError, match=r"a\.key\.pub exists already"):
        make_key(tmp_path / "a.key")
    assert _names(tmp_path) == ["a.key.pub"]


@pytest.mark.parametrize("is_file", [True, False])
def test_a_place_that_cannot_be_written_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_file: bool
) -> None:
    place = tmp_path / "place"
    place.write_text("a file") if is_file else place.mkdir()
    if not is_file:
        make = Path.mkdir

        def refuse(path: Path, *options: Any, **named: Any) -> None:  # root may write everywhere
            if path.parent == place:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            make(path, *options, **named)

        monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(InputError, match="that is a file" if is_file else "no permission"):
        check_replaceable(place / "deep" / "bundle", lambda _: False)
