"""Bytes of a data file to records: which container it is, by its name and, where that lies, by its content."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable
from pathlib import Path

from edgekit.data.csv_file import csv_records
from edgekit.data.json_file import json_records, starts_with_json
from edgekit.data.parquet_file import PARQUET_MAGIC, parquet_records
from edgekit.data.row import Record
from edgekit.data.source import PACKED
from edgekit_runtime.errors import InputError

_GZIP_MAGIC = b"\x1f\x8b"
_TABLES = {".csv": ",", ".tsv": "\t"}
# What often lies under the name of a data file and is none: how it begins, what it is, what to do.
_OTHERS = (
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer, not the file itself", "run `git lfs pull`"),
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook", "save it as CSV, or unpack it"),
    (b"ARROW1", "an Arrow file", "save it as Parquet"),
    (b"<!DOCTYPE html", "a web page", "download the file itself"),
)


def read_records(path: Path, label: str) -> Iterable[Record]:
    """The objects in a data file, each with its place.

    Args:
        path: JSONL, JSON, CSV, TSV or Parquet, packed with gzip or not.
        label: what errors call it.

    Raises:
        InputError: missing, unreadable, or none of these.
    """
    data, suffix = _bytes(path, label), path.suffix.lower()
    if data.startswith(_GZIP_MAGIC):
        data = _unpacked(data, label)
    if suffix == PACKED:
        suffix = Path(path.stem).suffix.lower()
    for start, what, hint in _OTHERS:
        if data.startswith(start):
            raise InputError(f"{label} is {what}", hint)
    if data.startswith(PARQUET_MAGIC) or suffix == ".parquet":
        return parquet_records(data, label)
    text = _text(data, label)
    if suffix in _TABLES and not starts_with_json(text):
        return csv_records(text, label, _TABLES[suffix])
    return json_records(text, label, by_line=suffix != ".json")


def _bytes(path: Path, label: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(
            f"there is no data file {label}", "correct the path, on the command line or under data: in edgekit.yaml"
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{label} can't be read ({reason})", "check its name and permissions") from None


def _unpacked(data: bytes, label: str) -> bytes:
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{label} is no whole gzip file ({error})", "pack or download it again") from None


def _text(data: bytes, label: str) -> str:
    try:
        return data.decode("utf-8-sig")  # editors on Windows put a mark in front
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(f"{label}:{line}: it is not UTF-8", "save the file as UTF-8") from None
