"""Rows for the tests of checks and splits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekit.curation.samples import Sample, sample
from edgekit.data import Row


def asked(question: str, answer: str = "yes", system: str | None = None) -> Sample:
    before = [] if system is None else [{"role": "system", "content": system}]
    return sample(Row((*before, {"role": "user", "content": question}), answer, (), "rows.jsonl:1"))


def write(path: Path, rows: Sequence[Any]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def pair(question: str, answer: Any, **more: Any) -> dict[str, Any]:
    return {"prompt": question, "completion": answer if isinstance(answer, str) else json.dumps(answer), **more}
