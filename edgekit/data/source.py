"""What a project may name as data: a file, a folder, or a data set of the hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

HUB_PREFIX = "hub:"
# As the hub has them: the owner may be left out of its oldest data sets.
_HUB_NAME = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*", re.ASCII)
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
PACKED = ".gz"
EVERYTHING = "*"  # of ignore: all columns that no row has
MESSAGE_COLUMNS = "messages."  # of ignore: what stands inside messages


@dataclass(frozen=True)
class DataSource:
    """Rows that a project names, and how their columns are read.

    Attributes:
        path: a file, or a folder that is laid out as a hub data set.
        hub: ``owner/name`` of a data set of the hub, where there is no ``path``.
        config: which of a data set's configurations.
        split: which of its splits; None for the usual ones of ``part``.
        revision: branch, tag or commit of a hub data set.
        files: which files of a data set, as a pattern such as ``data/*.parquet``, where its own layout is not meant.
        part: ``train`` or ``eval``, what the rows are for.
        ignore: columns to leave out; ``*`` for all that no row has, ``messages.KEY`` for keys of messages.
        columns: a key of rows -> the column that stands for it.
        preferences: rows have two answers, ``chosen`` and ``rejected``.
        held_out: of training rows that evaluation rows are taken from: False leaves these out, True is these alone.
    """

    path: Path | None = None
    hub: str | None = None
    config: str | None = None
    split: str | None = None
    revision: str | None = None
    files: str | None = None
    part: str = "train"
    ignore: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    preferences: bool = False
    held_out: bool | None = None

    def __str__(self) -> str:
        """As errors name it."""
        return str(self.path) if self.hub is None else f"{HUB_PREFIX}{self.hub}"


def is_hub_name(text: str) -> bool:
    """Whether a data set of the hub could have this name."""
    return _HUB_NAME.fullmatch(text) is not None and ".." not in text


def means_hub(text: str, folder: Path) -> bool:
    """Whether ``text`` in a project file means the hub without saying so.

    It does when it reads ``owner/name``, has no suffix of a data file, and neither it nor its first part lies in
    ``folder``.
    """
    if text.count("/") != 1 or not is_hub_name(text) or text.lower().endswith((*SUFFIXES, PACKED)):
        return False
    return not (folder / text).exists() and not (folder / text.partition("/")[0]).exists()
