"""Evaluations as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from edgekit.evaluation.calls import SHARES
from edgekit.evaluation.evaluate import Evaluation
from edgekit.evaluation.scoring import Score
from edgekit_runtime.bench.report import aligned


def evaluation_table(evaluations: Sequence[Evaluation]) -> str:
    """A row for the base and one for the adapter of each evaluation; figures in percent."""
    blocks = []
    for each in evaluations:
        scores = [("base", each.base_score)] if each.base_score is not None else []
        scores.append((each.adapter, each.adapter_score))
        first = each.adapter_score
        heading = ["", *_headings(first)]
        rows = [heading, *([name, *_cells(score)] for name, score in scores)]
        head = f"{each.adapter}: {each.rows} rows on {each.engine} at {each.runs_on}, figures in %"
        blocks.append("\n".join([head, *aligned(rows)]))
    return "\n\n".join(blocks)


def _headings(score: Score) -> list[str]:
    if score.calls is not None:
        return ["tool accuracy", "95 % interval", "exact", *SHARES.values()]
    if score.kind == "json":
        return ["fields right", "95 % interval", "exact", "valid JSON", *score.fields]
    return ["token F1", "95 % interval", "exact", "ROUGE-L"]


def _cells(score: Score) -> list[str]:
    low, high = score.interval
    cells = [percent(score.value), f"{percent(low)} – {percent(high)}", percent(score.exact)]
    if score.calls is not None:
        shares = asdict(score.calls)
        return [*cells, *("" if shares[name] is None else percent(shares[name]) for name in SHARES)]
    rest = [score.valid_json, *score.fields.values()] if score.kind == "json" else [score.rouge_l]
    return [*cells, *(percent(value) for value in rest if value is not None)]


def percent(share: float) -> str:
    """A share as tables have it."""
    return f"{100 * share:.1f}"
