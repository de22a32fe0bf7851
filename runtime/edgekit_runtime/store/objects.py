"""Content-addressed files: each is named by its sha256 and never changes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from edgekit_runtime.errors import NoRoom
from edgekit_runtime.files.durable import place
from edgekit_runtime.formats.bundle import file_digest

FOLDER = "objects/sha256"
SCRATCH = "tmp"
MIB = 1024 * 1024
HEADROOM = 16 * MIB  # left free for generations and logs


class Objects:
    """The objects of a store; ``scratch`` is on the same disk, for what shall become one."""

    def __init__(self, root: Path) -> None:
        self.root, self._folder, self.scratch = root, root / FOLDER, root / SCRATCH

    def path(self, digest: str) -> Path:
        """Where an object is."""
        return self._folder / digest

    def all(self) -> Iterator[Path]:
        """Every object; what is no file is none."""
        for path in self._folder.iterdir():
            if path.is_file():
                yield path

    def is_sound(self, digest: str) -> bool:
        """Whether an object is there, and is what its name says."""
        path = self.path(digest)
        try:
            return path.is_file() and file_digest(path) == digest
        except OSError:  # a disk that fails
            return False

    def check_room(self, needed: int) -> None:
        """Refuse before anything is copied.

        Args:
            needed: bytes.

        Raises:
            NoRoom: there are fewer.
        """
        free = shutil.disk_usage(self._folder).free
        if needed + HEADROOM > free:
            raise NoRoom(
                f"the store has {free // MIB} MiB free, and this needs {-(-(needed + HEADROOM) // MIB)} MiB",
                "free some space, or run `edgekit-runtime adapters gc`",
            )

    def lend(self, digest: str, target: Path) -> None:
        """Let an object be found under another name too, in the temporary area."""
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(self.path(digest), target)
        except OSError:  # a file system without links
            target.symlink_to(self.path(digest))

    def add(self, source: Path, digest: str) -> None:
        """Make an object of a file in the temporary area, which was hashed and brought to the disk as it was written.

        One that is there already is replaced: it may be damaged.
        """
        target = self.path(digest)
        if target.exists() and target.samefile(source):
            return
        if target.is_dir():
            shutil.rmtree(target)
        source.chmod(0o444)
        place(source, target)
