"""The proof as files: report.json for programs, report.md for a review, report.html with plots for a look."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgekit.proof.compare import Proof, RowProof
from edgekit.proof.ladder import Rung, pareto_front
from edgekit.proof.markdown import literal
from edgekit.proof.words import headline, proof_lines
from edgekit_runtime.files.strict_json import strict_json

REPORT_SCHEMA = "edgekit.report/1"
WORST_ROWS = 8
_COLUMNS = (
    ("adapter", "{0.adapter}"),
    ("base", "{0.base_score:.1f}"),
    ("torch", "{0.torch_score:.1f}"),
    ("device", "{0.device_score:.1f}"),
    ("gain, points (95 %)", "{0.gain:+.1f} ({0.gain_interval[0]:+.1f} to {0.gain_interval[1]:+.1f})"),
    ("loss, points (95 %)", "{0.loss:+.1f} ({0.loss_interval[0]:+.1f} to {0.loss_interval[1]:+.1f})"),
    ("exact base/torch/device, %", "{0.base_exact:.1f} / {0.torch_exact:.1f} / {0.device_exact:.1f}"),
    ("McNemar p", "{0.mcnemar_p:.2f}"),
    ("mean KL, nats", "{0.mean_kl:.4f}"),
    ("same top-1", "{0.top1:.1f} %"),
    ("perplexity torch/device", "{0.torch_perplexity:.2f} / {0.device_perplexity:.2f}"),
)


def write_report(
    folder: Path,
    proofs: Sequence[Proof],
    quality: dict[str, Any],
    figures: Mapping[str, dict[str, Any]],
    origin: Mapping[str, Any],
) -> None:
    """Write report.json, report.md and report.html into ``folder``.

    Args:
        folder: made when missing.
        proofs: one an adapter.
        quality: what the manifest says of the bundle.
        figures: what it says of each adapter.
        origin: project, base, device, versions and digests.
    """
    folder.mkdir(parents=True, exist_ok=True)
    adapters = [figures[proof.adapter] | asdict(proof) for proof in proofs]
    document = {"schema": REPORT_SCHEMA, **origin, "quality": quality, "adapters": adapters}
    (folder / "report.json").write_text(strict_json(document, indent=1) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(_markdown(proofs, quality, figures, origin), encoding="utf-8")
    (folder / "report.html").write_text(_page(proofs, quality, figures, origin), encoding="utf-8")


def proof_table(proofs: Sequence[Proof]) -> list[list[str]]:
    """Heading and a row an adapter, as text."""
    return [[heading for heading, _ in _COLUMNS], *([cell.format(proof) for _, cell in _COLUMNS] for proof in proofs)]


def _verdict(quality: dict[str, Any], origin: Mapping[str, Any], metrics: str) -> list[str]:
    base, device = origin["base"], origin["device"]["profile"]
    lines = [
        f"Gate: {quality['gate']}.  Trained model: {quality['reference']}.  Exported: {quality['artifact']}.  "
        f"Project {origin['project']}, base {base['name']}, {f'for {device}, ' if device else ''}{origin['date']}.",
        f"Scores ({metrics}) are of 100, on at most {quality['rows']} evaluation rows of each adapter.  "
        f"Allowed are a loss of {_points(quality['max_loss_points'])} beyond noise and a mean KL of "
        f"{quality['max_mean_kl']:g} nats per answer token.  {_asked(quality)}",
    ]
    lines += [f"Refused: {reason}." for reason in quality.get("reasons", [])]
    if quality.get("accepted"):
        lines.append(f"Shipped all the same: {quality['accepted']}")
    return lines


def _points(count: float) -> str:
    return f"{count:g} point{'' if count == 1 else 's'}"


def _asked(quality: dict[str, Any]) -> str:
    least = quality["min_gain"]
    gain = "more than zero" if least is None else f"{_points(least)} or more"
    score = "" if quality["min_score"] is None else f", and a score of {quality['min_score']:g}"
    return f"Asked is a gain over the bare base of {gain}, at the low end of its interval{score}."


def _worst(proof: Proof) -> list[RowProof]:
    """Rows that lost most: by score, then by KL."""
    different = [row for row in proof.rows if row.torch != row.device]
    return sorted(different, key=lambda row: (row.device_score - row.torch_score, -(row.kl or 0)))[:WORST_ROWS]


def _wrong(proof: Proof) -> list[RowProof]:
    """Rows that the device answers worst, however torch does; those that differ are told already."""
    told = _worst(proof)
    wrong = [row for row in proof.rows if row not in told and row.device.strip() != row.reference.strip()]
    return sorted(wrong, key=lambda row: row.device_score)[:WORST_ROWS]


def _metrics(proofs: Sequence[Proof]) -> str:
    return ", ".join(dict.fromkeys(proof.metric for proof in proofs))


def _markdown(
    proofs: Sequence[Proof],
    quality: dict[str, Any],
    figures: Mapping[str, dict[str, Any]],
    origin: Mapping[str, Any],
) -> str:
    heading, *rows = proof_table(proofs)
    lines = [f"# Proof: {headline(quality)}"]
    for line in _verdict(quality, origin, _metrics(proofs)):
        lines += ["", literal(line)]
    for proof in proofs:
        lines += ["", f"**{proof.adapter}**", ""]
        lines += [f"* {question}: {literal(said)}" for question, said in proof_lines(figures[proof.adapter])]
    lines += ["", _md_row(heading), _md_row(["---"] * len(heading)), *(_md_row(row) for row in rows)]
    if quality.get("ladder"):
        heading, *rows = _ladder_table(quality["ladder"])
        lines += ["", "## Quantisations measured", "", _md_row(heading), _md_row(["---"] * len(heading))]
        lines += [_md_row(row) for row in rows]
    for proof in proofs:
        for title, chosen in _chosen_rows(proof):
            lines += ["", f"## {proof.adapter}: {title}", "", _md_row(_ROWS), _md_row(["---"] * len(_ROWS))]
            lines += [_md_row([row.where, *_texts(row)]) for row in chosen]
    return "\n".join(lines) + "\n"


_ROWS = ("row", "expected", "base", "torch", "device")


def _texts(row: RowProof) -> tuple[str, str, str, str]:
    return row.reference, row.base, row.torch, row.device


def _chosen_rows(proof: Proof) -> list[tuple[str, list[RowProof]]]:
    """Titles with rows, where there are any."""
    chosen = [("rows in which device and torch differ most", _worst(proof)), ("rows answered worst", _wrong(proof))]
    return [(title, rows) for title, rows in chosen if rows]


def _ladder_table(ladder: Sequence[dict[str, Any]]) -> list[list[str]]:
    rows = [
        [
            rung["quantization"],
            f"{rung['size_mb']:.1f}",
            "none" if rung["mean_kl"] is None else f"{rung['mean_kl']:.4f}",
            f"{rung['decode_tps']:.0f}",
            ", ".join(rung["refused"]) or "yes",
        ]
        for rung in ladder
    ]
    return [["type", "MB", "mean KL", "decode tok/s", "may ship"], *rows]


def _md_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(literal, cells))} |"


_STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #1d2733 }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; display: block; overflow-x: auto; font-size: .92em }
th, td { text-align: left; padding: .4rem .5rem; border-bottom: 1px solid #d5dbe3; vertical-align: top }
th { font-size: .9em }
td.text { font: 13px/1.4 ui-monospace, monospace; min-width: 9rem; overflow-wrap: anywhere }
td.changed { background: #fdecea }
img { max-width: 100% }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1rem } dt { font-weight: 600 } dd { margin: 0 }
.passed { color: #14662f } .failed { color: #a4161a } .skipped { color: #6b5900 }
@media (prefers-color-scheme: dark) {
  body { color: #e4e9ef; background: #12171d }
  th, td { border-color: #38424e }
  td.changed { background: #4a2320 }
  .passed { color: #6fd08c } .failed { color: #ff8a80 } .skipped { color: #e5c453 }
}
"""


