"""Content-addressed files: each is named by its sha256 and never changes."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from edgekit_runtime.errors import InputError
from edgekit_runtime.store.durable import durable_file, place

FOLDER = "objects/sha256"
MIB = 1024 * 1024
HEADROOM = 16 * MIB  # left free for generations and logs


class Objects:
    """The objects of a store."""

    def __init__(self, root: Path) -> None:
        self._folder, self._scratch = root / FOLDER, root / "tmp"

    def path(self, digest: str) -> Path:
        """Where an object is."""
        return self._folder / digest

    def all(self) -> Iterator[Path]:
        """Every object."""
        yield from self._folder.iterdir()

    def check_room(self, files: list[tuple[str, int]]) -> None:
        """Refuse before anything is copied.

        Args:
            files: sha256 and size in bytes of each file that shall be added.

        Raises:
            InputError: they don't fit.
        """
        needed = sum(size for digest, size in files if not self.path(digest).exists()) + HEADROOM
        free = shutil.disk_usage(self._folder).free
        if needed > free:
            raise InputError(
                f"the store has {free // MIB} MiB free, and this needs {-(-needed // MIB)} MiB",
                "free some space, or run `edgekit-runtime adapters gc`",
            )

    def add(self, source: Path, expected: str) -> None:
        """Copy a file into the store under its sha256; one that is there already is not copied again.

        Raises:
            InputError: its content isn't what ``expected`` says.
        """
        target = self.path(expected)
        if target.exists():
            return
        digest = hashlib.sha256()

        def copy(output: BinaryIO) -> None:
            with source.open("rb") as stream:
                while chunk := stream.read(MIB):
                    digest.update(chunk)
                    output.write(chunk)

        with durable_file(self._scratch, copy) as temporary:
            if digest.hexdigest() != expected:
                raise InputError(f"{source} is not the file that was announced: its sha256 differs", "copy it again")
            temporary.chmod(0o444)
            place(temporary, target)
