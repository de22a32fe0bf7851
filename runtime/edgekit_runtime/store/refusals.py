"""Adapters that may not answer although they are installed: the engine could not run them, or died of them twice.

In a store each is a file ``refused/ADAPTER.BASE.json``, so that it holds for every service on it, and after a restart.
It holds for the engine that was at work: another version is given another chance.
"""

from __future__ import annotations

import importlib.metadata
import json
import time
from collections.abc import Iterable, Set
from pathlib import Path

from edgekit_runtime.errors import InputError
from edgekit_runtime.files.durable import replace_file, sync_folder
from edgekit_runtime.files.regular import read_small
from edgekit_runtime.intake.canary import ENGINE_PACKAGES

FOLDER = "refused"
REFUSAL_SCHEMA = "edgekit.refusal/1"
_MOST_BYTES = 64 * 1024
_LONGEST_REASON = 2000
_DAMAGED = "the note of why it was refused is damaged"


class Refusals:
    """What is refused in a store."""

    def __init__(self, root: Path, scratch: Path) -> None:
        """Read and write in the store ``root``, whose temporary area is ``scratch``."""
        self._folder, self._scratch = root / FOLDER, scratch
        self._here: dict[str, str] = {}  # what could not be written, by name of note

    def why(self, adapter: str, base: str, engine: str) -> str | None:
        """Why an adapter is refused on a base; None where it isn't.

        Args:
            adapter: sha256 of its file.
            base: sha256 of the base.
            engine: of the base.
        """
        name = _name(adapter, base)
        if name in self._here:
            return self._here[name]
        try:
            document = json.loads(read_small(self._folder / name, _MOST_BYTES))
            return str(document["why"]) if document["versions"] == versions(engine) else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError, InputError):
            return _DAMAGED

    def among(self, adapters: Iterable[str], base: str, engine: str) -> dict[str, str]:
        """Those of several that are refused, with the reasons."""
        reasons = ((adapter, self.why(adapter, base, engine)) for adapter in adapters)
        return {adapter: why for adapter, why in reasons if why is not None}

    def note(self, adapter: str, base: str, engine: str, why: str) -> None:
        """Refuse an adapter on a base from now on.

        It holds for this process in any case.

        Raises:
            OSError: it can't be written.
        """
        name, why = _name(adapter, base), why[:_LONGEST_REASON]
        self._here[name] = why
        document = {"schema": REFUSAL_SCHEMA, "versions": versions(engine), "why": why, "time": time.time()}
        self._folder.mkdir(exist_ok=True)
        replace_file(self._folder / name, json.dumps(document, indent=1).encode(), scratch=self._scratch)
        del self._here[name]  # the file may be removed by another process

    def clear(self, adapter: str, base: str) -> None:
        """Give an adapter another chance on a base."""
        name = _name(adapter, base)
        self._here.pop(name, None)
        if (self._folder / name).exists():
            (self._folder / name).unlink(missing_ok=True)
            sync_folder(self._folder)

    def stamp(self) -> frozenset[tuple[str, int, int]]:
        """Something that is another when anything was noted or cleared; a clock that went back may repeat a time."""
        try:
            files = ((path.name, path.lstat()) for path in self._folder.iterdir())
            return frozenset((name, status.st_ino, status.st_mtime_ns) for name, status in files)
        except OSError:  # none was ever noted, or one goes in this moment
            return frozenset()

    def keep(self, adapters: Set[str]) -> None:
        """Forget what is noted of others."""
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                if path.name.partition(".")[0] not in adapters and not path.is_dir():
                    path.unlink(missing_ok=True)


def versions(engine: str) -> dict[str, str]:
    """The engine's version here and ours."""
    found = {}
    for package in (ENGINE_PACKAGES.get(engine, engine), "edgekit-runtime"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "missing"
    return found


def _name(adapter: str, base: str) -> str:
    return f"{adapter}.{base}.json"
