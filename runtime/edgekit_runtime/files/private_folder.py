"""Folders in a store's temporary area that belong to one process: locked while it lives, and ``gc`` leaves them.

A service says in its own which generation it answers with, so that this one is not dropped either.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgekit_runtime.errors import InputError
from edgekit_runtime.files.regular import read_small

_FORGOTTEN_SECONDS = 24 * 3600.0  # where a folder can't be locked
_PIN = "generation"
_PIN_BYTES = 32


@dataclass(frozen=True)
class PrivateFolder:
    """A folder for this user alone."""

    path: Path

    def pin(self, number: int) -> None:
        """Keep a generation, in the place of the one that was kept until now."""
        scratch = self.path / f"{_PIN}.new"
        scratch.write_text(str(number), encoding="ascii")
        scratch.replace(self.path / _PIN)


@contextmanager
def private_folder(scratch: Path) -> Iterator[PrivateFolder]:
    """A new one; it is gone afterwards."""
    while True:
        folder = scratch / uuid.uuid4().hex
        folder.mkdir(mode=0o700)
        handle = _lock(folder)
        if folder.is_dir():  # `gc` may have come between
            break
    try:
        yield PrivateFolder(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle is not None:
            os.close(handle)


@contextmanager
def kept_folder(scratch: Path, name: str) -> Iterator[Path]:
    """A folder of this name, which stays when the block fails, so that the next one goes on with what is in it.

    Where another process is at work in it, and where folders can't be locked, it is a new one that never stays.
    """
    folder = scratch / name
    folder.mkdir(mode=0o700, exist_ok=True)
    handle = _lock(folder, wait=False)
    if handle is None or not folder.is_dir():  # `gc` may have come between
        with private_folder(scratch) as private:
            yield private.path
        return
    try:
        yield folder
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(handle)


def is_in_use(path: Path) -> bool:
    """Whether something in the temporary area belongs to a process that is at work."""
    if sys.platform == "win32":
        return time.time() - path.stat().st_mtime < _FORGOTTEN_SECONDS
    import fcntl

    if not path.is_dir():
        return False  # small files, made and renamed under the store's lock
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def pinned(scratch: Path) -> set[int]:
    """Generations that services answer with."""
    found = set()
    for folder in scratch.iterdir():
        with contextlib.suppress(OSError, ValueError, InputError):
            content = read_small(folder / _PIN, _PIN_BYTES, follow=False)
            if is_in_use(folder):
                found.add(int(content))
    return found


def _lock(folder: Path, *, wait: bool = True) -> int | None:
    """A handle that holds the lock of a folder; None where there is none, or where somebody holds it."""
    if sys.platform == "win32":
        return None
    import fcntl

    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle
