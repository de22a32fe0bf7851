"""Files that are there as a whole or not at all, also after a power cut."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def durable_file(scratch: Path, fill: Callable[[BinaryIO], None]) -> Iterator[Path]:
    """Yield a new file in ``scratch`` whose content is on the disk; it is gone afterwards unless it was placed."""
    temporary = scratch / uuid.uuid4().hex
    try:
        with temporary.open("xb") as stream:
            fill(stream)
            stream.flush()
            os.fsync(stream.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def place(temporary: Path, target: Path) -> None:
    """Rename a durable file to ``target`` in one step, on the same file system, and bring the name to the disk."""
    temporary.replace(target)
    sync_folder(target.parent)


def replace_file(target: Path, content: bytes, *, scratch: Path) -> None:
    """Replace a small file as a whole."""

    def fill(stream: BinaryIO) -> None:
        stream.write(content)

    with durable_file(scratch, fill) as temporary:
        place(temporary, target)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk; a rename is not durable before that."""
    if os.name != "posix":
        return  # Windows has no such call, and orders renames itself
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
