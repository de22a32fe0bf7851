"""Installing, activating, rolling back and removing, each as one switch of generation."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from edgekit_runtime.errors import InputError
from edgekit_runtime.files.private_folder import PrivateFolder, pinned, private_folder
from edgekit_runtime.formats.adapter import ADAPTER_SUFFIXES, adapter_entry
from edgekit_runtime.formats.bundle import Bundle
from edgekit_runtime.formats.gguf import read_gguf
from edgekit_runtime.formats.manifest import Manifest, needed_files
from edgekit_runtime.intake.adapters import take_in, take_in_bundle
from edgekit_runtime.intake.canary import try_adapters
from edgekit_runtime.intake.probed import FOLDER as PROBED
from edgekit_runtime.intake.probed import Probed
from edgekit_runtime.store import generations, objects
from edgekit_runtime.store.admission import Admission, Tell, Trial
from edgekit_runtime.store.generations import Generation, Generations
from edgekit_runtime.store.incoming import Incoming, check_signature, take_bundle, take_file
from edgekit_runtime.store.layout import drop_layouts, laid_out, lay_out
from edgekit_runtime.store.objects import Objects
from edgekit_runtime.store.place import is_store
from edgekit_runtime.store.pulled import take_pulled
from edgekit_runtime.store.refusals import Refusals
from edgekit_runtime.store.sweep import kept_generations, sweep
from edgekit_runtime.store.transitions import (
    find_installed,
    version_key,
    with_active,
    with_adapter,
    with_bundle,
    without,
)
from edgekit_runtime.store.trusted import Trusted

if TYPE_CHECKING:  # its HTTP client is loaded where something is downloaded
    from edgekit_runtime.registry.source import RegistryBundle

log = logging.getLogger(__name__)

MEND_ROT = "install it again: `edgekit-runtime adapters install BUNDLE`, and look at the disk"
_INSTALL_FIRST = "install a bundle first: `edgekit-runtime adapters install BUNDLE`"


@dataclass(frozen=True)
class Installed:
    """One adapter version in a store; ``refused`` is why it may not answer on the active base, where it may not."""

    name: str
    version: str
    active: bool
    rank: int
    family: str
    digest: str
    verified: bool
    refused: str | None = None
    virtual_tokens: int | None = None  # of a prompt adapter


class Store:
    """A device store.  Writers take turns; readers never wait, and see one whole generation.

    Attributes:
        root: its folder.
        refusals: adapters that may not answer although they are installed.
    """

    def __init__(self, root: Path | str, *, create: bool = False, trial: Trial = try_adapters) -> None:
        """Open a store.

        Args:
            root: its folder.
            create: make it where there is none.
            trial: runs a base and adapters once, before they become active.

        Raises:
            InputError: there is none, and ``create`` doesn't ask for one; or the folder can't be written.
        """
        self.root = Path(root).expanduser().absolute()
        self._trial = trial
        if create:
            try:
                for folder in (objects.FOLDER, generations.FOLDER, objects.SCRATCH):
                    (self.root / folder).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"no store can be made in {self.root} ({error.strerror})", "choose another") from None
        elif not is_store(self.root):
            raise InputError(f"there is no store in {self.root}", _INSTALL_FIRST)
        self._objects, self._generations = Objects(self.root), Generations(self.root)
        self._trusted = Trusted(self.root)
        self.refusals = Refusals(self.root, self._objects.scratch)

    def current(self) -> Generation | None:
        """What is active; None in an empty store.

        Raises:
            InputError: the current generation is damaged.
        """
        return self._generations.current()

    @property
    def number(self) -> int | None:
        """The current generation's number, without reading it."""
        return self._generations.current_number()

    def bundle(self, number: int | None = None) -> Bundle:
        """A generation as the runtime opens it; what is active when ``number`` is None.

        Raises:
            InputError: nothing is installed, or a file is missing or cut short.
        """
        return self._laid_out(
            (self._current_or_refuse() if number is None else self._generations.read(number)).manifest
        )

    def _base(self) -> Bundle:
        """What is active without its adapters: one of them may be what is mended."""
        manifest = self._current_or_refuse().manifest
        needed = needed_files(manifest.base, ())
        return self._laid_out(replace(manifest, files=tuple(each for each in manifest.files if each.path in needed)))

    def _laid_out(self, manifest: Manifest) -> Bundle:
        for entry in manifest.files:
            path = self.root / entry.path
            if not path.is_file() or path.stat().st_size != entry.size:
                raise InputError(f"{path} is missing or cut short", "install the bundle or adapter again")
        return Bundle(self.root, laid_out(self.root, manifest))

    def rotten(self) -> list[str]:
        """Read every file that the current generation needs, and name those that are not what they were.

        Raises:
            InputError: nothing is installed.
        """
        generation = self._current_or_refuse()
        base = generation.manifest.base
        owners = {file.sha256: f"the base {base.family} {base.quantization}" for file in generation.manifest.files}
        owners |= {entry.digest: f"{entry.name} {entry.version}" for entry in generation.installed}
        return [
            f"{owner} is damaged ({self._objects.path(digest)})"
            for digest, owner in owners.items()
            if not self._objects.is_sound(digest)
        ]

    def verify(self) -> None:
        """Refuse to go on with damaged files.

        Raises:
            InputError: one isn't what it was when it was installed.
        """
        if rotten := self.rotten():
            raise InputError("; ".join(rotten), MEND_ROT)

    def installed(self) -> list[Installed]:
        """Every adapter version, by name, the newest last."""
        generation = self.current()
        if generation is None:
            return []
        active = {entry.digest for entry in generation.manifest.adapters}
        base, engine = generation.manifest.base.digest, generation.manifest.engine
        return [
            Installed(
                entry.name,
                entry.version,
                entry.digest in active,
                entry.rank,
                entry.family,
                entry.digest,
                (entry.quality or {}).get("verified", True) is not False,
                self.refusals.why(entry.digest, base, engine),
                entry.virtual_tokens,
            )
            for entry in sorted(generation.installed, key=lambda entry: (entry.name, version_key(entry.version)))
        ]

    def install(
        self,
        path: Path | str,
        *,
        allow_downgrade: bool = False,
        tried: Collection[str] = (),
        tell: Tell = log.warning,
    ) -> list[str]:
        """Install a bundle (folder or .tar) or an adapter file, and make what it holds active.

        A bundle whose base is the installed one adds its adapters; another base replaces it, and only adapters of its
        family stay.  What becomes active is run once, in a process of its own.

        Args:
            path: the bundle or file.
            allow_downgrade: take an older version too.
            tried: digests of adapters that have been run on the active base already.
            tell: is called with what a user should know of what was installed.

        Returns:
            ``NAME VERSION`` of what is active now because of this.

        Raises:
            InputError: not sound, not signed by a trusted key, of another base, older than what is active, there is no
                room, or the engine can't run it; nothing changes.
        """
        path = Path(path)
        if path.is_file() and path.suffix in ADAPTER_SUFFIXES:
            with self.take(path) as incoming:
                return self._install_adapter(incoming, allow_downgrade, tried, tell)
        with take_bundle(path, self._objects, self._trusted.keys()) as bundle:
            return self._install_bundle(bundle, allow_downgrade, tell)

    def install_pulled(
        self,
        source: RegistryBundle,
        *,
        allow_downgrade: bool = False,
        alone: bool = False,
        tell: Tell = log.warning,
    ) -> list[str]:
        """Install a bundle of a registry as :meth:`install` does one of the disk; what the store has is not downloaded.

        Args:
            source: the bundle.
            allow_downgrade: take an older version too.
            alone: nothing but this bundle is installed then, whatever was before, newer or of another name.
            tell: as for :meth:`install`.

        Raises:
            InputError: as for :meth:`install`.
            TargetError: the registry can't be reached.
        """
        with take_pulled(source, self._objects, self._trusted.keys()) as bundle:
            return self._install_bundle(bundle, allow_downgrade, tell, alone=alone)

    def install_copy(
        self, copy: Incoming, *, tried_on: str, allow_downgrade: bool = False, tell: Tell = log.warning
    ) -> list[str]:
        """Install an adapter that lies in the store's temporary area, whose signature and engine trial are done.

        Args:
            copy: what :meth:`take` gave.
            tried_on: sha256 of the base that it was run on; it is run again when another one is active now.
            allow_downgrade: take an older version too.
            tell: as for :meth:`install`.

        Raises:
            InputError: as for :meth:`install`.
        """
        return self._install_adapter(copy, allow_downgrade, {copy.digest}, tell, tried_on=tried_on)

    def private_folder(self) -> AbstractContextManager[PrivateFolder]:
        """A folder in the store for one process alone, on the same disk; it is gone afterwards."""
        return private_folder(self._objects.scratch)

    def check_signature(self, copy: Incoming, source: Path) -> None:
        """Check the signature of a private copy, where the store trusts keys; it lies beside ``source``.

        Raises:
            InputError: not signed by a trusted key.
        """
        keys = self._trusted.keys()
        if keys is not None:
            check_signature(copy, source, keys)

    def take(self, path: Path) -> AbstractContextManager[Incoming]:
        """A private copy of an adapter file, whose signature is checked where the store trusts keys.

        Whoever wants to check, try or load a file of somebody else's does it with this copy: what is at ``path`` may be
        another file a moment later.

        Raises:
            InputError: no regular file, no room for it, or not signed by a trusted key.
        """
        return take_file(path, self._objects, self._trusted.keys())

    def trust(self, key: Path) -> None:
        """Trust what the holder of a public key signs, and from now on nothing unsigned.

        Raises:
            InputError: no Ed25519 public key.
        """
        with self._writing():
            self._trusted.add(key)

    def activate(self, name: str, version: str | None = None, *, tell: Tell = log.warning) -> None:
        """Make a version of an adapter the one that answers; the newest when ``version`` is None.

        Raises:
            InputError: it is not installed, or the engine can't run it; nothing changes.
        """
        with self._writing():
            old = self._current_or_refuse()
            entry = find_installed(old, name, version)
            new = with_active(old, entry, self._sizes)
            self._admission(tell).check(old, new, self._base().base_files, {entry.digest})
            self._generations.commit(new)

    def remove(self, name: str, version: str | None = None) -> None:
        """Take an adapter out, or one version of it; a rollback brings it back.

        Raises:
            InputError: it is not installed.
        """
        self._switch(lambda old: without(old, name, version, self._sizes))

    def rollback(self) -> int:
        """Go back to the generation that the current one was made from, and return its number.

        Raises:
            InputError: there is none, or its files are gone.
        """
        with self._writing():
            earlier = self._generations.earlier()
            missing = [digest for digest in earlier.digests() if not self._objects.path(digest).exists()]
            if missing:
                raise InputError(f"generation {earlier.number} needs files that are gone", "install what is needed")
            self._generations.switch(earlier.number)
            return earlier.number

    def gc(self) -> tuple[int, int]:
        """Drop old and damaged generations, and every file that none of the kept ones needs.

        Returns:
            Files removed, and bytes freed.

        Raises:
            InputError: the current generation is damaged; nothing is removed.
        """
        with self._writing():
            needed, bases = kept_generations(self._generations, pinned(self._objects.scratch))
            drop_layouts(self.root, bases)
            Probed(self.root / PROBED).keep(bases)
            self.refusals.keep(needed)
            return sweep(self._objects, needed)

    def _install_bundle(self, bundle: Bundle, allow_downgrade: bool, tell: Tell, *, alone: bool = False) -> list[str]:
        manifest = bundle.manifest
        take_in_bundle(bundle, read_gguf(bundle.base_files.header))
        needed = needed_files(manifest.base, manifest.adapters)
        files = [file for file in manifest.files if file.path in needed]
        placed = replace(
            manifest,
            base=replace(
                manifest.base,
                file=self._name(manifest.base.digest),
                projector=manifest.base.projector and self._name(str(manifest.base.projector_digest)),
                parts=tuple(replace(part, file=self._name(part.digest)) for part in manifest.base.parts),
            ),
            adapters=tuple(replace(entry, file=self._name(entry.digest)) for entry in manifest.adapters),
        )
        sizes = {self._name(file.sha256): file.size for file in files}
        coming = {entry.digest: bundle.root / entry.file for entry in manifest.adapters}
        with self._writing():
            old = self._sound()
            kept = None if alone else old
            new = with_bundle(kept, placed, self._sizes | sizes, allow_downgrade=allow_downgrade)
            self._admission(tell).check(old, new, bundle.base_files, coming.keys(), coming)
            for file in files:
                self._objects.add(bundle.root / file.path, file.sha256)
            lay_out(self.root, placed)
            self._generations.commit(new)
        return [f"{entry.name} {entry.version}" for entry in manifest.adapters] or [f"base {manifest.version}"]

    def _install_adapter(
        self,
        incoming: Incoming,
        allow_downgrade: bool,
        tried: Collection[str],
        tell: Tell,
        tried_on: str | None = None,
    ) -> list[str]:
        family = self._current_or_refuse().manifest.base.family
        facts = take_in(incoming.path, read_gguf(self._base().base_files.header), family=family)
        digest = incoming.digest
        entry = adapter_entry(facts, family=family, file=self._name(digest), digest=digest)
        with self._writing():
            old = self._current_or_refuse()
            sizes = self._sizes | {entry.file: incoming.size}
            new = with_adapter(old, entry, sizes, allow_downgrade=allow_downgrade)
            if tried_on not in (None, old.manifest.base.digest):
                tried = ()
            admission = self._admission(tell, tried)
            admission.check(old, new, self._base().base_files, {digest}, {digest: incoming.path})
            self._objects.add(incoming.path, digest)
            self._generations.commit(new)
        return [f"{entry.name} {entry.version}"]

    def _admission(self, tell: Tell, tried: Collection[str] = ()) -> Admission:
        return Admission(self._objects, self._trial, Probed(self.root / PROBED), self.refusals, tell, tried)

    def _sound(self) -> Generation | None:
        """What is active, or nothing when that is damaged: a bundle has all that a store needs."""
        try:
            return self.current()
        except InputError as error:
            log.warning("%s; starting anew with the bundle", error)
            return None

    @property
    def _sizes(self) -> dict[str, int]:
        return {self._name(path.name): path.stat().st_size for path in self._objects.all()}

    def _switch(self, change: Callable[[Generation], Generation]) -> None:
        with self._writing():
            self._generations.commit(change(self._current_or_refuse()))

    def _current_or_refuse(self) -> Generation:
        generation = self.current()
        if generation is None:
            raise InputError(f"the store {self.root} is empty", _INSTALL_FIRST)
        return generation

    def _name(self, digest: str) -> str:
        return self._objects.path(digest).relative_to(self.root).as_posix()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """One writer at a time; a lock of a process that has died is free again."""
        with (self.root / "lock").open("a+b") as stream:
            _lock(stream)
            yield


def _lock(stream: IO[bytes]) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(stream.fileno(), msvcrt.LK_LOCK, 1)
    else:
        import fcntl

        fcntl.flock(stream, fcntl.LOCK_EX)
