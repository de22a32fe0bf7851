"""What the system refuses is no defect of ours: its numbers, in whatever words they come, and how to mend them."""

from __future__ import annotations

import errno
import re

from edgekit_runtime.errors import InputError

FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = ("this user may not do that", "run the command as the owner of the file, or change its permissions")
_SYSTEM = {
    **dict.fromkeys(FULL, ("the disk is full", "free some space and run the same command again")),
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EROFS: ("the disk is read-only", "mount it for writing, or choose another folder"),
    errno.EIO: ("the disk fails", "see what the system's log says of it, and replace it"),
}
# As shutil collects Python's, and as libraries in Rust (safetensors, tokenizers) say it.
_NUMBER = re.compile(r"\[Errno (\d+)\]|\(os error (\d+)\)|Os \{ code: (\d+)")


def errno_of(error: Exception) -> int | None:
    """The system's number behind an error, also where a library has made text of it."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = _NUMBER.search(str(error))
    return None if found is None else int(next(filter(None, found.groups())))


def explained(error: Exception) -> InputError | None:
    """The error as a user should read it; None when it may be a defect."""
    told = _SYSTEM.get(errno_of(error) or 0)
    if told is None:
        return None
    problem, hint = told
    file = getattr(error, "filename", None)
    return InputError(f"{problem} ({file})" if file else problem, hint)
