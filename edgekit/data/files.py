"""Which files a source stands for: one file, or those of a split in a folder or a hub data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgekit.data.hub import fetch, snapshot
from edgekit.data.layout import README, choose_files
from edgekit.data.source import DataSource
from edgekit_runtime.errors import InputError


@dataclass(frozen=True)
class DataFile:
    """A file to read, and what errors call it."""

    path: Path
    label: str


@dataclass(frozen=True)
class Found:
    """Files of a source in the order of their rows; ``commit`` is that of a hub data set."""

    files: tuple[DataFile, ...]
    commit: str | None = None


def find_files(source: DataSource) -> Found:
    """The files of a source; those of the hub are downloaded, or taken from its cache.

    Raises:
        InputError: there are none, it isn't certain which are meant, or the hub can't be reached.
    """
    if source.hub is not None:
        known = snapshot(source.hub, source.revision)
        names = choose_files(known.names, _readme(known.folder), source)
        fetch(known, names)
        found = tuple(DataFile(known.folder / name, f"{source.hub}/{name}") for name in names)
        return Found(found, known.commit)
    assert source.path is not None, "a source is a path or a data set of the hub"
    if not _is_folder(source.path):
        asked = next((key for key in ("config", "split", "files") if getattr(source, key) is not None), None)
        if asked is not None:
            raise InputError(f"{source} is no folder, so it has no {asked}", f"remove {asked}, or name a folder")
        return Found((DataFile(source.path, str(source.path)),))
    names = choose_files(_names(source.path), _readme(source.path), source)
    return Found(tuple(DataFile(source.path / name, f"{source.path / name}") for name in names))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that is too long, or has a NUL in it
        return False


def _names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def _readme(folder: Path) -> str:
    try:
        return (folder / README).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return ""
