"""Prompts that a page offers to whoever doesn't know what to ask: those of evaluation rows in the bundle's report."""

from __future__ import annotations

import json
from typing import Any

from edgekit_runtime.formats.bundle import Bundle

REPORT_FILE = "report/report.json"
LARGEST_REPORT = 64 * 1024 * 1024
MOST_EXAMPLES = 4  # of an adapter
LONGEST_EXAMPLE = 160  # characters


def example_prompts(bundle: Bundle) -> dict[str, list[str]]:
    """Short prompts of each adapter and stack that the report has rows of.

    A prompt that is long or has several lines is left out: cut, it would be none that the adapter was tried with.

    Returns:
        At most :data:`MOST_EXAMPLES` different texts an adapter, in the order of rows; no adapter without one.
    """
    names = {entry.name for entry in bundle.manifest.subjects}
    found: dict[str, list[str]] = {}
    for proof in _list(_report(bundle).get("adapters")):
        name = proof.get("adapter") if isinstance(proof, dict) else None
        if not isinstance(name, str) or name not in names:
            continue
        prompts = [_prompt(row) for row in _list(proof.get("rows"))]
        if chosen := list(dict.fromkeys(prompt for prompt in prompts if prompt))[:MOST_EXAMPLES]:
            found[name] = chosen
    return found


def _report(bundle: Bundle) -> dict[str, Any]:
    """The report, and nothing where there is none that can be read: a page does without."""
    listed = [entry for entry in bundle.manifest.files if entry.path == REPORT_FILE]
    if not listed or listed[0].size > LARGEST_REPORT:
        return {}
    try:
        document = json.loads((bundle.root / REPORT_FILE).read_bytes())
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _prompt(row: object) -> str | None:
    prompt = row.get("prompt") if isinstance(row, dict) else None
    if not isinstance(prompt, str):
        return None
    prompt = prompt.strip()
    return prompt if len(prompt) <= LONGEST_EXAMPLE and prompt.isprintable() else None


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
