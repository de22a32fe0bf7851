"""Reading files that anybody may have put there: never waits for one, never reads more of it than was asked for."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from edgekit_runtime.errors import InputError, shown

CHUNK = 1024 * 1024
# Without O_NONBLOCK, opening a FIFO waits until somebody writes to it.
_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"))
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)
_NOT_A_FILE = (errno.ENXIO, errno.ENODEV, errno.EOPNOTSUPP)  # sockets, and devices without a driver


def open_regular(path: Path, *, follow: bool = True) -> BinaryIO:
    """Open a regular file for reading.

    Args:
        path: the file.
        follow: whether it may be a link to one.

    Raises:
        InputError: it is something else: a folder, a FIFO, a device, a link where none may be.
        OSError: it isn't there, or can't be read.
    """
    try:
        handle = os.open(path, _FLAGS if follow else _FLAGS | _NO_LINKS)
    except ValueError:
        raise InputError(f"{shown(str(path))} is no path", "leave the NUL out") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError(f"{path} is a link", "put the file itself there") from None
        if error.errno in _NOT_A_FILE or path.is_dir():  # Windows opens no folder
            raise _not_a_file(path) from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise _not_a_file(path)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_small(path: Path, most: int, *, follow: bool = True) -> bytes:
    """The content of a file of at most ``most`` bytes.

    Raises:
        InputError: it is larger, or no regular file.
        OSError: it isn't there, or can't be read.
    """
    with open_regular(path, follow=follow) as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise InputError(f"{path} is larger than the {most} bytes that it can have", "give the right file")
    return content


def chunks_of(stream: BinaryIO, size: int, where: str) -> Iterator[bytes]:
    """The next ``size`` bytes of a stream, piece by piece.

    Raises:
        InputError: it ends before.
    """
    left = size
    while left:
        chunk = stream.read(min(CHUNK, left))
        if not chunk:
            raise InputError(f"{where} ends {left} bytes too early", "copy it again")
        left -= len(chunk)
        yield chunk


def _not_a_file(path: Path) -> InputError:
    return InputError(f"{path} is no regular file", "give a file, not a folder, a pipe or a device")
