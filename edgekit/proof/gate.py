"""The gate that every export passes through before its bundle takes the place of the earlier one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgekit.evaluation.artifact import Artifact
from edgekit.project import Gate
from edgekit.proof.compare import Proof, prove
from edgekit.proof.ladder import Rung
from edgekit.proof.reference import Reference
from edgekit.proof.report import write_report
from edgekit.proof.verdict import refusals, remedy
from edgekit_exporters.bundle import Quality
from edgekit_runtime.errors import GateRefused

log = logging.getLogger(__name__)

REPORT_FOLDER = "report"


def prove_bundle(
    folder: Path,
    references: Sequence[Reference],
    gate: Gate,
    *,
    accept_loss: str | None,
    refused_report: Path,
    ladder: Sequence[Rung] = (),
) -> Quality:
    """Prove every adapter of the bundle in ``folder`` and write its report there.

    Args:
        folder: a bundle that verifies.
        references: what the trained models say.
        gate: what may be lost.
        accept_loss: the reason why a loss is shipped all the same; None refuses.
        refused_report: where the report goes when the bundle is refused.
        ladder: the quantisations that were measured to choose this one.

    Raises:
        GateRefused: a loss that nobody accepted.
    """
    proofs: list[Proof] = []
    with Artifact(folder) as artifact:
        for reference in references:
            log.info("proving %s on the device engine", reference.adapter.name)
            proofs.append(prove(artifact, reference))
        engine = artifact.runtime.manifest.engine
    reasons = [(proof, f"{proof.adapter}: {reason}") for proof in proofs for reason in refusals(proof, gate)]
    quality: dict[str, Any] = {
        "gate": "failed" if reasons else "passed",
        "reference": f"torch at {', '.join(sorted({proof.runs_on for proof in proofs}))}",
        "artifact": f"{engine} at {', '.join(sorted({proof.quantization for proof in proofs}))}",
        "rows": max(len(proof.rows) for proof in proofs),
        "max_loss_points": gate.max_loss_points,
        "max_mean_kl": gate.max_mean_kl,
    }
    if ladder:
        quality |= {"ladder": [asdict(rung) for rung in ladder]}
    if reasons:
        quality |= {"reasons": [reason for _, reason in reasons]}
        if accept_loss is None:
            write_report(refused_report, proofs, quality)
            raise GateRefused(
                f"the exported files answer worse than the trained model: {'; '.join(quality['reasons'])} "
                f"(report: {refused_report / 'report.html'})",
                remedy(reasons[0][0]),
            )
        quality |= {"accepted": accept_loss}
    write_report(folder / REPORT_FOLDER, proofs, quality)
    return Quality(quality, {proof.adapter: proof.summary() for proof in proofs})
