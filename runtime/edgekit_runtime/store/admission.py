"""What becomes active in a store is run once before, whichever way it came."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit_runtime.formats.base_files import BaseFiles
from edgekit_runtime.formats.gguf import read_gguf
from edgekit_runtime.formats.manifest import AdapterEntry, Manifest
from edgekit_runtime.intake.adapters import take_in
from edgekit_runtime.intake.canary import missing_engine, time_limit
from edgekit_runtime.intake.probed import Probed
from edgekit_runtime.intake.trial_turn import trial_turn
from edgekit_runtime.store.generations import Generation
from edgekit_runtime.store.objects import Objects
from edgekit_runtime.store.refusals import Refusals

Trial = Callable[[BaseFiles, Sequence[Path]], list[bool]]
Tell = Callable[[str], object]


@dataclass(frozen=True)
class Admission:
    """How a store decides.

    Attributes:
        objects: where installed adapters are.
        trial: runs a base and adapters; tells which of them change anything.
        probed: where it is noted that a base was run.
        refusals: what was refused before; what is asked for by name gets another chance.
        tell: is called with what isn't as it should be, but no reason to refuse.
        tried: digests of adapters that need no trial on the active base any more.
    """

    objects: Objects
    trial: Trial
    probed: Probed
    refusals: Refusals
    tell: Tell
    tried: Collection[str] = ()

    def check(
        self,
        old: Generation | None,
        new: Generation,
        base: BaseFiles,
        asked: Collection[str],
        coming: Mapping[str, Path] | None = None,
    ) -> None:
        """Run what has not been active together before: another base with all its adapters, or other adapters.

        Args:
            old: what is active.
            new: what shall be.
            base: the files of its base.
            asked: digests of adapters that somebody wants to be active: they are tried again where they were refused.
            coming: by digest, adapters that have been taken in and are not in the store yet.

        Raises:
            InputError: the engine can't run the base or an adapter, or an adapter of the store is not sound.
        """
        manifest, coming = new.manifest, coming or {}
        refused = self.refusals.among(asked, manifest.base.digest, manifest.engine)
        known: set[str] = set()
        same_base = old is not None and old.manifest.base.runs_as(manifest.base)
        if old is not None and same_base:
            known = {entry.digest for entry in old.manifest.adapters} - refused.keys()
        fresh = [entry for entry in manifest.adapters if entry.digest not in known | set(self.tried)]
        if not same_base or fresh:
            self._try(fresh, manifest, base, coming)
        if not missing_engine(base):
            for digest in refused:
                self.refusals.clear(digest, manifest.base.digest)

    def _try(
        self, fresh: Sequence[AdapterEntry], manifest: Manifest, base: BaseFiles, coming: Mapping[str, Path]
    ) -> None:
        header = read_gguf(base.header)
        for entry in fresh:
            if entry.digest not in coming:
                take_in(self.objects.path(entry.digest), header, family=manifest.base.family)
        if missing := missing_engine(base):
            self.tell(f"nothing was tried on the engine, as {missing} is not installed here")
            return
        files = [coming.get(entry.digest, self.objects.path(entry.digest)) for entry in fresh]
        with trial_turn(self.objects.root, time_limit(base, files)):
            living = self.trial(base, files)
        self.probed.note(manifest.base, base)
        for entry, alive in zip(fresh, living, strict=True):
            if not alive:
                name = f"{entry.name} {entry.version}"
                self.tell(f"{name} changes nothing on {manifest.base.family}: train it, or export it again")
