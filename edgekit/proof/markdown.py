"""report.md, for a review; what models and data say is text in it, ``<script>`` included."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.pages.signs import visible
from edgekit.proof import words
from edgekit.proof.compare import Proof, RowProof
from edgekit.proof.figures import figure_table, meanings, parts_table, proof_figures
from edgekit.proof.rows import alike_rows, differing_rows
from edgekit.routing.proof import choice_table, unseen_table

WORST_ROWS = 8
LONGEST = 2_000  # characters of a cell
_MARKUP = re.compile(r"[\\`*_\[\]|!#~]")
_ROWS = ("row", "prompt", "expected", "base", "trained", "device")


def literal(text: str) -> str:
    """A text as one line of Markdown that shows it as it is: no markup, no HTML, no end of a table's cell."""
    shown = html.escape(visible(" ".join(text.split())), quote=False)
    return _MARKUP.sub(lambda found: f"\\{found[0]}", shown)


def markdown(
    proofs: Sequence[Proof],
    quality: Mapping[str, Any],
    figures: Mapping[str, Mapping[str, Any]],
    origin: Mapping[str, Any],
    remedy: str | None = None,
) -> str:
    """The report's text; arguments as in :func:`~edgekit.proof.page.page`."""
    lines = [f"# Proof: {words.headline(quality)}"]
    for line in _verdict(quality, figures, origin, remedy):
        lines += ["", literal(line)]
    for proof in proofs:
        lines += ["", f"**{proof.adapter}**", ""]
        lines += [f"* {question}: {literal(said)}" for question, said in words.proof_lines(figures[proof.adapter])]
    measured = [proof_figures(proof, quality, figures[proof.adapter]) for proof in proofs]
    lines += ["", *_table(figure_table(measured, [proof.adapter for proof in proofs])), ""]
    lines += [f"* {each.label}: {literal(f'{each.meaning}  {each.limit}')}" for each in meanings(measured).values()]
    if quality.get("ladder"):
        lines += ["", "## Quantizations measured", "", *_table(_ladder(quality["ladder"]))]
    for name, combined in origin.get("combined", {}).items():
        lines += [
            "",
            f"## {literal(name)}: the tasks of its parts, before and after",
            "",
            *_table(parts_table(combined)),
        ]
    if quality.get("auto"):
        lines += ["", "## Who answers requests for auto", "", *_table(choice_table(quality["auto"]))]
        lines += ["", literal(words.of_unseen(quality["auto"])), "", *_table(unseen_table(quality["auto"]))]
    for proof in proofs:
        for title, rows in _chosen(proof):
            lines += ["", f"## {proof.adapter}: {title}", "", *_table([_ROWS, *map(_row, rows)])]
    return "\n".join(lines) + "\n"


def _verdict(
    quality: Mapping[str, Any],
    figures: Mapping[str, Mapping[str, Any]],
    origin: Mapping[str, Any],
    remedy: str | None,
) -> list[str]:
    device = origin["device"]["profile"]
    least = "" if quality["min_score"] is None else f", and a score of {quality['min_score']:g}"
    return [
        words.sentence(quality, origin, figures),
        *(f"Why: {reason}." for reason in quality.get("reasons", [])),
        *([f"Accepted, because: {quality['accepted']}"] if quality.get("accepted") else []),
        *([f"What helps: {remedy}."] if remedy else []),
        f"Trained model: {quality['reference']}.  Exported: {quality['artifact']}.  Project {origin['project']}, "
        f"{f'for {device}, ' if device else ''}{origin['date']}.",
        f"Asked is a gain over the bare base of {words.asked_gain(quality)}, at the low end of its interval{least}.  "
        f"Allowed are a loss of {words.points(quality['max_loss_points'])} beyond noise and a mean KL of "
        f"{quality['max_mean_kl']:g} nats per answer token.  More: {words.MORE}.",
    ]


def _chosen(proof: Proof) -> list[tuple[str, list[RowProof]]]:
    """Titles with rows, where there are any: those that differ, and those that both answer worst."""
    wrong = [row for row in alike_rows(proof) if row.device.strip() != row.reference.strip()]
    chosen = [
        ("rows in which device and trained model differ most", differing_rows(proof)),
        ("rows that both answer the same, the worst first", wrong),
    ]
    return [(title, rows[:WORST_ROWS]) for title, rows in chosen if rows]


def _row(row: RowProof) -> list[str]:
    return [row.where, *map(_cut, (row.prompt, row.reference, row.base, row.torch, row.device))]


def _cut(text: str) -> str:
    more = len(text) - LONGEST
    return text if more <= 0 else f"{text[:LONGEST]} … {more:,} more characters are in report.json"


def _ladder(ladder: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    rows = [
        [
            rung["quantization"],
            words.figure(rung["size_mb"], ".1f"),
            words.figure(rung["mean_kl"], ".4f"),
            words.figure(rung["decode_tps"], ".0f"),
            f"no: {', '.join(rung['refused'])}" if rung["refused"] else "yes",
        ]
        for rung in ladder
    ]
    return [["type", "MB", "mean KL", "decode tok/s", "may ship"], *rows]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    heading, *rest = rows
    return [_line(heading), _line(["---"] * len(heading)), *map(_line, rest)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(literal, cells))} |"
