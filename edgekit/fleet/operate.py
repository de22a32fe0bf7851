"""What an operator does with a fleet's keys: begin, rotate, renew.  Each reads what is published, and publishes."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgekit.fleet.folder import SETTINGS_FILE, FleetFolder, Lifetimes
from edgekit.fleet.keys import Keys
from edgekit.fleet.metadata import Fleet, Maker
from edgekit.fleet.published import TIMESTAMP_FILE, Published
from edgekit_runtime.errors import InputError, TargetError, UsageError
from edgekit_runtime.files.atomic import publish
from edgekit_runtime.fleet.fetcher import MOST_BYTES
from edgekit_runtime.registry.connection import PUSH, WAITS, Connection
from edgekit_runtime.registry.reference import Reference
from edgekit_runtime.registry.small_file import read_file


@dataclass(frozen=True)
class Done:
    """What was published.

    Attributes:
        root: the root file that devices are given.
        expires: by role.
        lacking: by role, names of keys that are missing for what should be renewed soon.
    """

    root: Path
    expires: dict[str, datetime.datetime]
    lacking: dict[str, list[str]] = field(default_factory=dict)


class Session:
    """One command's work on a fleet: its folder, the keys at hand, the registry."""

    def __init__(
        self, path: Path, keys: Sequence[Path] = (), *, ca: Path | None = None, waits: Sequence[float] = WAITS
    ) -> None:
        """Open a fleet's folder.

        Args:
            path: of the folder.
            keys: folders of key files besides its own.
            ca: certificates (PEM) that the registry's may be of, besides the system's.
            waits: seconds before each next try where a connection breaks.

        Raises:
            InputError: no folder of a fleet, or a key file is none.
        """
        self.folder, self.ca, self.waits = FleetFolder.open(path), ca, waits
        self.folder.keys.mkdir(mode=0o700, exist_ok=True)  # it may lie elsewhere, on a stick
        self.maker = Maker(Keys([self.folder.keys, *keys]), self.folder.lifetimes)
        connection = Connection(self.folder.registry, ca=ca, actions=PUSH, waits=waits)
        self.published = Published(self.folder, connection)

    def done(self, fleet: Fleet, lacking: dict[str, list[str]] | None = None) -> Done:
        """What a command tells."""
        return Done(self.folder.newest_root, fleet.expiry(), lacking or {})


def begin(
    path: Path,
    registry: Reference,
    *,
    root_keys: int = 3,
    threshold: int = 2,
    lifetimes: Lifetimes | None = None,
    ca: Path | None = None,
    waits: Sequence[float] = WAITS,
) -> Done:
    """Make a fleet: its folder with new keys, and its first metadata in the registry.

    Raises:
        UsageError: the threshold can't be met.
        InputError: the folder has other content, or the repository holds a fleet already.
        TargetError: the registry can't be reached; the folder is there where it broke while publishing.
    """
    if threshold > root_keys:
        raise UsageError(f"{threshold} of {root_keys} root keys can't sign", "give a --threshold that can be met")
    if (path / SETTINGS_FILE).exists():
        raise InputError(f"{path} is the folder of a fleet already", "name another folder; keep its keys")
    connection = Connection(registry, ca=ca, actions=PUSH, waits=waits)
    if read_file(connection, TIMESTAMP_FILE, MOST_BYTES) is not None:
        raise InputError(f"{registry} holds a fleet already", "name another repository")
    path = path.absolute()
    with publish(path, is_ours=lambda _: False) as temporary:
        made = FleetFolder(temporary, registry, lifetimes or Lifetimes())
        made.keys.mkdir(mode=0o700)
        fleet = Maker(Keys([made.keys]), made.lifetimes).first(root_keys, threshold)
        for name, content in fleet.files().items():
            made.keep(name, content)
        made.save()
    folder = FleetFolder.open(path)
    try:
        Published(folder, connection).publish(None, fleet, {})
    except TargetError as error:
        raise TargetError(error.problem, f"{path} is made; publish it: `edgekit keys renew {path}`") from None
    return Done(folder.newest_root, fleet.expiry())


def rotate(session: Session, role: str, only: str | None = None) -> Done:
    """Give a role new keys, in the place of all, or of the one that is called ``only``.

    Raises:
        UsageError: there is no such key.
        InputError: keys are missing, or what is published is not sound.
        TargetError: the registry can't be reached.
    """
    before = session.published.newest()
    after = session.maker.rotated(before, role, only)
    session.published.publish(before, after, {})
    return session.done(after)


def renew(session: Session, *, restore: bool = False) -> Done:
    """Sign the timestamp anew, and what else has little time left; a registry that has lost the fleet gets it back.

    Args:
        session: of the fleet.
        restore: write what the folder has, too, where the registry has older files.

    Raises:
        InputError: the keys of timestamp or snapshot are missing, or what is published is not sound.
        TargetError: the registry can't be reached.
    """
    before = session.published.newest(restore=restore)
    after, lacking = session.maker.renewed(before)
    if session.published.is_empty:
        session.published.restore(before)
    session.published.publish(before, after, {})
    return session.done(after, lacking)
