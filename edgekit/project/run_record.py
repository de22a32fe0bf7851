"""run.json of an adapter folder, as it is read; :mod:`edgekit.training.record` writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RECORD_FILE = "run.json"
RECORD_SCHEMA = "edgekit.run/1"


def read_record(folder: Path) -> dict[str, Any] | None:
    """The run.json of an adapter folder; None when edgekit did not make it."""
    try:
        record = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if is_record(record) else None


def is_record(document: object) -> bool:
    """Whether a JSON document is the record of a run."""
    return isinstance(document, dict) and document.get("schema") == RECORD_SCHEMA
