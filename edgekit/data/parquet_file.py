"""Parquet files: records with the numbers of their rows, counted from 1."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from edgekit.data.row import Record
from edgekit_runtime.errors import InputError

PARQUET_MAGIC = b"PAR1"


def parquet_records(data: bytes, label: str) -> Iterator[Record]:
    """Records of a Parquet file.

    Arrow fills each object up with all keys that any row has, so a null inside is the same as a key that isn't there.

    Raises:
        InputError: it can't be read, or pyarrow is missing.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise InputError(f"{label} is Parquet, and pyarrow is not installed", "pip install 'edgekit[data]'") from None
    number = 0
    try:
        file = parquet.ParquetFile(io.BytesIO(data))
        names = file.schema_arrow.names
        if len(set(names)) < len(names):
            raise InputError(f"{label} has two columns of one name", "rename or remove one")
        for batch in file.iter_batches():
            columns = {name: _values(batch.column(name)) for name in names}
            for index in range(batch.num_rows):
                number += 1
                yield Record({name: columns[name][index] for name in names}, f"{label}:{number}")
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{label} is no readable Parquet file ({reason})", "write or download it again") from None


def _values(column: Any) -> list[Any]:
    import pyarrow

    kind = column.type
    if pyarrow.types.is_temporal(kind):  # no key of rows is a time; nanoseconds fit none of Python's
        return [None if value is None else str(value) for value in column.cast(pyarrow.string()).to_pylist()]
    return [_without_nulls(value) for value in column.to_pylist()]


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_without_nulls(each) for each in value]
    return value
