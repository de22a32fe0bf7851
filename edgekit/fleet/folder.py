"""The folder of a fleet: ``fleet.json``, ``keys/``, and in ``metadata/`` what was published last."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from edgekit_runtime.errors import InputError
from edgekit_runtime.files.durable import replace_file
from edgekit_runtime.files.regular import read_small
from edgekit_runtime.files.strict_json import json_object
from edgekit_runtime.fleet.fetcher import MOST_BYTES
from edgekit_runtime.registry.reference import Reference

FLEET_SCHEMA = "edgekit.fleet/1"
SETTINGS_FILE, KEYS_FOLDER, METADATA_FOLDER = "fleet.json", "keys", "metadata"
_MOST_SETTINGS = 64 * 1024
_MOST_DAYS = 10_000


@dataclass(frozen=True)
class Lifetimes:
    """Days after which what a role has signed expires."""

    root: int = 365
    targets: int = 90
    snapshot: int = 14
    timestamp: int = 7


@dataclass(frozen=True)
class FleetFolder:
    """One that exists, or is being made: ``registry`` is the fleet's repository."""

    path: Path
    registry: Reference
    lifetimes: Lifetimes = field(default_factory=Lifetimes)

    @classmethod
    def open(cls, path: Path) -> FleetFolder:
        """Open a folder that :meth:`save` has written.

        Raises:
            InputError: it is none, or its settings are damaged.
        """
        file = path / SETTINGS_FILE
        try:
            document = json_object(read_small(file, _MOST_SETTINGS))
        except OSError as error:
            hint = "make one: `edgekit keys init FOLDER --registry oci://HOST/REPOSITORY`"
            raise InputError(f"{path} is no folder of a fleet ({file}: {error.strerror})", hint) from None
        days = (document or {}).get("days")
        names = list(asdict(Lifetimes()))
        if document is None or document.get("schema") != FLEET_SCHEMA or not isinstance(days, dict):
            raise InputError(f"{file} is damaged", f"it needs schema {FLEET_SCHEMA}, registry and days")
        if set(days) != set(names) or not all(type(each) is int and 0 < each <= _MOST_DAYS for each in days.values()):
            raise InputError(f"{file}: days are not possible", f"give whole days for {', '.join(names)}")
        return cls(path, Reference.parse_repository(str(document.get("registry"))), Lifetimes(**days))

    def save(self) -> None:
        """Write the settings."""
        document = {"schema": FLEET_SCHEMA, "registry": str(self.registry), "days": asdict(self.lifetimes)}
        self._write(self.path / SETTINGS_FILE, json.dumps(document, indent=1).encode() + b"\n")

    @property
    def keys(self) -> Path:
        """Where private keys are."""
        return self.path / KEYS_FOLDER

    @property
    def newest_root(self) -> Path:
        """What devices are given.

        Raises:
            InputError: it is missing.
        """
        versions = [int(path.name.partition(".")[0]) for path in self._metadata.glob("[1-9]*.root.json")]
        if not versions:
            raise InputError(f"{self._metadata} has no root.json", "bring the folder back from a copy")
        return self._metadata / f"{max(versions)}.root.json"

    def read(self, name: str) -> bytes | None:
        """A file of what was published last; None where it was never there.

        Raises:
            InputError: it can't be read.
        """
        try:
            return read_small(self._metadata / name, MOST_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            problem = f"{self._metadata / name} can't be read ({error.strerror})"
            raise InputError(problem, "check its permissions") from None

    def keep(self, name: str, content: bytes) -> None:
        """Write a file of what is published now."""
        if self.read(name) != content:
            self._write(self._metadata / name, content)

    @property
    def _metadata(self) -> Path:
        return self.path / METADATA_FOLDER

    def _write(self, path: Path, content: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, content, scratch=path.parent)
        except OSError as error:
            problem = f"{path} can't be written ({os.strerror(error.errno or 0)})"
            raise InputError(problem, "free some space, or check permissions") from None
