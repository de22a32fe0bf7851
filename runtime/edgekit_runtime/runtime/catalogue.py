"""Which adapters answer: those of the bundle, less what was removed or left out, and those added at run time.

A stack answers where all its parts do, as it was proven with them.  An adapter that is added under its name takes its
place.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from edgekit_runtime.engines import Stack
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.bundle import Bundle
from edgekit_runtime.formats.manifest import AUTO, BASE, LARGEST_SCALE, AdapterEntry, BaseEntry, Manifest, StackEntry
from edgekit_runtime.formats.prompt_adapter import PROMPT_KIND


class Catalogue:
    """Adapters by name.

    Attributes:
        manifest: of the bundle, with the adapters and stacks that answer now.  A stack that is the default stays so
            where it lacks an adapter: who asks for none is told, as the base alone is no answer in its place.
    """

    def __init__(self, bundle: Bundle, without: Collection[str]) -> None:
        """Begin with a bundle's adapters, but for those whose digests are in ``without``."""
        self.manifest: Manifest
        self._added: dict[str, AdapterEntry] = {}
        self._removed: set[str] = set()
        self.follow(bundle, without)

    def follow(self, bundle: Bundle, without: Collection[str]) -> None:
        """Take another state of the same base; what was added at run time stays."""
        self._bundle, self._without = bundle, frozenset(without)
        self._removed.clear()
        self._settle()

    def add(self, entry: AdapterEntry) -> None:
        """Answer with this adapter, in the place of one of the same name."""
        self._without -= {entry.digest}
        self._added[entry.name] = entry
        self._removed.discard(entry.name)
        self._settle()

    def remove(self, name: str) -> AdapterEntry:
        """Forget an adapter; raises InputError for an unknown name."""
        entry = self.manifest.adapter(name)
        if self._added.pop(name, None) is None:
            self._removed.add(name)
        self._settle()
        return entry

    def _settle(self) -> None:
        own = {entry.name: entry for entry in self._bundle.manifest.adapters if entry.name not in self._removed}
        adapters = {name: each for name, each in (own | self._added).items() if each.digest not in self._without}
        default, stacks = self._bundle.manifest.default_adapter, self._bundle.manifest.stacks
        self.manifest = replace(
            self._bundle.manifest,
            adapters=tuple(adapters.values()),
            stacks=tuple(
                stack for stack in stacks if stack.name not in adapters and not stack.lacking(adapters.values())
            ),
            default_adapter=default if default in {*adapters, *(stack.name for stack in stacks)} else None,
        )

    @property
    def incomplete(self) -> list[str]:
        """Stacks of the bundle that lack an adapter: whoever asks for one is told which."""
        there = {entry.name for entry in self.manifest.subjects}
        return [stack.name for stack in self._bundle.manifest.stacks if stack.name not in there]

    def path(self, name: str) -> Path:
        """An adapter's file; raises InputError for an unknown name."""
        return self._bundle.root / self.manifest.adapter(name).file

    def name_of(self, adapter: str | None) -> str | None:
        """Which adapter a request means, None for the bare base; raises InputError for an unknown name."""
        name = self.manifest.default_adapter if adapter is None else adapter
        if self.means_auto(name):
            raise InputError("auto chooses an adapter for answers alone", "name an adapter, or base")
        return None if name is None or name == BASE else self._subject(name).name

    def means_auto(self, adapter: str | None) -> bool:
        """Whether a request leaves the choice to the device: an adapter of this name, from before, takes precedence."""
        return adapter == AUTO and all(entry.name != AUTO for entry in self.manifest.subjects)

    def entry_of(self, adapter: str | None) -> AdapterEntry | StackEntry | BaseEntry:
        """What the manifest says of it; raises InputError for an unknown name."""
        name = self.name_of(adapter)
        return self._subject(name) if name else self.manifest.base

    def _subject(self, name: str) -> AdapterEntry | StackEntry:
        """An adapter or a stack; raises InputError for an unknown name, and for a stack that lacks an adapter."""
        stack = next((each for each in self._bundle.manifest.stacks if each.name == name), None)
        if stack is None or any(entry.name == name for entry in self.manifest.subjects):
            return self.manifest.subject(name)
        known = {entry.name for entry in self.manifest.adapters}
        gone = ", ".join(
            f"{each}, which is another one now" if each in known else f"{each}, which doesn't answer"
            for each in stack.lacking(self.manifest.adapters)
        )
        raise InputError(
            f"the stack {name} needs {gone}",
            "activate the version that came with the stack, or name the adapters with scales (lora)",
        )

    def _wanted(self, name: str | None, lora: Mapping[str, float] | None) -> Mapping[str, float]:
        """Adapters with their scales."""
        if lora is not None:
            return lora
        return {} if name is None else self._subject(name).scales

    def stack(self, name: str | None, lora: Mapping[str, float] | None = None) -> tuple[Stack, dict[str, Path]]:
        """The adapters to apply, by digest, and their files.

        Args:
            name: of one adapter, at a scale of 1, or of a stack; None for the bare base.
            lora: several with their scales instead.

        Raises:
            InputError: an unknown name, a scale that is too large, or a prompt adapter that is scaled or not alone.
        """
        wanted = self._wanted(name, lora)
        for each, scale in wanted.items():
            if any(stack.name == each for stack in self.manifest.stacks):
                raise InputError(f"{each} is a stack, and lora takes adapters", f"ask for adapter {each}")
            if not 0 <= scale <= LARGEST_SCALE:
                raise InputError(f"adapter {each} can't have a scale of {scale:g}", f"use 0 to {LARGEST_SCALE:g}")
        self._check_prompt_adapters({each: scale for each, scale in wanted.items() if scale})
        scales: dict[str, float] = {}
        files: dict[str, Path] = {}
        for each, scale in wanted.items():
            entry = self.manifest.adapter(each)
            if scale:
                scales[entry.digest] = scales.get(entry.digest, 0.0) + float(scale)
                files[entry.digest] = self.path(each)
        return tuple(sorted(scales.items())), files

    def virtual_tokens(self, name: str | None, lora: Mapping[str, float] | None = None) -> int:
        """How many virtual tokens the adapters of :meth:`stack` put before a prompt."""
        wanted = self._wanted(name, lora)
        return sum(self.manifest.adapter(each).virtual_tokens or 0 for each, scale in wanted.items() if scale)

    def _check_prompt_adapters(self, wanted: Mapping[str, float]) -> None:
        """Virtual tokens were trained on the base alone: under a LoRA, or scaled, they are others than those."""
        for each, scale in wanted.items():
            if self.manifest.adapter(each).kind != PROMPT_KIND:
                continue
            if len(wanted) > 1:
                raise InputError(
                    f"{each} is a prompt adapter: its virtual tokens were trained on the base alone, and mean nothing"
                    " beside another adapter",
                    "ask for it alone",
                )
            if scale != 1:
                raise InputError(
                    f"{each} is a prompt adapter: virtual tokens can't have a scale of {scale:g}", "use 1, or leave it"
                )
