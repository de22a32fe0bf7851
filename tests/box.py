"""A device of a fleet, whose engine and health are what a test says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from edgekit_runtime.errors import InputError
from edgekit_runtime.fleet.agent import Agent, Membership, Round
from edgekit_runtime.fleet.reporter import Place
from edgekit_runtime.formats.base_files import BaseFiles
from edgekit_runtime.formats.manifest import Manifest
from edgekit_runtime.registry.reference import Reference
from edgekit_runtime.store import Store
from tests.fleet import WAITS, Operator


class Box:
    """A device: its store, whose engine says what the test wants, and its agent."""

    def __init__(
        self, folder: Path, operator: Operator, device: str | None = None, reports: Reference | None = None
    ) -> None:
        self.operator, self.trials, self.refuses = operator, 0, ""
        self.ill: Callable[[Manifest], str | None] = lambda _: None
        self.store = Store(folder, create=True, trial=self._trial)
        place = reports and Place(reports, waits=WAITS)
        self.agent = self._agent(device, place)

    def _agent(self, device: str | None, reports: Place | None) -> Agent:
        member = Membership(self.operator.reference, "line-3", device, waits=WAITS, reports=reports)
        return Agent(self.store, member, [lambda manifest: self.ill(manifest)])

    def look(self) -> Round:
        with self.agent.at_work(self.operator.root):
            return self.agent.look()

    def active(self) -> list[str]:
        generation = self.store.current()
        assert generation is not None
        return [f"{entry.name} {entry.version}" for entry in generation.manifest.adapters]

    def version(self) -> str | None:
        generation = self.store.current()
        return generation and generation.manifest.version

    def _trial(self, base: BaseFiles, adapters: Sequence[Path]) -> list[bool]:
        self.trials += 1
        if self.refuses:
            raise InputError(self.refuses, "export it again")
        return [True] * len(adapters)
