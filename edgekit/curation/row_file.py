"""Rows that a teacher writes: appended to a JSONL file one by one, so that whatever stops a run loses none of them.

What was refused goes to a second file beside it, with the reason: it has cost tokens too, and tells what to change.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from edgekit.data.columns import PROVENANCE
from edgekit_runtime.errors import InputError
from edgekit_runtime.files.atomic import check_writable

log = logging.getLogger(__name__)

REASON = "refused"


@dataclass
class RowFile:
    """An open file of rows, and what earlier runs wrote.

    Attributes:
        path: the file.
        rows: all rows in it.
        refused: what was refused, in the second file.
    """

    path: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)
    _streams: tuple[BinaryIO, ...] = ()

    @property
    def tokens(self) -> int:
        """What the rows have cost, refused ones included."""
        return sum(each[PROVENANCE].get("tokens") or 0 for each in (*self.rows, *self.refused))

    def add(self, row: dict[str, Any]) -> None:
        """Append a row; it is on the disk when this returns."""
        _append(self._streams[0], row)
        self.rows.append(row)

    def refuse(self, row: dict[str, Any], reason: str) -> None:
        """Append what was refused, and why."""
        told = {**row, REASON: reason}
        _append(self._streams[1], told)
        self.refused.append(told)


@contextmanager
def open_rows(path: Path) -> Iterator[RowFile]:
    """Open the rows of earlier runs, to append to them.

    Raises:
        InputError: it can't be written, another run writes it, or it holds rows that no teacher wrote.
    """
    if path.suffix.lower() != ".jsonl":
        raise InputError(f"{path} is not called .jsonl", "rows are appended to a JSONL file: choose such a name")
    beside = path.with_name(f"{path.stem}.refused.jsonl")
    for each in (path, beside):
        check_writable(each)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as rows, beside.open("a+b") as refused:
        _lock(rows, path)
        found = RowFile(path, _earlier(rows, path), _earlier(refused, beside), (rows, refused))
        yield found
        empty = not found.refused
    if empty:
        beside.unlink(missing_ok=True)


def _append(stream: BinaryIO, row: dict[str, Any]) -> None:
    stream.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    stream.flush()
    os.fsync(stream.fileno())


def _lock(stream: BinaryIO, path: Path) -> None:
    if os.name != "posix":
        return
    import fcntl

    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise InputError(f"another run is writing {path}", "wait for it, or choose another --output") from None


def _earlier(stream: BinaryIO, path: Path) -> list[dict[str, Any]]:
    """The rows of earlier runs; a last line that was cut (the power went) is dropped."""
    stream.seek(0)
    data = stream.read()
    whole = data.rfind(b"\n") + 1
    rows = []
    for number, line in enumerate(data[:whole].splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not isinstance(row.get(PROVENANCE), dict):
            raise InputError(
                f"{path}:{number}: this row is not from a teacher", "choose another --output; nothing was changed"
            )
        rows.append(row)
    if whole < len(data):
        log.warning("%s:%d: the last line is cut and goes", path, len(rows) + 1)
        stream.truncate(whole)
    return rows
