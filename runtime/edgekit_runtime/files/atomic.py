"""Replacing a folder or a file as a whole: readers see the old one or the new one, never a mixture."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgekit_runtime.errors import InputError
from edgekit_runtime.files.system_errors import FULL, errno_of

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # linux/fs.h


@contextmanager
def publish(folder: Path, *, is_ours: Callable[[Path], bool]) -> Iterator[Path]:
    """Yield an empty temporary folder beside ``folder``; when the block ends well, it takes the place of ``folder``.

    Args:
        folder: where the result shall be.
        is_ours: tells whether an existing, non-empty ``folder`` is an earlier result that may be replaced.

    Raises:
        InputError: ``folder`` holds something else, can't be written, or the disk is full.  Nothing has changed then.
    """
    check_replaceable(folder, is_ours)
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        try:
            _make_room(temporary)
            yield temporary
            _take_the_place(temporary, folder)
        except OSError as error:
            explained = _explained(error, folder)
            if explained is None:
                raise
            raise explained from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, and the folder it is in; an earlier one stays as it was when that fails.

    Raises:
        InputError: it can't be written there.
    """
    path = path.resolve()  # what a link leads to is replaced, not the link
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        if path.exists() and not path.is_file():  # /dev/stdout, say; a folder is refused by the system
            path.write_bytes(content)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        if error.errno in FULL:
            raise
        raise InputError(f"{path} can't be written ({error.strerror})", "choose another file") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Refuse a file that :func:`write_whole` can't write, before any work is done.

    Raises:
        InputError: it is a folder, or this user may not write there.
    """
    if path.is_dir():
        raise InputError(f"{path} can't be written (it is a folder)", "choose another file")
    if path.exists() and not path.is_file():  # /dev/stdout, say
        return
    _check_parent(path.resolve(), f"{path} can't be written", "choose another file")


def check_replaceable(folder: Path, is_ours: Callable[[Path], bool]) -> None:
    """Refuse before any work is done.

    Raises:
        InputError: ``folder`` exists with other content, or this user may not write there.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"{folder} is a file or link", "choose another output folder")
    if folder.is_dir() and any(folder.iterdir()) and not is_ours(folder):
        raise InputError(f"{folder} exists with other content", "choose another output folder, or empty it")
    _check_parent(folder.absolute(), "no folder can be made", "choose another output folder")


def _check_parent(path: Path, problem: str, hint: str) -> None:
    """Look that something can be made where ``path`` shall be, by making it: permissions don't tell all."""
    there = next(each for each in path.parents if each.exists())
    trial = there / f".{uuid.uuid4().hex[:8]}.trial"
    try:
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "that is a file")
        trial.mkdir()
        trial.rmdir()
    except OSError as error:
        if error.errno in FULL:
            raise
        why = "no permission" if error.errno in (errno.EACCES, errno.EPERM) else error.strerror
        raise InputError(f"{problem} in {there} ({why})", hint) from None


def _make_room(temporary: Path) -> None:
    """Whatever the system says here is about the place that the user chose."""
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
    except OSError as error:
        if error.errno in FULL:
            raise
        problem = f"no folder can be made in {temporary.parent} ({error.strerror})"
        raise InputError(problem, "choose another output folder") from None


def _take_the_place(temporary: Path, folder: Path) -> None:
    if not folder.exists():
        temporary.rename(folder)
    elif not _exchange(temporary, folder):
        old = temporary.with_name(temporary.name + ".old")
        folder.rename(old)
        temporary.rename(folder)
        shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step (Linux's renameat2); False where the system has no such call."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    done = libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    if done == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS):  # the file system can't
        return False
    raise OSError(number, os.strerror(number), str(other))


def _explained(error: OSError, folder: Path) -> InputError | None:
    number = errno_of(error)  # shutil collects several in one
    if number in FULL:
        return InputError(f"the disk is full while writing {folder}", "free some space and run the same command again")
    if number in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
        return InputError(f"{folder} can't be written ({os.strerror(number)})", "choose another output folder")
    return None
