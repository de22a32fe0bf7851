"""Rows as they stand in a file, to write some of them to another file of the same kind."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.curation.samples import Sample, sample
from edgekit.data.columns import Columns
from edgekit.data.containers import read_records
from edgekit.data.rows import read_row
from edgekit.data.source import PACKED, SUFFIXES
from edgekit_runtime.errors import InputError

_TABLES = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class RawRow:
    """A row, and the object that it stands as in its file."""

    value: dict[str, Any]
    sample: Sample


def read_raw(path: Path, ignore: Sequence[str] = ()) -> list[RawRow]:
    """The rows of a file.

    Args:
        path: JSONL, JSON, CSV, TSV or Parquet.
        ignore: columns that are kept, and are no part of rows; ``*`` for all that no row has.

    Raises:
        InputError: it can't be read, it has no rows, or one of them is none; names file and line.
    """
    columns = Columns(ignore)
    rows = [
        RawRow(record.value, sample(read_row(record, path.parent, columns))) for record in read_records(path, str(path))
    ]
    if not rows:
        raise InputError(f"{path} has no rows", "put at least one JSON object in it, one a line")
    return rows


def kind_of(path: Path) -> str:
    """Which container a file's name says it is, ``.jsonl`` say; gzip is not part of it.

    Raises:
        InputError: it says none.
    """
    suffix = (Path(path.stem) if path.suffix.lower() == PACKED else path).suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path} has no suffix of a data file", f"use one of {', '.join(SUFFIXES)}")
    return suffix


def beside(path: Path, part: str, folder: Path) -> Path:
    """Where the rows of ``path`` for ``part`` go in ``folder``: ``rows.jsonl.gz`` becomes ``rows.train.jsonl.gz``."""
    ending = "".join(path.suffixes[-2:] if path.suffix.lower() == PACKED else path.suffixes[-1:])
    return folder / f"{path.name.removesuffix(ending)}.{part}{ending}"


def as_bytes(path: Path, rows: Sequence[dict[str, Any]]) -> bytes:
    """A file of the kind that ``path`` is, with these rows; gzip where its name says so.

    Raises:
        InputError: Parquet without pyarrow.
    """
    kind = kind_of(path)
    if kind == ".parquet":
        return _parquet(path, rows)
    if kind in _TABLES:
        text = _table(rows, _TABLES[kind])
    elif kind == ".json":
        text = json.dumps(list(rows), ensure_ascii=False, indent=1) + "\n"
    else:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    data = text.encode()
    return gzip.compress(data, mtime=0) if path.suffix.lower() == PACKED else data


def _table(rows: Sequence[dict[str, Any]], delimiter: str) -> str:
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(rows[0]) if rows else [], delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _parquet(path: Path, rows: Sequence[dict[str, Any]]) -> bytes:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise InputError(f"{path} is Parquet, and pyarrow is not installed", "pip install 'edgekit[data]'") from None
    stream = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), stream)
    return stream.getvalue()
