"""What a fleet's four roles have signed, and the next versions of it (TUF 1.0, consistent snapshots)."""

from __future__ import annotations

import copy
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tuf.api.metadata import Metadata, MetaFile, Role, Root, Snapshot, T, TargetFile, Targets, Timestamp

from edgekit.fleet.folder import Lifetimes
from edgekit.fleet.keys import Keys, key_name, name_of
from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.fleet.refusal import ISSUED, check_clock

ROLES = (Root.type, Targets.type, Snapshot.type, Timestamp.type)
_ALGORITHMS = ["sha256"]
_SNAPSHOT_AT = 1 / 2  # of its time left: renewed
_OFFLINE_AT = 1 / 3


@dataclass(frozen=True)
class Fleet:
    """The newest of each role."""

    root: Metadata[Root]
    targets: Metadata[Targets]
    snapshot: Metadata[Snapshot]
    timestamp: Metadata[Timestamp]

    def files(self) -> dict[str, bytes]:
        """By the names that devices ask for, in the order of publishing: what names others comes after them."""
        return {
            f"{self.targets.signed.version}.targets.json": self.targets.to_bytes(),
            f"{self.snapshot.signed.version}.snapshot.json": self.snapshot.to_bytes(),
            "timestamp.json": self.timestamp.to_bytes(),
            f"{self.root.signed.version}.root.json": self.root.to_bytes(),
        }

    def expiry(self) -> dict[str, datetime.datetime]:
        """When each role's file expires."""
        return {
            each.signed.type: each.signed.expires for each in (self.root, self.targets, self.snapshot, self.timestamp)
        }


