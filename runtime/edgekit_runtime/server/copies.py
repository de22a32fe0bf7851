"""Private copies of the adapters that come while the service runs.

Whoever put a file somewhere can change it at any moment.  So it is opened once; what was copied then is hashed,
verified, read, tried and loaded, now and whenever the engine's process is started again.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgekit_runtime.errors import InputError, shown
from edgekit_runtime.files.private_folder import PrivateFolder
from edgekit_runtime.formats.adapter import adapter_entry
from edgekit_runtime.formats.gguf import ADAPTER_METADATA, GgufFile, read_gguf
from edgekit_runtime.formats.manifest import AdapterEntry
from edgekit_runtime.formats.onnx_adapter import IDENTIFIER
from edgekit_runtime.formats.prompt_adapter import GENERAL_TYPE, KEY_GENERAL_TYPE
from edgekit_runtime.intake.adapters import take_in
from edgekit_runtime.store import Store
from edgekit_runtime.store.incoming import Incoming, take_file
from edgekit_runtime.store.objects import FOLDER, SCRATCH, Objects

log = logging.getLogger(__name__)

KEPT_UNUSED = 4  # a request that waits may still need the file of an adapter that was unloaded


class NoAdapter(InputError):
    """What is at a path is no adapter, or can't be read: nothing of it is for somebody who may not read it."""


@dataclass(frozen=True)
class Copied:
    """A copy, and what is in it."""

    copy: Incoming
    entry: AdapterEntry


@contextmanager
def private_place(store: Store | None) -> Iterator[PrivateFolder]:
    """A folder of this process alone: on the store's disk, or of this user where no store can be written.

    Raises:
        InputError: it can't be made.
    """
    with ExitStack() as held:
        try:
            folder = None if store is None else held.enter_context(store.private_folder())
        except OSError as error:
            log.warning("nothing can be written in the store (%s): it is followed, and nothing is installed", error)
            folder = None
        yield held.enter_context(_temporary()) if folder is None else folder


class Copies:
    """The copies of one service."""

    def __init__(self, folder: Path, store: Store | None, allowed: Path | None) -> None:
        """Copy into ``folder``.

        Args:
            folder: of this process alone.
            store: whose trusted keys count, where there is one.
            allowed: the folder that files from elsewhere may be in; None for any.
        """
        self._folder, self._objects, self._store = folder, Objects(folder), store
        self._allowed = None if allowed is None else allowed.resolve()
        self._unused: list[str] = []  # the longest unused first

    def take(self, source: Path, name: str | None, base: GgufFile, family: str, *, anywhere: bool = False) -> Copied:
        """Copy a file, and check all of it that can be known without the engine.

        Args:
            source: a regular file; its signature lies beside it.
            name: what it shall be called; as it says itself when None.
            base: the header of the base that it shall run on.
            family: of that base.
            anywhere: it may be outside of the allowed folder.

        Raises:
            NoAdapter: it is outside of the allowed folder, or, where any is allowed, can't be read or doesn't say that
                it is an adapter.
            InputError: it is refused.
        """
        known = False
        try:
            if self._allowed is not None and not anywhere:
                source = self._within(source, self._allowed)
                known = True  # whatever is in that folder may be talked about
            for each in (FOLDER, SCRATCH):
                (self._folder / each).mkdir(parents=True, exist_ok=True)
            with take_file(source, self._objects, None) as incoming:
                known = known or _says_adapter(incoming.path)
                if self._store is not None:
                    self._store.check_signature(incoming, source)
                facts = take_in(incoming.path, base, family=family)
                place = self._objects.path(incoming.digest)
                entry = adapter_entry(facts, family=family, file=str(place), digest=incoming.digest, name=name)
                if not place.exists():
                    self._objects.add(incoming.path, incoming.digest)
                return Copied(Incoming(place, incoming.digest, incoming.size), entry)
        except InputError as error:
            if known:
                raise
            raise NoAdapter(error.problem, error.hint) from error
        except OSError as error:
            raise NoAdapter(f"{source} can't be copied ({error.strerror})", "look after the disk") from error

    def keep(self, used: Collection[str]) -> None:
        """Forget copies, but for those with these digests and a few that were used last."""
        if not (self._folder / FOLDER).is_dir():
            return
        there = {path.name for path in self._objects.all()} - set(used)
        self._unused = [digest for digest in self._unused if digest in there]
        self._unused += sorted(there - set(self._unused))
        while len(self._unused) > KEPT_UNUSED:
            self._objects.path(self._unused.pop(0)).unlink(missing_ok=True)

    @staticmethod
    def _within(source: Path, allowed: Path) -> Path:
        try:
            found = (allowed / source).resolve()
        except (OSError, ValueError, RuntimeError):  # a loop of links, a NUL
            raise InputError(f"{shown(str(source))} is no path", "name a file in the folder for adapters") from None
        if not found.is_relative_to(allowed):
            raise InputError(f"{source} is outside of {allowed}", "put the file there")
        return found


def _says_adapter(path: Path) -> bool:
    """Whether a file says of itself that it is an adapter, sound or not."""
    with path.open("rb") as stream:
        if stream.read(8)[4:] == IDENTIFIER:
            return True
    try:
        return read_gguf(path, budget=ADAPTER_METADATA).metadata.get(KEY_GENERAL_TYPE) in ("adapter", GENERAL_TYPE)
    except InputError:
        return False


@contextmanager
def _temporary() -> Iterator[PrivateFolder]:
    try:
        made = tempfile.TemporaryDirectory(prefix="edgekit-serve-", ignore_cleanup_errors=True)
    except OSError as error:
        raise InputError(f"no temporary folder can be made ({error})", "free some space, or set TMPDIR") from None
    with made as folder:
        yield PrivateFolder(Path(folder))
