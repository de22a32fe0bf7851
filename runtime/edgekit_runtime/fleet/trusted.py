"""What a device trusts of its fleet: the root that it was given, and the newest metadata that it has seen (TUF).

``STORE/fleet/`` holds both.  ``root.json`` stays as it was given; ``metadata/`` and ``targets/`` have what was checked
since, and can be downloaded again.  The client works on a copy, whose files then take their places one by one: what it
has checked counts, also where a later file is refused.
"""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path

from tuf.api.exceptions import DownloadError, RepositoryError
from tuf.api.metadata import Metadata, Root, Timestamp
from tuf.api.serialization import DeserializationError
from tuf.ngclient import Updater

from edgekit_runtime.errors import InputError
from edgekit_runtime.files.durable import replace_file
from edgekit_runtime.files.private_folder import private_folder
from edgekit_runtime.files.regular import read_small
from edgekit_runtime.fleet.fetcher import MOST_BYTES, RegistryFetcher
from edgekit_runtime.fleet.refusal import ISSUED, check_clock, refusal
from edgekit_runtime.registry.connection import Connection

FOLDER = "fleet"
ROOT_FILE = "root.json"
_METADATA, _TARGETS, _HISTORY = "metadata", "targets", "root_history"
_URL = "fleet:///"  # in the place of an address: the fetcher looks at the last part alone
_ROLES = ("timestamp", "snapshot", "targets")


class TrustedFleet:
    """The fleet that a store belongs to."""

    def __init__(self, store: Path, scratch: Path) -> None:
        """Of the store in ``store``, whose temporary area is ``scratch``."""
        self._folder, self._scratch = store / FOLDER, scratch
        self._root = self._folder / ROOT_FILE

    def begin(self, root: Path | None) -> None:
        """Trust a root, once.

        Args:
            root: root.json of the fleet; None where the store has one already.

        Raises:
            InputError: it is none, the store has none, or trusts another one.
        """
        if root is None:
            if not self._root.exists():
                raise InputError(f"{self._folder.parent} trusts no fleet yet", "give its root: --root root.json")
            return
        try:
            content = read_small(root, MOST_BYTES)
        except OSError as error:
            raise InputError(f"{root} can't be read ({error.strerror})", "give root.json of the fleet") from None
        check_root(content, str(root))
        known = [self._root, *(self._folder / _METADATA / _HISTORY).glob("*.json")]
        if not self._root.exists():
            self._folder.mkdir(exist_ok=True)
            replace_file(self._root, content, scratch=self._scratch)
        elif content not in (each.read_bytes() for each in known):
            hint = f"leave --root out; to join another fleet, remove {self._folder} first"
            raise InputError(f"{self._folder.parent} trusts another root than {root}", hint)

    def read(self, connection: Connection, name: str) -> bytes | None:
        """A file that the fleet's newest metadata vouches for.

        Args:
            connection: to the fleet's repository.
            name: of the target.

        Returns:
            None where the fleet has no such file.

        Raises:
            InputError: metadata or file are expired, older than what was seen, not signed as the root says, or damaged;
                or the clock is wrong.
            TargetError: the registry can't be asked.
        """
        now = datetime.datetime.now(datetime.UTC)
        bootstrap = self._bootstrap()
        fetcher, fleet = RegistryFetcher(connection), str(connection.reference)
        with private_folder(self._scratch) as private:
            work = private.path
            self._lay_out(work)
            try:
                updater = Updater(
                    str(work / _METADATA),
                    _URL,
                    target_dir=str(work / _TARGETS),
                    target_base_url=_URL,
                    fetcher=fetcher,
                    bootstrap=bootstrap,
                )
                updater.refresh()
                info = updater.get_targetinfo(name)
                found = info and (updater.find_cached_target(info) or updater.download_target(info))
            except (RepositoryError, DownloadError) as error:
                raise refusal(error, fleet, fetcher.asked, self._known(work, fetcher), now) from error
            finally:
                self._keep(work)
            timestamp = Metadata[Timestamp].from_file(str(work / _METADATA / "timestamp.json"))
            check_clock(timestamp.signed.unrecognized_fields.get(ISSUED), fleet, now)
            return Path(found).read_bytes() if found else None

    def _bootstrap(self) -> bytes:
        try:
            content = read_small(self._root, MOST_BYTES)
            check_root(content, str(self._root))
        except (OSError, InputError) as error:
            hint = f"remove it and give the fleet's root again: --root {ROOT_FILE}"
            raise InputError(f"{self._root} can't be used ({error})", hint) from None
        return content

    def _lay_out(self, work: Path) -> None:
        for folder in (_METADATA, _TARGETS):
            (work / folder).mkdir()
            if (self._folder / folder).is_dir():
                shutil.copytree(self._folder / folder, work / folder, dirs_exist_ok=True)

    def _keep(self, work: Path) -> None:
        """Take over what is new of the copy, roots first."""
        metadata = work / _METADATA
        roots = sorted((metadata / _HISTORY).glob("*.root.json"), key=lambda path: int(path.name.partition(".")[0]))
        for path in [*roots, *(metadata / f"{role}.json" for role in _ROLES), *(work / _TARGETS).iterdir()]:
            if path.exists():
                target, content = self._folder / path.relative_to(work), path.read_bytes()
                if not target.exists() or target.read_bytes() != content:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    replace_file(target, content, scratch=self._scratch)

    @staticmethod
    def _known(work: Path, fetcher: RegistryFetcher) -> list[bytes]:
        roots = (work / _METADATA / _HISTORY).glob("*.root.json")
        files = [*roots, *(work / _METADATA / f"{role}.json" for role in _ROLES)]
        return [*(path.read_bytes() for path in files if path.exists()), *fetcher.fetched.values()]


def check_root(content: bytes, where: str) -> Metadata[Root]:
    """Read a root, which has to be signed as it says itself.

    Raises:
        InputError: it is none, or is not.
    """
    try:
        metadata = Metadata[Root].from_bytes(content)
        if not isinstance(metadata.signed, Root):
            raise DeserializationError("another role")
        metadata.signed.verify_delegate(Root.type, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError) as error:
        raise InputError(f"{where} is no root of a fleet ({error})", "give root.json of the fleet") from None
    return metadata
