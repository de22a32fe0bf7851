"""What is published of a fleet: read before anything is changed, so that two operators can take turns."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable, Mapping
from typing import Any

from tuf.api.exceptions import LengthOrHashMismatchError, RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, T, Targets, Timestamp

from edgekit.fleet.folder import FleetFolder
from edgekit.fleet.metadata import Fleet
from edgekit_runtime.errors import InputError, one_line
from edgekit_runtime.files.regular import read_small
from edgekit_runtime.fleet.fetcher import MOST_BYTES
from edgekit_runtime.fleet.trusted import check_root
from edgekit_runtime.registry.connection import Connection
from edgekit_runtime.registry.small_file import read_file
from edgekit_runtime.registry.upload import put_file

log = logging.getLogger(__name__)

TIMESTAMP_FILE = "timestamp.json"
_OLDER = "if the registry came back from an old copy, publish what this folder has: `edgekit keys renew --restore`"
_ALTERED = "somebody may have altered it: look at the registry, and bring its files back from a copy"


class Published:
    """The files of a fleet in its registry, and their copies in the operator's folder.

    Attributes:
        is_empty: whether the registry has lost them, or has never had any.
    """

    def __init__(self, folder: FleetFolder, connection: Connection) -> None:
        self._folder, self._connection = folder, connection
        self.is_empty = False

    def newest(self, *, restore: bool = False) -> Fleet:
        """The newest that the fleet's keys have signed, expired or not; what is new of it is kept in the folder.

        Args:
            restore: where the registry has an older timestamp than the folder, the folder's counts.

        Raises:
            InputError: a file is damaged, not signed as the root says, or older than the folder's copy.
            TargetError: the registry can't be asked.
        """
        root = self._newest_root()
        content = read_file(self._connection, TIMESTAMP_FILE, MOST_BYTES)
        kept = self._folder.read(TIMESTAMP_FILE)
        self.is_empty = content is None
        if content is None and kept is not None:
            log.warning("%s has lost the fleet: `edgekit keys renew` brings it back", self._connection.reference)
            content = kept
        if content is None:
            raise InputError(f"neither {self._connection.reference} nor the folder has {TIMESTAMP_FILE}", _ALTERED)
        timestamp = self._signed(Metadata[Timestamp], content, root, TIMESTAMP_FILE)
        if kept is not None:
            before = self._parsed(Metadata[Timestamp], kept, TIMESTAMP_FILE).signed.version
            if timestamp.signed.version < before and restore:
                content, self.is_empty = kept, True  # all is written again
                timestamp = self._signed(Metadata[Timestamp], content, root, TIMESTAMP_FILE)
            elif timestamp.signed.version < before:
                problem = f"{self._connection.reference} has {TIMESTAMP_FILE} {timestamp.signed.version}, older than "
                raise InputError(f"{problem}{before}, which was published before", _OLDER)
        snapshot = self._named(Metadata[Snapshot], Snapshot.type, timestamp.signed.snapshot_meta, root)
        targets = self._named(Metadata[Targets], Targets.type, snapshot.signed.meta["targets.json"], root)
        self._folder.keep(TIMESTAMP_FILE, content)
        fleet = Fleet(root, targets, snapshot, timestamp)
        for role, end in fleet.expiry().items():
            if end <= datetime.datetime.now(datetime.UTC):
                log.warning("%s.json expired on %s: devices refuse it until `edgekit keys renew`", role, end.date())
        return fleet

    def content(self, name: str, fleet: Fleet) -> bytes | None:
        """The content of a target; None where the fleet has none of this name.

        Raises:
            InputError: it is missing or altered.
            TargetError: the registry can't be asked.
        """
        info = fleet.targets.signed.targets.get(name)
        if info is None:
            return None
        stored = target_file(name, info.hashes["sha256"])
        return self._held(stored, info.verify_length_and_hashes)

    def publish(self, before: Fleet | None, after: Fleet, files: Mapping[str, bytes]) -> None:
        """Write what has changed, targets first: each file comes after all that it names.

        Args:
            before: what is published; None for nothing.
            after: what shall be.
            files: contents of targets, by the names that devices ask for.

        Raises:
            TargetError: the registry can't be reached, or refuses; devices go on with what was there.
        """
        there = {} if before is None or self.is_empty else before.files()
        for name, content in {**files, **after.files()}.items():
            if there.get(name) != content:
                put_file(self._connection, name, content)
                log.info("published: %s", name)
        for name, content in {**files, **after.files()}.items():
            self._folder.keep(name, content)

    def restore(self, fleet: Fleet) -> None:
        """Write what a registry lacks that has lost everything: all roots, and all contents of targets."""
        names = [f"{version}.root.json" for version in range(1, fleet.root.signed.version)]
        names += [target_file(name, info.hashes["sha256"]) for name, info in fleet.targets.signed.targets.items()]
        for name in names:
            content = self._folder.read(name)
            if content is None:
                raise InputError(f"the registry has lost {name}, and so has the folder", _ALTERED)
            put_file(self._connection, name, content)

    def _newest_root(self) -> Metadata[Root]:
        path = self._folder.newest_root
        root = check_root(read_small(path, MOST_BYTES), str(path))
        while True:
            name = f"{root.signed.version + 1}.root.json"
            content = read_file(self._connection, name, MOST_BYTES)
            if content is None:
                return root
            new = check_root(content, f"{self._connection.reference}:{name}")
            self._check(new, root, Root.type, name)
            if new.signed.version != root.signed.version + 1:
                raise InputError(f"{name} of {self._connection.reference} has another version", _ALTERED)
            self._folder.keep(name, content)
            root = new

    def _named(self, kind: type[Metadata[T]], role: str, meta: MetaFile, root: Metadata[Root]) -> Metadata[T]:
        name = f"{meta.version}.{role}.json"
        content = self._held(name, meta.verify_length_and_hashes)
        return self._signed(kind, content, root, name)

    def _held(self, name: str, verify: Callable[[bytes], None]) -> bytes:
        """A file that has a digest: the registry's, or the folder's copy of it."""
        content = read_file(self._connection, name, MOST_BYTES)
        if content is None:
            content = self._folder.read(name)
        if content is None:
            raise InputError(f"{self._connection.reference} has no {name}", _ALTERED)
        try:
            verify(content)
        except LengthOrHashMismatchError:
            raise InputError(
                f"{name} of {self._connection.reference} is another file than was published", _ALTERED
            ) from None
        self._folder.keep(name, content)
        return content

    def _signed(self, kind: type[Metadata[T]], content: bytes, root: Metadata[Root], name: str) -> Metadata[T]:
        metadata = self._parsed(kind, content, name)
        self._check(metadata, root, metadata.signed.type, name)
        return metadata

    def _check(self, metadata: Metadata[Any], root: Metadata[Root], role: str, name: str) -> None:
        try:
            root.signed.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
        except (RepositoryError, ValueError) as error:
            raise InputError(
                f"{name} of {self._connection.reference} is refused ({one_line(str(error))})", _ALTERED
            ) from None

    def _parsed(self, kind: type[Metadata[T]], content: bytes, name: str) -> Metadata[T]:
        try:
            return kind.from_bytes(content)
        except RepositoryError:
            raise InputError(f"{name} of {self._connection.reference} is no metadata", _ALTERED) from None


def target_file(name: str, digest: str) -> str:
    """What a target is called where snapshots are consistent."""
    return f"{digest}.{name}"
