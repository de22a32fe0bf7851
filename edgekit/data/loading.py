"""A source to its rows, and to the digest that tells them apart from others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgekit.data.columns import Columns
from edgekit.data.containers import read_records
from edgekit.data.files import find_files
from edgekit.data.holdout import MOST, SEED, SHARE, rows_of_side
from edgekit.data.row import Row
from edgekit.data.rows import read_row
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
