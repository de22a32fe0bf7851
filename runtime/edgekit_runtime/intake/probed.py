"""Bases that were run once, in a process whose crash harms nobody: noted, so that it isn't done again.

What is noted holds for the engine and the CPU that it was tried with.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import logging
import os
import platform
import sys
from collections.abc import Set
from pathlib import Path

from edgekit_runtime import machine
from edgekit_runtime.errors import InputError
from edgekit_runtime.files.atomic import write_whole
from edgekit_runtime.formats.base_files import BaseFiles
from edgekit_runtime.formats.manifest import F16, BaseEntry
from edgekit_runtime.intake.canary import ENGINE_PACKAGES, missing_engine, time_limit, try_adapters
from edgekit_runtime.intake.trial_turn import trial_turn

log = logging.getLogger(__name__)

FOLDER = "probed"  # in a store
FOLDER_MODE = 0o700
LARGE = 500_000_000  # bytes; it takes so long that somebody who waits should know


def user_folder() -> Path:
    """Where it is noted for bundles, which nothing is written into."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", str(Path.home())), "edgekit", "cache", FOLDER)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "edgekit" / FOLDER
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "edgekit-runtime", FOLDER)


class Probed:
    """Notes in a folder, one file for each base and KV cache."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def ensure(self, entry: BaseEntry, base: BaseFiles) -> None:
        """Run a base once, unless that was done before.

        Args:
            entry: what the manifest says of it; its files have these digests.
            base: its files.

        Raises:
            InputError: the engine can't run it.
        """
        if missing_engine(base) or self.knows(entry, base):
            return
        level = logging.INFO if base.size > LARGE else logging.DEBUG
        log.log(level, "trying the base once, as it is new here")
        with trial_turn(self._folder.parent, time_limit(base, [])):
            if not self.knows(entry, base):
                try_adapters(base, [])
                self.note(entry, base)

    def knows(self, entry: BaseEntry, base: BaseFiles) -> bool:
        """Whether this base was run with its engine and its KV cache on this CPU."""
        with contextlib.suppress(OSError):
            return self._file(entry, base).read_text(encoding="utf-8") == _circumstances(entry, base)
        return False

    def note(self, entry: BaseEntry, base: BaseFiles) -> None:
        """Note that it was; where that can't be written, it is done again the next time."""
        with contextlib.suppress(OSError, InputError):
            self._folder.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
            write_whole(self._file(entry, base), _circumstances(entry, base).encode())

    def keep(self, digests: Set[str]) -> None:
        """Forget all bases but these."""
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                if path.name.partition(".")[0] not in digests and not path.is_dir():
                    path.unlink(missing_ok=True)

    def _file(self, entry: BaseEntry, base: BaseFiles) -> Path:
        return self._folder / (entry.digest if base.kv_cache == F16 else f"{entry.digest}.{base.kv_cache}")


def _circumstances(entry: BaseEntry, base: BaseFiles) -> str:
    facts = machine.describe()
    where = [platform.machine(), facts["cpu"], facts["flags"]]
    package = ENGINE_PACKAGES[base.engine]
    return json.dumps([package, importlib.metadata.version(package), entry.projector_digest, *where])
