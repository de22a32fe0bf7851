"""Locks of open files: free when the file is closed, however its process ends."""

from __future__ import annotations

import sys
from typing import IO


def take(stream: IO[bytes]) -> bool:
    """Lock a file unless another process holds it; tells whether it is ours now.

    A file system that knows no locks gives each process its own.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # Windows says so when another has it; a file system without locks always
        return sys.platform != "win32"
    return True
