"""A source to its rows, and to the digest that tells them apart from others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.data.columns import Columns
from edgekit.data.containers import read_records
from edgekit.data.files import find_files
from edgekit.data.holdout import MOST, SEED, SHARE, rows_of_side
from edgekit.data.row import Row
from edgekit.data.rows import read_prompt, read_row
from edgekit.data.source import DataSource
from edgekit_runtime.errors import InputError


def load_rows(source: DataSource | Path) -> list[Row]:
    """Read all rows of a source; docs/formats.md lists containers and kinds of rows.

    Args:
        source: what a project names, or a file.

    Raises:
        InputError: missing, unreadable or empty, a hub that can't be reached, or a row of no known kind; names file
            and line.
    """
    source = _source(source)
    if source.path is None and source.hub is None:
        raise InputError("the data names no rows to train on", "add train: to it")
    columns = Columns(source.ignore, source.columns)
    found = find_files(source)
    rows = [
        read_row(record, file.path.parent, columns, preferences=source.preferences)
        for file in found.files
        for record in read_records(file.path, file.label)
    ]
    if not rows:
        raise InputError(f"{source} has no rows", "put at least one JSON object in it, one a line")
    columns.check_found(str(source))
    return rows if source.held_out is None else rows_of_side(rows, str(source), held_out=source.held_out)


@dataclass(frozen=True)
class LookedAt:
    """Rows that can be read, and the errors of those that can't."""

    rows: list[Row]
    refused: list[InputError]


def look_at_rows(source: DataSource | Path) -> LookedAt:
    """As :func:`load_rows`, but go on behind a row that can't be read.

    A file ends for us where it is no JSON or CSV any more.

    Raises:
        InputError: there is no such file, or a hub that can't be reached.
    """
    source = _source(source)
    columns = Columns(source.ignore, source.columns)
    looked = LookedAt([], [])
    for file in find_files(source).files:
        records = iter(read_records(file.path, file.label))
        while True:
            try:
                record = next(records, None)
                if record is None:
                    break
                looked.rows.append(read_row(record, file.path.parent, columns))
            except InputError as error:
                looked.refused.append(error)
    return looked


def load_prompts(path: Path, ignore: Iterable[str] = ()) -> list[Row]:
    """Read rows of any kind that have no answer yet; their ``answer`` is empty.

    Args:
        path: a file of rows.
        ignore: columns to leave out.

    Raises:
        InputError: as :func:`load_rows`, or a row has an answer.
    """
    columns = Columns(tuple(ignore))
    rows = [read_prompt(record, path.parent, columns) for record in read_records(path, str(path))]
    if not rows:
        raise InputError(f"{path} has no rows", "put at least one JSON object in it, one a line")
    return rows


def data_digest(sources: Iterable[DataSource | Path]) -> str:
    """sha256 over the bytes of data files and of the images in their rows, in this order.

    What else decides about rows is part of it: columns that are ignored or renamed, and the commit of a hub data set.
    """
    digest = hashlib.sha256()
    for source in map(_source, sources):
        found = find_files(source)
        for file in found.files:
            digest.update(hashlib.sha256(file.path.read_bytes()).digest())
        for image in (image for row in load_rows(source) for image in row.images):
            digest.update(hashlib.sha256(image.read_bytes()).digest())
        read_as: list[Any] = [sorted(source.ignore), sorted(source.columns.items()), source.hub, found.commit]
        if source.held_out is not None:
            read_as.append([SHARE, MOST, SEED, source.held_out])
        if any(read_as):
            digest.update(hashlib.sha256(json.dumps(read_as).encode()).digest())
    return digest.hexdigest()


def _source(source: DataSource | Path) -> DataSource:
    return source if isinstance(source, DataSource) else DataSource(path=source)