def _page(
    proofs: Sequence[Proof],
    quality: dict[str, Any],
    figures: Mapping[str, dict[str, Any]],
    origin: Mapping[str, Any],
) -> str:
    """One self-contained page: nothing is fetched, so it opens on a machine without a network."""
    escape = html.escape
    heading, *rows = proof_table(proofs)
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>Proof: {escape(headline(quality))}</title><style>{_STYLE}</style>",
        f'<h1>Proof: <span class="{escape(quality["gate"])}">{escape(headline(quality))}</span></h1>',
        *(_questions(proof.adapter, figures[proof.adapter]) for proof in proofs),
        *(f"<p>{escape(line)}</p>" for line in _verdict(quality, origin, _metrics(proofs))),
        _html_table(heading, [[f"<td>{_unbroken(cell)}</td>" for cell in row] for row in rows]),
        f'<img alt="Scores and KL divergence" src="data:image/png;base64,{_plot(proofs)}">',
    ]
    if quality.get("ladder"):
        heading, *rows = _ladder_table(quality["ladder"])
        parts.append("<h2>Quantisations measured</h2>")
        parts.append(_html_table(heading, [[f"<td>{escape(cell)}</td>" for cell in row] for row in rows]))
        picture = _plot_ladder(quality["ladder"])
        parts.append(f'<img alt="Quality, size and speed" src="data:image/png;base64,{picture}">')
    for proof in proofs:
        for title, chosen in _chosen_rows(proof):
            parts.append(f"<h2>{escape(proof.adapter)}: {escape(title)}</h2>")
            parts.append(_html_table(_ROWS, [_html_row(row) for row in chosen]))
        if not _worst(proof):
            parts.append(f"<p>{escape(proof.adapter)}: on no row do device and torch differ.</p>")
    return "\n".join(parts) + "</html>\n"


