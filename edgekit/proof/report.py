"""The proof as files: report.json for programs, report.md for a review, report.html with plots for a look."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgekit.proof.compare import Proof, RowProof
from edgekit.proof.ladder import Rung, pareto_front
from edgekit.proof.markdown import literal

REPORT_SCHEMA = "edgekit.report/1"
WORST_ROWS = 8
_COLUMNS = (
    ("adapter", "{0.adapter}"),
    ("torch", "{0.torch_score:.1f}"),
    ("device", "{0.device_score:.1f}"),
    ("loss, points (95 %)", "{0.loss:+.1f} ({0.loss_interval[0]:+.1f} to {0.loss_interval[1]:+.1f})"),
    ("exact torch/device, %", "{0.torch_exact:.1f} / {0.device_exact:.1f}"),
    ("McNemar p", "{0.mcnemar_p:.2f}"),
    ("mean KL, nats", "{0.mean_kl:.4f}"),
    ("same top-1", "{0.top1:.1f} %"),
    ("perplexity torch/device", "{0.torch_perplexity:.2f} / {0.device_perplexity:.2f}"),
)


def write_report(folder: Path, proofs: Sequence[Proof], quality: dict[str, Any]) -> None:
    """Write report.json, report.md and report.html into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {"schema": REPORT_SCHEMA, "quality": quality, "adapters": [asdict(proof) for proof in proofs]}
    (folder / "report.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(_markdown(proofs, quality), encoding="utf-8")
    (folder / "report.html").write_text(_page(proofs, quality), encoding="utf-8")


def proof_table(proofs: Sequence[Proof]) -> list[list[str]]:
    """Heading and a row an adapter, as text."""
    return [[heading for heading, _ in _COLUMNS], *([cell.format(proof) for _, cell in _COLUMNS] for proof in proofs)]


def _verdict(proofs: Sequence[Proof], quality: dict[str, Any]) -> list[str]:
    metrics = ", ".join(dict.fromkeys(proof.metric for proof in proofs))
    lines = [
        f"Gate: {quality['gate']}.  Trained model: {quality['reference']}.  Exported: {quality['artifact']}.",
        f"Scores ({metrics}) are of 100, on at most {quality['rows']} evaluation rows of each adapter; allowed are "
        f"{quality['max_loss_points']:g} points of loss beyond noise and a mean KL of {quality['max_mean_kl']:g} nats "
        "per answer token.",
    ]
    lines += [f"Refused: {reason}." for reason in quality.get("reasons", [])]
    if quality.get("accepted"):
        lines.append(f"Shipped all the same: {quality['accepted']}")
    return lines


def _worst(proof: Proof) -> list[RowProof]:
    """Rows that lost most: by score, then by KL."""
    different = [row for row in proof.rows if row.torch != row.device]
    return sorted(different, key=lambda row: (row.device_score - row.torch_score, -(row.kl or 0)))[:WORST_ROWS]


def _markdown(proofs: Sequence[Proof], quality: dict[str, Any]) -> str:
    heading, *rows = proof_table(proofs)
    lines = [
        "# Proof",
        "",
        *map(literal, _verdict(proofs, quality)),
        "",
        _md_row(heading),
        _md_row(["---"] * len(heading)),
    ]
    lines += [_md_row(row) for row in rows]
    if quality.get("ladder"):
        heading, *rows = _ladder_table(quality["ladder"])
        lines += ["", "## Quantisations measured", "", _md_row(heading), _md_row(["---"] * len(heading))]
        lines += [_md_row(row) for row in rows]
    for proof in proofs:
        lines += [
            "",
            f"## {proof.adapter}: rows that differ most",
            "",
            "| | expected | torch | device |",
            "|---|---|---|---|",
        ]
        lines += [_md_row([Path(row.where).name, row.reference, row.torch, row.device]) for row in _worst(proof)]
    return "\n".join(lines) + "\n"


def _ladder_table(ladder: Sequence[dict[str, Any]]) -> list[list[str]]:
    rows = [
        [
            rung["quantization"],
            f"{rung['size_mb']:.1f}",
            f"{rung['mean_kl']:.4f}",
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
table { border-collapse: collapse; width: 100%; margin: 1rem 0; display: block; overflow-x: auto }
th, td { text-align: left; padding: .4rem .7rem; border-bottom: 1px solid #d5dbe3; vertical-align: top }
td.text { font: 13px/1.4 ui-monospace, monospace; min-width: 14rem; overflow-wrap: anywhere }
td.changed { background: #fdecea }
img { max-width: 100% }
.passed { color: #14662f } .failed { color: #a4161a } .skipped { color: #6b5900 }
@media (prefers-color-scheme: dark) {
  body { color: #e4e9ef; background: #12171d }
  th, td { border-color: #38424e }
  td.changed { background: #4a2320 }
  .passed { color: #6fd08c } .failed { color: #ff8a80 } .skipped { color: #e5c453 }
}
"""


def _page(proofs: Sequence[Proof], quality: dict[str, Any]) -> str:
    """One self-contained page: nothing is fetched, so it opens on a machine without a network."""
    escape = html.escape
    heading, *rows = proof_table(proofs)
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>Proof: {escape(quality['gate'])}</title><style>{_STYLE}</style>",
        f'<h1>Proof: <span class="{escape(quality["gate"])}">{escape(quality["gate"])}</span></h1>',
        *(f"<p>{escape(line)}</p>" for line in _verdict(proofs, quality)),
        _html_table(heading, [[f"<td>{escape(cell)}</td>" for cell in row] for row in rows]),
        f'<img alt="Scores and KL divergence" src="data:image/png;base64,{_plot(proofs)}">',
    ]
    if quality.get("ladder"):
        heading, *rows = _ladder_table(quality["ladder"])
        parts.append("<h2>Quantisations measured</h2>")
        parts.append(_html_table(heading, [[f"<td>{escape(cell)}</td>" for cell in row] for row in rows]))
        picture = _plot_ladder(quality["ladder"])
        parts.append(f'<img alt="Quality, size and speed" src="data:image/png;base64,{picture}">')
    for proof in proofs:
        worst = [
            [
                f"<td>{escape(Path(row.where).name)}</td>",
                *(
                    f'<td class="text{" changed" if changed else ""}">{escape(text)}</td>'
                    for text, changed in ((row.reference, False), (row.torch, False), (row.device, True))
                ),
            ]
            for row in _worst(proof)
        ]
        parts.append(f"<h2>{escape(proof.adapter)}: rows that differ most</h2>")
        parts.append(_html_table(["row", "expected", "torch", "device"], worst) if worst else "<p>None differs.</p>")
    return "\n".join(parts) + "</html>\n"


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
    bars = scores.bar(at - 0.2, [proof.torch_score for proof in proofs], 0.38, label="torch", color="#9aa7b5")
    scores.bar_label(bars, fmt="%.1f")
    below = [max(0.0, proof.loss_interval[1] - proof.loss) for proof in proofs]
    above = [max(0.0, proof.loss - proof.loss_interval[0]) for proof in proofs]
    bars = scores.bar(
        *(at + 0.2, [proof.device_score for proof in proofs], 0.38),
        yerr=[below, above], label="device", color="#3b6ea5", ecolor="#555555", capsize=4,
    )  # fmt: skip
    scores.bar_label(bars, fmt="%.1f")  # above the whisker: a bar may be too low to hold it
    scores.set_xticks(at, [proof.adapter for proof in proofs])
    scores.set(title="score; whisker: 95 % interval of the loss", ylim=(0, 130), yticks=range(0, 101, 20))
    scores.legend(loc="upper right", ncols=2)
    edges = np.geomspace(1e-6, 10, 43)
    for proof in proofs:
        spread.hist(np.clip(proof.token_kl, 1e-6, 10), edges, histtype="step", label=proof.adapter)
    spread.set(xscale="log", title="KL(torch || device) of each answer token", xlabel="nats", ylabel="tokens")
    spread.legend()
    return _png(figure)


def _plot_ladder(ladder: Sequence[dict[str, Any]]) -> str:
    """Size against KL divergence, with decode speed as label; the Pareto front is joined."""
    from matplotlib.figure import Figure

    rungs = [Rung(**rung) for rung in ladder]
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
