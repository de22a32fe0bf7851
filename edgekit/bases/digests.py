"""Digests of large files, and the names that families get from them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from edgekit_exporters.cache import cache_folder, cached
from edgekit_runtime.formats.bundle import file_digest

FAMILY_DIGITS = 12


def family_name(label: str, digest: str) -> str:
    """A family by a readable name and the digest of its weights."""
    slug = re.sub(r"[^a-z0-9]+", "-", label.rpartition("/")[2].lower()).strip("-")
    return f"{slug}-{digest[:FAMILY_DIGITS]}"


def remembered_digest(path: Path) -> str:
    """sha256 of a big file, remembered by its size and time of change."""
    stat = path.stat()
    key = hashlib.sha256(f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}".encode()).hexdigest()[:32]
    note = cached(cache_folder("digests") / key, lambda temporary: _write(temporary, file_digest(path)))
    return note.read_text()


def _write(path: Path, text: str) -> None:
    path.write_text(text)
