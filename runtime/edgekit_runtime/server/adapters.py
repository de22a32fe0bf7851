"""Adapters that come while the service runs: over HTTP, from a watched folder, from changes of the store.

Each is copied first (:mod:`~edgekit_runtime.server.copies`).  The copy is read by our own bounded reader, then tried in
a process of its own, one at a time, and only then given to the worker.  What the engine refuses of a store's generation
is noted there, and left out by every worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from edgekit_runtime.errors import EdgekitError, InputError, TargetError, shown
from edgekit_runtime.files.private_folder import PrivateFolder
from edgekit_runtime.formats.base_files import BaseFiles
from edgekit_runtime.formats.bundle import Bundle
from edgekit_runtime.formats.gguf import GgufFile, read_gguf
from edgekit_runtime.formats.manifest import BASE, AdapterEntry, Manifest
from edgekit_runtime.intake.adapters import take_in
from edgekit_runtime.intake.canary import time_limit, try_adapters_async
from edgekit_runtime.intake.trial_turn import trial_turn_async
from edgekit_runtime.server.copies import Copied, Copies, NoAdapter
from edgekit_runtime.server.left_out import ASIDE
from edgekit_runtime.server.supervisor import Supervisor, Unavailable
from edgekit_runtime.server.threads import beside
from edgekit_runtime.server.watching import Watched, look_always
from edgekit_runtime.server.wire import Message
from edgekit_runtime.store import Store
from edgekit_runtime.store.transitions import check_newer

log = logging.getLogger(__name__)

KEPT_DIGESTS = 1000  # of each kind, that aren't tried again
MOST_LOADING = 16  # loads over HTTP that wait for their turn


class Busy(TargetError):
    """Too many adapters are being loaded; the same request may succeed later."""


class NotFound(InputError):
    """There is no adapter at this path that may be loaded."""


class Adapters:
    """What may be loaded, and what was refused."""

    def __init__(
        self,
        supervisor: Supervisor,
        bundle: Bundle,
        *,
        folder: PrivateFolder,
        store: Store | None = None,
        number: int | None = None,
        watch: Path | None = None,
        files: Path | None = None,
    ) -> None:
        """Serve ``bundle``.

        Args:
            supervisor: of the engine's process, which is not started yet.
            bundle: what answers.
            folder: for copies, of this process alone.
            store: where ``bundle`` is a generation of one.
            number: of that generation.
            watch: a folder whose adapter files are live at once.
            files: a folder that files which are loaded over HTTP have to be in; None for any.

        Raises:
            InputError: the folder to watch can't be made.
        """
        self._supervisor, self._store, self._folder = supervisor, store, folder
        self._copies = Copies(folder.path, store, files)
        self._watched = None if watch is None else Watched(watch, self._take_dropped)
        self._turn = asyncio.Lock()
        self._loading = 0
        self._limits: set[asyncio.Timeout] = set()
        self._bad: dict[tuple[str, str], str] = {}  # by base and digest, why
        self._good: dict[tuple[str, str], bool] = {}  # likewise, whether it changes anything
        self._loaded: dict[str, AdapterEntry] = {}
        self._unfit: object = None  # the state of the store whose base can't be run
        self._state = None if store is None else (number, store.refusals.stamp())
        self._accept(bundle, read_gguf(bundle.base_files.header))
        supervisor.on_set_aside = self._note_set_aside
        if store is not None and number is not None:
            self._pin(number)
            supervisor.leave_out(self._left_out(store, bundle))

    @property
    def rejected(self) -> deque[dict[str, Any]]:
        """Files of the watched folder that were refused lately."""
        return deque() if self._watched is None else self._watched.rejected

    async def load(
        self, name: str | None, path: Path, *, allow_downgrade: bool = False, in_place: bool = True
    ) -> Message:
        """Copy, check, try and load a file under ``name``, or under its own.

        Args:
            name: to load it under; its own when None.
            path: the file.
            allow_downgrade: it may be an older version than the one that answers.
            in_place: another may answer under this name; it does no longer then.

        Raises:
            NotFound: what can't be read, isn't in the allowed folder, or is no adapter: all get the same words, as who
                asks may not learn which files there are.
            InputError: it is refused; nothing has changed.
            Busy: others are waiting already.
            Unavailable: there is no engine, or the service is stopping.
        """
        if self._loading >= MOST_LOADING:
            raise Busy("too many adapters are being loaded", "send it again in a moment")
        self._loading += 1
        limit = asyncio.timeout(None)
        self._limits.add(limit)
        try:
            async with limit, self._one_at_a_time():
                if not in_place and any(each["name"] == name and ASIDE not in each for each in self._supervisor.models):
                    raise InputError(
                        f"The lora adapter {shown(str(name))} has already been loaded", "set load_inplace to true"
                    )
                copied = await beside(self._copies.take, path, name, self._header, self._family)
                return await self._go_live(copied, path, allow_downgrade)
        except TimeoutError:
            if not limit.expired():
                raise
            raise Unavailable("the service is stopping", "send it again in a moment") from None
        except NoAdapter as error:
            log.warning("an adapter was not loaded: %s", error)
            hint = "give the path of an adapter file that the service may read; its log says what is wrong"
            raise NotFound("there is no adapter that can be loaded", hint) from None
        finally:
            self._loading -= 1
            self._limits.discard(limit)

    def give_up_all(self) -> None:
        """Whoever still waits for a load is told that the service is stopping."""
        for limit in self._limits:
            limit.reschedule(asyncio.get_running_loop().time())

    async def unload(self, name: str) -> None:
        """Forget an adapter; InputError when there is none."""
        await self._supervisor.unload(name)
        self._loaded.pop(name, None)

    async def run(self) -> None:
        """Follow the folder and the store, for ever."""
        looks = [] if self._watched is None else [self._watched.look]
        if self._store is not None:
            looks.append(self._follow)
        await asyncio.gather(*map(look_always, looks))

    @asynccontextmanager
    async def _one_at_a_time(self) -> AsyncIterator[None]:
        """A canary holds the base a second time: there may be one of them."""
        async with self._turn:
            try:
                yield
            finally:
                self._copies.keep({entry.digest for entry in self._loaded.values()})

    async def _go_live(self, copied: Copied, source: Path, allow_downgrade: bool) -> Message:
        entry = copied.entry
        if entry.name == BASE:
            raise InputError(f"an adapter can't be called {BASE}", "give it another name")
        active = self._loaded.get(entry.name) or self._manifest_entry(entry.name)
        if active is not None:
            hint = "load it with allow_downgrade: true"
            check_newer(entry.name, entry.version, active.version, allow_downgrade, hint)
        await self._try(copied, source)
        await self._supervisor.load(_model(entry), str(copied.copy.path))
        self._loaded[entry.name] = entry
        log.info("adapter %s %s loaded from %s", entry.name, entry.version, source)
        return _model(entry)

    async def _try(self, copied: Copied, source: Path) -> None:
        """Run a copy once; what was tried on this base is not tried again, unless it was set aside since."""
        digest, base = copied.copy.digest, self._base
        key = (self._base_digest, digest)
        if key in self._good:
            return
        if key not in self._bad:
            try:
                (alive,) = await self._run_once(base, [copied.copy.path])
                _remember(self._good, key, alive)
                if not alive:
                    log.warning("%s changes nothing on %s: train it, or export it again", source, self._family)
                return
            except InputError as error:
                _remember(self._bad, key, str(error))
        raise InputError(self._bad[key].replace(str(copied.copy.path), str(source)))

    async def _run_once(self, base: BaseFiles, adapters: Sequence[Path]) -> list[bool]:
        """In the canary; where there is a store, when no other process on it does so."""
        if self._store is None:
            return await try_adapters_async(base, adapters)
        async with trial_turn_async(self._store.root, time_limit(base, adapters)):
            return await try_adapters_async(base, adapters)

    async def _take_dropped(self, path: Path) -> bool:
        """Make a file of the watched folder live; True when it is in the store now."""
        async with self._one_at_a_time():
            copied = await beside(self._copies.take, path, None, self._header, self._family, anywhere=True)
            if self._store is None:
                await self._go_live(copied, path, allow_downgrade=False)
                return False
            await self._try(copied, path)
            said = await beside(self._store.install_copy, copied.copy, tried_on=self._base_digest)
            log.info("installed from the watched folder: %s", ", ".join(said))
            with contextlib.suppress(EdgekitError):  # it is installed, and will be followed as any change is
                await self._catch_up(self._store)
            return True

    async def _follow(self) -> None:
        assert self._store is not None  # run() asks
        if self._state_of(self._store) != self._state:
            async with self._one_at_a_time():
                await self._catch_up(self._store)

    async def _catch_up(self, store: Store) -> None:
        """Answer with what is active in the store now, without what the engine refuses of it.

        Raises:
            InputError: the generation can't be read, or its base can't be run; nothing changes.
        """
        state = number, _ = self._state_of(store)
        if state == self._state or number is None:
            return
        bundle = await beside(store.bundle, number)
        manifest = bundle.manifest
        aside = {model["digest"] for model in self._left_out(store, bundle)}
        fresh = [entry for entry in manifest.adapters if entry.digest not in aside]
        if manifest.base.runs_as(self._bundle.manifest.base):
            fresh = [entry for entry in fresh if entry.digest not in self._answering]
        elif state != self._unfit:
            try:
                await self._run_once(bundle.base_files, [])
            except InputError:
                self._unfit = state
                raise
        else:
            return
        header = await beside(read_gguf, bundle.base_files.header)
        await self._try_stored(store, bundle, header, fresh)
        self._pin(number)
        left_out = self._left_out(store, bundle)
        await self._supervisor.refresh(number, left_out)
        self._accept(bundle, header, {model["digest"] for model in left_out})
        self._state = number, store.refusals.stamp()
        log.info("generation %s of the store is active", number)
        for model in left_out:
            log.error("%s %s does not answer: %s", model["name"], model["version"], model[ASIDE])

    async def _try_stored(self, store: Store, bundle: Bundle, header: GgufFile, fresh: list[AdapterEntry]) -> None:
        """Run adapters of a store that are new to this service; what the engine refuses is noted there."""
        base = bundle.manifest.base
        fresh = [entry for entry in fresh if (base.digest, entry.digest) not in self._good]
        files = {entry.digest: bundle.root / entry.file for entry in fresh}
        batches = [list(files)] if len(files) > 1 else [[digest] for digest in files]
        while batches:
            digests = batches.pop()
            paths = [files[digest] for digest in digests]
            try:
                await beside(_read_all, paths, header, base.family)
                for digest, alive in zip(digests, await self._run_once(bundle.base_files, paths), strict=True):
                    _remember(self._good, (base.digest, digest), alive)
            except InputError as error:
                if len(digests) > 1:
                    batches += [[digest] for digest in digests]
                else:
                    self._note(store, bundle.manifest, digests[0], str(error))

    def _left_out(self, store: Store, bundle: Bundle) -> list[Message]:
        manifest = bundle.manifest
        digests = [entry.digest for entry in manifest.adapters]
        refused = store.refusals.among(digests, manifest.base.digest, manifest.engine)
        entries = [entry for entry in manifest.adapters if entry.digest in refused]
        return [_model(entry) | {ASIDE: refused[entry.digest]} for entry in entries]

    def _accept(self, bundle: Bundle, header: GgufFile, aside: Iterable[str] = ()) -> None:
        self._bundle, self._base, self._family = bundle, bundle.base_files, bundle.manifest.base.family
        self._base_digest, self._header = bundle.manifest.base.digest, header
        self._answering = {entry.digest for entry in bundle.manifest.adapters} - set(aside)

    def _note_set_aside(self, digest: str, why: str) -> None:
        """The engine died of it: other services on the store, and later ones, leave it out too."""
        self._answering.discard(digest)
        self._good.pop((self._base_digest, digest), None)
        manifest = self._bundle.manifest
        if self._store is not None and any(entry.digest == digest for entry in manifest.adapters):
            self._note(self._store, manifest, digest, why)

    @staticmethod
    def _note(store: Store, manifest: Manifest, digest: str, why: str) -> None:
        try:
            store.refusals.note(digest, manifest.base.digest, manifest.engine, why)
        except OSError as error:
            log.error("it can't be noted in the store that %s is refused (%s)", digest, error)

    def _pin(self, number: int) -> None:
        try:
            self._folder.pin(number)
        except OSError as error:
            log.warning("gc may drop generation %s, which answers here (%s)", number, error)

    def _manifest_entry(self, name: str) -> AdapterEntry | None:
        return next((entry for entry in self._bundle.manifest.adapters if entry.name == name), None)

    @staticmethod
    def _state_of(store: Store) -> tuple[int | None, object]:
        return store.number, store.refusals.stamp()


def _read_all(paths: list[Path], base: GgufFile, family: str) -> None:
    for path in paths:
        take_in(path, base, family=family)


def _model(entry: AdapterEntry) -> Message:
    return {"name": entry.name, "version": entry.version, "digest": entry.digest}


def _remember(digests: dict[tuple[str, str], Any], key: tuple[str, str], what: Any) -> None:
    digests[key] = what
    if len(digests) > KEPT_DIGESTS:
        del digests[next(iter(digests))]  # the oldest: it would be tried once more
