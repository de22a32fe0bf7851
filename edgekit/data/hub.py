"""Data sets of the Hugging Face hub: what a revision holds, and its files in the hub's own cache."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgekit_runtime.errors import InputError

_KIND = "dataset"
_ABOUT = ["README.md", ".gitattributes"]  # which the listing of a revision comes along with
_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})(.*)")


@dataclass(frozen=True)
class Snapshot:
    """A revision of a data set: names of all its files, and the folder where the ones that are here lie."""

    hub: str
    folder: Path
    names: tuple[str, ...]

    @property
    def commit(self) -> str:
        """The commit, however the revision was named."""
        return self.folder.name


def snapshot(hub: str, revision: str | None) -> Snapshot:
    """Ask the hub what a data set holds; where it can't be reached (or ``HF_HUB_OFFLINE`` is set), its cache.

    Raises:
        InputError: no such data set or revision, or it is neither reachable nor in the cache.
    """
    from huggingface_hub import get_cached_repo_tree, snapshot_download
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    with _told(hub, revision):
        folder = Path(snapshot_download(hub, repo_type=_KIND, revision=revision, allow_patterns=_ABOUT))
    try:
        names = [each.path for each in get_cached_repo_tree(hub, repo_type=_KIND, revision=folder.name)]
    except CachedRepoTreeNotFoundError:  # cached by an older version, which kept no listing
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        _check_whole(hub, names)
    return Snapshot(hub, folder, tuple(names))


def fetch(known: Snapshot, names: Sequence[str]) -> None:
    """Bring files of a snapshot into its folder.

    Raises:
        InputError: one is not in the cache and the hub can't be reached.
    """
    from huggingface_hub import snapshot_download

    missing = [name for name in names if not (known.folder / name).exists()]
    if not missing:
        return
    with _told(known.hub, known.commit):
        patterns = [glob.escape(name) for name in missing]
        snapshot_download(known.hub, repo_type=_KIND, revision=known.commit, allow_patterns=patterns)


@contextmanager
def _told(hub: str, revision: str | None) -> Iterator[None]:
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    transport = HfHubHTTPError.__bases__[0]  # of whichever HTTP library the installed version uses
    try:
        yield
    except GatedRepoError:
        raise InputError(
            f"the data set {hub} is behind an agreement", "accept it on its page, then run `hf auth login`"
        ) from None
    except RepositoryNotFoundError:
        raise InputError(
            f"the hub has no data set {hub!r}", "check the name, and run `hf auth login` if it is private"
        ) from None
    except RevisionNotFoundError:
        raise InputError(f"the data set {hub} has no revision {revision!r}", "name a branch, tag or commit") from None
    except HFValidationError:
        raise InputError(f"{hub!r} is no name of a data set", "write owner/name") from None
    except (transport, OSError) as error:  # type: ignore[misc]  # mypy takes no computed class here
        offline = constants.is_offline_mode()
        reason = "HF_HUB_OFFLINE is set, and the cache lacks it" if offline else _reason(error)
        raise InputError(
            f"the hub can't be reached for the data set {hub} ({reason})",
            f"{'unset HF_HUB_OFFLINE' if offline else 'connect'}, or give a local file or folder",
        ) from None


def _reason(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _check_whole(hub: str, names: Sequence[str]) -> None:
    """Refuse a cache that holds some shards of a split only: nobody would see that rows are missing."""
    for name in names:
        shard = _SHARD.fullmatch(name)
        if shard is None:
            continue
        before, _, count, after = shard.groups()
        for number in range(int(count)):
            if f"{before}-{number:05d}-of-{count}{after}" not in names:
                raise InputError(
                    f"only a part of the data set {hub} is in the cache", "connect to the hub once to get the rest"
                )
