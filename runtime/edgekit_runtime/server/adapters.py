"""Adapters that come while the service runs: over HTTP, from a watched folder, from changes of the store.

Each is read by our own bounded reader, then tried in a process of its own, and only then given to the worker.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from pathlib import Path
from typing import Any

from edgekit_runtime.adapter import ADAPTER_SUFFIXES
from edgekit_runtime.base_files import BaseFiles
from edgekit_runtime.bundle import Bundle, file_digest
from edgekit_runtime.canary import try_adapters_async
from edgekit_runtime.errors import EdgekitError, InputError
from edgekit_runtime.gguf import read_gguf
from edgekit_runtime.intake import take_in
from edgekit_runtime.server.supervisor import Supervisor, Unavailable
from edgekit_runtime.store import Store
from edgekit_runtime.trust import SIGNATURE_SUFFIX

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
SETTLE_SECONDS = 2.0  # a file that can't be read may still be on its way
REJECTED = "rejected"
KEPT_REJECTIONS = 20  # shown
KEPT_DIGESTS = 1000  # of each kind, that aren't tried again


class Adapters:
    """What may be loaded, and what was refused."""

    def __init__(self, supervisor: Supervisor, bundle: Bundle, *, store: Store | None, watch: Path | None) -> None:
        """Serve ``bundle``, which is what is active in ``store`` where there is one.

        Raises:
            InputError: the folder to watch can't be made.
        """
        self._supervisor, self._store, self._watch = supervisor, store, watch
        self._base, self._family = bundle.base_files, bundle.manifest.base.family
        self._base_digest = bundle.manifest.base.digest
        self._bad: dict[str, str] = {}  # by digest, why
        self._good: dict[str, bool] = {}  # by digest, whether it changes anything on this base
        self._number = None if store is None else store.number
        self._seen: dict[Path, tuple[int, int]] = {}
        self.rejected: deque[dict[str, Any]] = deque(maxlen=KEPT_REJECTIONS)
        if watch is not None:
            try:
                (watch / REJECTED).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"{watch} can't be watched ({error})", "give a folder that can be written") from None

    async def load(self, name: str | None, path: Path) -> dict[str, Any]:
        """Check, try and load a file under ``name``, or under its own.

        Raises:
            InputError: it is refused; nothing has changed.
        """
        if self._store is not None:
            await asyncio.to_thread(self._store.check_trust, path)
        await self._try(path)
        entry = await self._supervisor.load(name, str(path.absolute()))
        log.info("adapter %s %s loaded from %s", entry["name"], entry["version"], path)
        return entry

    async def run(self) -> None:
        """Follow the folder and the store, for ever."""
        while True:
            try:
                if self._watch is not None:
                    there = sorted(each for each in self._watch.iterdir() if each.suffix in ADAPTER_SUFFIXES)
                    self._seen = {path: state for path, state in self._seen.items() if path in there}
                    for path in there:
                        await self._take(path)
                if self._store is not None:
                    await self._follow(self._store)
            except Unavailable:
                pass  # again in the next round
            except (EdgekitError, OSError) as error:
                log.error("%s", error)
            await asyncio.sleep(POLL_SECONDS)

    async def _try(self, path: Path) -> str:
        """Take a file in and run it once; its digest.  What was tried on this base is not tried again."""
        digest = await asyncio.to_thread(_examine, path, self._base, self._family)
        if digest in self._bad:
            raise InputError(self._bad[digest])
        if digest in self._good:
            return digest
        try:
            (alive,) = await try_adapters_async(self._base, [path])
        except InputError as error:
            _remember(self._bad, digest, str(error))
            raise
        if not alive:
            log.warning("%s changes nothing on %s: train it, or export it again", path, self._family)
        _remember(self._good, digest, alive)
        return digest

    async def _take(self, path: Path) -> None:
        """A file in the watched folder: live, or moved aside with the reason."""
        try:
            found = path.stat()
        except FileNotFoundError:
            return
        state = (found.st_size, found.st_mtime_ns)
        if self._seen.get(path) == state:
            return
        try:
            if self._store is None:
                await self.load(None, path)
            else:
                await asyncio.to_thread(self._store.check_trust, path)
                digest = await self._try(path)
                said = await asyncio.to_thread(self._store.install, path, tried={digest})
                await self._follow(self._store)
                log.info("installed from the watched folder: %s", ", ".join(said))
                for each in (path, _signature(path)):
                    each.unlink(missing_ok=True)
                return
        except (InputError, OSError) as error:
            if time.time() - found.st_mtime > SETTLE_SECONDS:
                self._reject(path, str(error))
            return
        self._seen[path] = state

    def _reject(self, path: Path, why: str) -> None:
        log.error("%s is rejected: %s", path, why)
        self.rejected.append({"time": time.time(), "file": path.name, "why": why})
        folder = path.parent / REJECTED
        for each in (path, _signature(path)):
            if each.exists():
                each.replace(folder / each.name)
        reason = folder / f"{path.name}.txt"
        scratch = reason.with_suffix(".part")
        scratch.write_text(why + "\n", encoding="utf-8")
        scratch.replace(reason)  # whoever sees it sees all of it

    async def _follow(self, store: Store) -> None:
        """Answer with what is active in the store now; what can't be tried without harm changes nothing."""
        number = store.number
        if number == self._number:
            return
        self._number = number
        bundle = await asyncio.to_thread(store.bundle)
        if bundle.manifest.base.digest == self._base_digest:
            known = {model["digest"] for model in self._supervisor.models}
            for entry in bundle.manifest.adapters:
                if entry.digest not in known:
                    await self._try(bundle.adapter_path(entry.name))
        else:
            self._good.clear()
            self._bad.clear()
        self._base, self._family = bundle.base_files, bundle.manifest.base.family
        self._base_digest = bundle.manifest.base.digest
        await self._supervisor.refresh()
        log.info("generation %s of the store is active", number)


def _examine(path: Path, base: BaseFiles, family: str) -> str:
    """Check all of a file that can be known without the engine; its digest."""
    take_in(path, read_gguf(base.header), family=family)
    return file_digest(path)


def _remember(digests: dict[str, Any], digest: str, what: Any) -> None:
    digests[digest] = what
    if len(digests) > KEPT_DIGESTS:
        del digests[next(iter(digests))]  # the oldest: it would be tried once more


def _signature(path: Path) -> Path:
    return path.with_name(path.name + SIGNATURE_SUFFIX)