class Maker:
    """Makes what follows, with the keys that are at hand."""

    def __init__(self, keys: Keys, lifetimes: Lifetimes) -> None:
        self._keys, self._lifetimes = keys, lifetimes
        self._now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)

    def first(self, root_keys: int, threshold: int) -> Fleet:
        """A fleet with new keys: those of the root, and one each for targets, snapshot and timestamp."""
        root = Root(expires=self._end(Root.type), roles={role: Role([], 1) for role in ROLES})
        for role in ROLES:
            for number in range(1, (root_keys if role == Root.type else 1) + 1):
                root.add_key(self._keys.make(name_of(role, number)), role)
        root.roles[Root.type].threshold = threshold
        signed_root, targets = Metadata(root), Metadata(Targets(expires=self._end(Targets.type)))
        self._keys.sign(signed_root, [root], Root.type)
        self._keys.sign(targets, [root], Targets.type)
        snapshot = Metadata(Snapshot(expires=self._end(Snapshot.type), meta={"targets.json": _named(targets)}))
        self._keys.sign(snapshot, [root], Snapshot.type)
        timestamp = Metadata(Timestamp(expires=self._end(Timestamp.type), snapshot_meta=_named(snapshot)))
        timestamp.signed.unrecognized_fields[ISSUED] = self._now.isoformat()
        self._keys.sign(timestamp, [root], Timestamp.type)
        return Fleet(signed_root, targets, snapshot, timestamp)

    def renewed(self, fleet: Fleet) -> tuple[Fleet, dict[str, list[str]]]:
        """The timestamp anew, and what else has little time left, where its keys are here.

        Returns:
            The fleet, and by role the keys that are missing for what should have been renewed too.

        Raises:
            InputError: the keys of timestamp or snapshot are missing.
        """
        lacking: dict[str, list[str]] = {}
        root, new = fleet.root.signed, fleet
        offline: list[tuple[str, Metadata[Any]]] = [(Root.type, fleet.root), (Targets.type, fleet.targets)]
        for role, metadata in offline:
            if self._is_late(metadata, _OFFLINE_AT):
                if missing := self._keys.lacking(root, role):
                    lacking[role] = missing
                elif role == Root.type:
                    new = replace(new, root=self._next_root(fleet, copy.deepcopy(root)))
                else:
                    new = replace(new, targets=self._next(fleet.targets, [root]))
        if new.targets is not fleet.targets or self._is_late(fleet.snapshot, _SNAPSHOT_AT):
            new = replace(new, snapshot=self._next_snapshot(new, [root]))
        return replace(new, timestamp=self._next_timestamp(new, [root])), lacking

    def check_signers(self, fleet: Fleet) -> None:
        """Refuse before work is done that could not be signed in the end.

        Raises:
            InputError: keys of targets, snapshot or timestamp are missing.
        """
        for role in ROLES[1:]:
            if missing := self._keys.lacking(fleet.root.signed, role):
                raise InputError(f"keys of {role} are missing: {', '.join(missing)}", _BRING)

    def with_targets(self, fleet: Fleet, files: Mapping[str, bytes]) -> Fleet:
        """The fleet with other contents of some targets.

        Raises:
            InputError: keys of targets, snapshot or timestamp are missing.
        """
        root = fleet.root.signed
        targets = copy.deepcopy(fleet.targets)
        for name, content in files.items():
            targets.signed.targets[name] = TargetFile.from_data(name, content, _ALGORITHMS)
        new = replace(fleet, targets=self._next(targets, [root]))
        new = replace(new, snapshot=self._next_snapshot(new, [root]))
        return replace(new, timestamp=self._next_timestamp(new, [root]))

    def rotated(self, fleet: Fleet, role: str, only: str | None = None) -> Fleet:
        """The fleet with new keys in the place of a role's.

        What the role has signed is signed anew by the new keys, and by the old ones that are here: devices take it
        before and after they have the new root.

        Args:
            fleet: as it is.
            role: one of :data:`ROLES`.
            only: the name of the one key that is replaced; None for all of the role.

        Raises:
            UsageError: the role has no such key.
            InputError: too few of the root's keys are here, or keys of what has to be signed anew are missing.
        """
        old = fleet.root.signed
        root = copy.deepcopy(old)
        gone = [keyid for keyid in old.roles[role].keyids if only in (None, key_name(old.keys[keyid]))]
        if not gone:
            names = ", ".join(key_name(old.keys[keyid]) for keyid in old.roles[role].keyids)
            raise UsageError(f"{role} has no key {only}", f"its keys: {names}")
        self._check_signers(old, role)
        for keyid in gone:
            root.revoke_key(keyid, role)
            root.add_key(self._keys.make(self._keys.free_name(role)), role)
        new = replace(fleet, root=self._next_root(fleet, root))
        if role == Root.type:
            return new
        if role == Targets.type:
            new = replace(new, targets=self._next(fleet.targets, [root], old))
        if role in (Targets.type, Snapshot.type):
            new = replace(new, snapshot=self._next_snapshot(new, [root], old))
        return replace(new, timestamp=self._next_timestamp(new, [root], old))

    def _check_signers(self, old: Root, role: str) -> None:
        """Refuse before a key is made that nobody will use."""
        after = {Targets.type: (Snapshot.type, Timestamp.type), Snapshot.type: (Timestamp.type,)}.get(role, ())
        for needed in (Root.type, *after):
            if missing := self._keys.lacking(old, needed):
                raise InputError(f"a new key of {role} needs keys of {needed}, missing: {', '.join(missing)}", _BRING)

    def _next_root(self, fleet: Fleet, root: Root) -> Metadata[Root]:
        root.version, root.expires = fleet.root.signed.version + 1, self._end(Root.type)
        metadata = Metadata(root)
        self._keys.sign(metadata, [fleet.root.signed, root], Root.type)
        return metadata

    def _next(self, metadata: Metadata[T], roots: Sequence[Root], old: Root | None = None) -> Metadata[T]:
        new = copy.deepcopy(metadata)
        new.signed.version += 1
        new.signed.expires = self._end(new.signed.type)
        self._keys.sign(new, roots, new.signed.type)
        if old is not None:
            self._keys.sign_too(new, old, new.signed.type)
        return new

    def _next_snapshot(self, fleet: Fleet, roots: Sequence[Root], old: Root | None = None) -> Metadata[Snapshot]:
        snapshot = copy.deepcopy(fleet.snapshot)
        if fleet.targets.signed.version != snapshot.signed.meta["targets.json"].version:
            snapshot.signed.meta["targets.json"] = _named(fleet.targets)
        return self._next(snapshot, roots, old)

    def _next_timestamp(self, fleet: Fleet, roots: Sequence[Root], old: Root | None = None) -> Metadata[Timestamp]:
        timestamp = copy.deepcopy(fleet.timestamp)
        check_clock(timestamp.signed.unrecognized_fields.get(ISSUED), "the fleet", self._now)
        if fleet.snapshot.signed.version != timestamp.signed.snapshot_meta.version:
            timestamp.signed.snapshot_meta = _named(fleet.snapshot)
        timestamp.signed.unrecognized_fields[ISSUED] = self._now.isoformat()
        return self._next(timestamp, roots, old)

    def _end(self, role: str) -> datetime.datetime:
        return self._now + datetime.timedelta(days=getattr(self._lifetimes, role))

    def _is_late(self, metadata: Metadata[Any], share: float) -> bool:
        whole = datetime.timedelta(days=getattr(self._lifetimes, metadata.signed.type))
        left: datetime.timedelta = metadata.signed.expires - self._now
        return left < whole * share


_BRING = "bring their files, and name their folder: --keys DIR"


def _named(metadata: Metadata[Any]) -> MetaFile:
    return MetaFile.from_data(metadata.signed.version, metadata.to_bytes(), _ALGORITHMS)
