"""A fleet for tests: its folder, a registry on loopback, and metadata as wrong as a test wants it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tuf.api.metadata import Metadata

from edgekit.fleet.folder import FleetFolder
from edgekit.fleet.keys import Keys
from edgekit.fleet.metadata import Fleet
from edgekit.fleet.operate import Session, begin
from edgekit.fleet.published import target_file
from edgekit_runtime.fleet.trusted import TrustedFleet
from edgekit_runtime.registry.connection import PUSH, Connection
from edgekit_runtime.registry.reference import Reference
from edgekit_runtime.registry.upload import put_file
from tests.registry import Registry
from tests.runtime.formats.test_manifest import document

WAITS = (0.01,) * 3


@dataclass
class Operator:
    """One fleet."""

    path: Path
    registry: Registry

    @property
    def reference(self) -> Reference:
        return Reference.parse_repository(f"oci://{self.registry.host}/team/fleet")

    @property
    def root(self) -> Path:
        return self.path / "metadata" / "1.root.json"

    def begin(self, **options: Any) -> None:
        begin(self.path, self.reference, waits=WAITS, **options)

    def session(self, *keys: Path) -> Session:
        return Session(self.path, keys, waits=WAITS)

    @cached_property
    def connection(self) -> Connection:
        return Connection(self.reference, actions=PUSH, waits=WAITS)

    def put(self, name: str, content: bytes) -> None:
        """Write a file into the registry, whatever it is."""
        put_file(self.connection, name, content)

    def set(self, files: dict[str, bytes]) -> Fleet:
        """Publish contents of targets."""
        session = self.session()
        before = session.published.newest()
        after = session.maker.with_targets(before, files)
        named = {target_file(name, hashlib.sha256(each).hexdigest()): each for name, each in files.items()}
        session.published.publish(before, after, named)
        return after

    def forged(self, metadata: Metadata[Any], change: Callable[[Any], object], *, signers: Path | None = None) -> bytes:
        """Metadata with a change, signed by the fleet's keys, or by those in another folder."""
        new = Metadata[Any].from_bytes(metadata.to_bytes())
        change(new.signed)
        root = Metadata[Any].from_file(str(FleetFolder.open(self.path).newest_root)).signed
        keys = Keys([signers or self.path / "keys"])
        new.signatures.clear()
        keys.sign_too(new, root, new.signed.type)
        return new.to_bytes()


@dataclass
class Device:
    """A store's view of a fleet."""

    store: Path

    def __post_init__(self) -> None:
        (self.store / "tmp").mkdir(parents=True, exist_ok=True)

    @property
    def trusted(self) -> TrustedFleet:
        return TrustedFleet(self.store, self.store / "tmp")

    def read(self, operator: Operator, name: str = "line-3.json") -> bytes | None:
        return self.trusted.read(operator.connection, name)

    def files(self) -> dict[str, bytes]:
        folder = self.store / "fleet"
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def content(number: int) -> bytes:
    return json.dumps({"number": number}).encode()


def model_less_bundle(root: Path, version: str) -> Path:
    """A bundle of the right form, not signed; its model files are not models."""
    whole = document() | {"version": version}
    for entry in whole["files"]:
        path, bytes_ = root / entry["path"], f"{entry['path']} {version}".encode() * 100
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes_)
        entry["size"], entry["sha256"] = len(bytes_), hashlib.sha256(bytes_).hexdigest()
    whole["base"]["digest"], whole["adapters"][0]["digest"] = (each["sha256"] for each in whole["files"][:2])
    (root / "manifest.json").write_text(json.dumps(whole))
    return root
