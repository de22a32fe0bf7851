"""Tables as text (CSV, TSV): records with the lines on which they start."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager

from edgekit.data.row import Record
from edgekit_runtime.errors import InputError

_LONGEST_CELL = 2**31 - 1  # Python's own limit of 128 KiB is less than some prompts
_OTHER_DELIMITERS = ("\t", ";")  # of programs in countries whose decimal sign is the comma


def csv_records(text: str, label: str, delimiter: str) -> Iterator[Record]:
    """Records of a table whose first row names the columns.

    Args:
        text: the file.
        label: what errors call it.
        delimiter: between cells, unless the first row has another one only.

    Raises:
        InputError: broken quotes, no header, or a row with more or fewer cells; names file and line.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text, delimiter), strict=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            with _long_cells():
                cells = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{label}:{line}: it is no CSV ({error})", "correct its quotes") from None
        if cells is None:
            return
        if not cells:
            continue
        if header is None:
            header = _header(cells, f"{label}:{line}")
            continue
        if len(cells) != len(header):
            raise InputError(
                f"{label}:{line}: it has {len(cells)} cells and the header {len(header)}",
                "put cells with commas or line breaks in quotes",
            )
        yield Record(dict(zip(header, cells, strict=True)), f"{label}:{line}")


def _delimiter(text: str, usual: str) -> str:
    first = re.sub(r'"[^"]*"', "", text.lstrip("\r\n").partition("\n")[0])
    if usual in first:
        return usual
    return next((each for each in _OTHER_DELIMITERS if each in first), usual)


def _header(cells: list[str], where: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{where}: two columns are called {twice!r}", "rename or remove one")
    return names


@contextmanager
def _long_cells() -> Iterator[None]:
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)
