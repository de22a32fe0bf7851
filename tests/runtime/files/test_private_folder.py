"""Folders for one process at a time: what stays in a kept one, and who gets another."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit_runtime.files.private_folder import is_in_use, kept_folder


def test_a_kept_folder_stays_when_its_block_fails_and_goes_when_it_ends_well(tmp_path: Path) -> None:
    def fail() -> None:
        with kept_folder(tmp_path, "a") as folder:
            (folder / "file").write_text("half")
            assert is_in_use(folder)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not is_in_use(tmp_path / "a")
    with kept_folder(tmp_path, "a") as folder:
        assert (folder / "file").read_text() == "half"
    assert not list(tmp_path.iterdir())


def test_two_at_once_get_two_folders(tmp_path: Path) -> None:
    with kept_folder(tmp_path, "a") as first, kept_folder(tmp_path, "a") as second:
        assert first != second
    assert not list(tmp_path.iterdir())