def _questions(adapter: str, figures: Mapping[str, Any]) -> str:
    """The answers to the three questions, in plain words."""
    items = "".join(
        f'<dt>{html.escape(question)}</dt><dd class="{_kind(said)}">{html.escape(said)}</dd>'
        for question, said in proof_lines(figures)
    )
    return f"<h2>{html.escape(adapter)}</h2><dl>{items}</dl>"


def _kind(said: str) -> str:
    return "passed" if said.startswith("yes") else "failed" if said.startswith("no:") else ""


def _unbroken(cell: str) -> str:
    """A figure, whose interval stays in one line."""
    return html.escape(cell).replace(" to ", "&nbsp;to&nbsp;")


def _html_row(row: RowProof) -> list[str]:
    *texts, device = _texts(row)
    changed = " changed" if row.device != row.torch else ""
    cells = [f'<td class="text">{html.escape(text)}</td>' for text in texts]
    return [f"<td>{html.escape(row.where)}</td>", *cells, f'<td class="text{changed}">{html.escape(device)}</td>']


def _html_table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in heading)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _plot(proofs: Sequence[Proof]) -> str:
    """Scores side by side with the loss's interval, and how KL spreads over tokens; PNG as base64."""
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), layout="constrained", dpi=110)
    scores, spread = figure.subplots(1, 2)
    at = np.arange(len(proofs))
    for shift, label, color, heights in (
        (-0.27, "base", "#d9c9a3", [proof.base_score for proof in proofs]),
        (0.0, "torch", "#9aa7b5", [proof.torch_score for proof in proofs]),
    ):
        scores.bar_label(scores.bar(at + shift, _shown(heights), 0.25, label=label, color=color), fmt="%.1f")
    below = _shown([proof.loss_interval[1] - proof.loss for proof in proofs])
    above = _shown([proof.loss - proof.loss_interval[0] for proof in proofs])
    bars = scores.bar(
        *(at + 0.27, _shown([proof.device_score for proof in proofs]), 0.25),
        yerr=[below, above], label="device", color="#3b6ea5", ecolor="#555555", capsize=4,
    )  # fmt: skip
    scores.bar_label(bars, fmt="%.1f")  # above the whisker: a bar may be too low to hold it
    scores.set_xticks(at, [proof.adapter for proof in proofs])
    scores.set(title="score; whisker: 95 % interval of the loss", ylim=(0, 130), yticks=range(0, 101, 20))
    scores.legend(loc="upper right", ncols=3)
    edges = np.geomspace(1e-6, 10, 43)
    for proof in proofs:
        spread.hist(
            np.clip([kl for kl in proof.token_kl if math.isfinite(kl)], 1e-6, 10),
            edges,
            histtype="step",
            label=proof.adapter,
        )
    spread.set(xscale="log", title="KL(torch || device) of each answer token", xlabel="nats", ylabel="tokens")
    spread.legend()
    return _png(figure)


def _shown(figures: Sequence[float]) -> list[float]:
    """Heights of bars and whiskers: rounding may take one below zero; what is no number has none."""
    return [figure if math.isfinite(figure) and figure > 0 else 0.0 for figure in figures]


def _plot_ladder(ladder: Sequence[dict[str, Any]]) -> str:
    """Size against KL divergence, with decode speed as label; the Pareto front is joined."""
    from matplotlib.figure import Figure

    rungs = [Rung(**rung) for rung in ladder if rung["mean_kl"] is not None]
    figure = Figure(figsize=(7.5, 4), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    front = pareto_front(rungs)
    axes.plot([rung.size_mb for rung in front], [rung.mean_kl for rung in front], color="#9aa7b5", zorder=1)
    for rung in rungs:
        axes.scatter(rung.size_mb, rung.mean_kl, color="#a4161a" if rung.refused else "#14662f", zorder=2)
        label = f"{rung.quantization}\n{rung.decode_tps:.0f} tok/s"
        axes.annotate(label, (rung.size_mb, rung.mean_kl), xytext=(5, 4), textcoords="offset points", fontsize=8)
    axes.set(yscale="log", xlabel="base and adapters, MB", ylabel="mean KL to the trained model, nats")
    axes.set_title("green may ship, red may not; the line joins the Pareto front of KL, size and speed", fontsize=10)
    axes.margins(x=0.15, y=0.15)
    axes.grid(alpha=0.3)
    return _png(figure)


def _png(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode()
