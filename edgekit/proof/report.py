"""The proof as files: report.json for programs, report.md for a review, report.html for a look."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgekit.proof.compare import Proof
from edgekit.proof.markdown import markdown
from edgekit.proof.page import page
from edgekit_runtime.files.strict_json import strict_json

REPORT_SCHEMA = "edgekit.report/1"
JSON_FILE, TEXT_FILE, PAGE_FILE = "report.json", "report.md", "report.html"


def write_report(
    folder: Path,
    proofs: Sequence[Proof],
    quality: Mapping[str, Any],
    figures: Mapping[str, dict[str, Any]],
    origin: Mapping[str, Any],
    *,
    remedy: str | None = None,
) -> None:
    """Write report.json, report.md and report.html into ``folder``.

    Args:
        folder: made when missing.
        proofs: one an adapter.
        quality: what the manifest says of the bundle.
        figures: what it says of each adapter.
        origin: project, base, device, versions and digests.
        remedy: what helps a bundle that is refused.
    """
    folder.mkdir(parents=True, exist_ok=True)
    adapters = [figures[proof.adapter] | asdict(proof) for proof in proofs]
    helps = {} if remedy is None else {"remedy": remedy}
    document = {"schema": REPORT_SCHEMA, **origin, "quality": quality, **helps, "adapters": adapters}
    # Half a pair of UTF-16, which JSON can spell and UTF-8 can't, is spelt in JSON again.
    text = strict_json(document, indent=1) + "\n"
    (folder / JSON_FILE).write_text(text, encoding="utf-8", errors="backslashreplace")
    (folder / TEXT_FILE).write_text(markdown(proofs, quality, figures, origin, remedy), encoding="utf-8")
    (folder / PAGE_FILE).write_text(page(proofs, quality, figures, origin, remedy), encoding="utf-8")


def remove_report(folder: Path) -> None:
    """Remove what :func:`write_report` has written, and the folder if nothing else is in it."""
    with contextlib.suppress(OSError):
        for name in (JSON_FILE, TEXT_FILE, PAGE_FILE):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()
