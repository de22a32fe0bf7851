"""The gate that every export passes through before its bundle takes the place of the earlier one."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from edgekit.evaluation.artifact import Artifact
from edgekit.project import Gate
from edgekit.proof.compare import Proof, prove
from edgekit.proof.ladder import Rung
from edgekit.proof.origin import Origin
from edgekit.proof.reference import Reference
from edgekit.proof.report import write_report
from edgekit.proof.verdict import dead, least_gain, least_loss, not_good, remedy, unfaithful
from edgekit.routing.proof import prove_router
from edgekit_exporters.bundle import Quality
from edgekit_runtime.errors import GateRefused, InputError
from edgekit_runtime.files.strict_json import without_nan
from edgekit_runtime.formats.manifest import F16, Manifest

log = logging.getLogger(__name__)

REPORT_FOLDER = "report"


class Refused(GateRefused):
    """What the gate says no to; ``reasons`` are those of all adapters."""

    def __init__(self, problem: str, hint: str | None, reasons: Sequence[str]) -> None:
        """Keep ``reasons`` beside the one-line message, which also says where the report is."""
        super().__init__(problem, hint)
        self.reasons = reasons


class NotGood(Refused):
    """The files answer as the trained model does, and that is not good enough: no other quantisation helps."""


def prove_bundle(
    folder: Path,
    references: Sequence[Reference],
    gate: Gate,
    *,
    origin: Origin,
    accept_loss: str | None,
    refused_report: Path,
    ladder: Sequence[Rung] = (),
    routed: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Quality:
    """Prove every adapter of the bundle in ``folder`` and write its report there.

    Args:
        folder: a bundle that verifies.
        references: what the trained models say.
        gate: what may be lost, and what is good enough.
        origin: where the bundle comes from, for the report.
        accept_loss: the reason why a refused bundle is shipped all the same; None refuses.
        refused_report: where the report goes when the bundle is refused.
        ladder: the quantisations that were measured to choose this one.
        routed: texts of each adapter's evaluation rows, where devices choose adapters.

    Raises:
        InputError: an adapter changes nothing, or computes what are no numbers; no reason ships such a one.
        NotGood: an adapter that is not good enough, and nobody accepted that.
        Refused: a loss that nobody accepted.
    """
    proofs: list[Proof] = []
    with Artifact(folder) as artifact:
        for reference in references:
            log.info("proving %s on the device engine", reference.adapter.name)
            proofs.append(prove(artifact, reference))
            _refuse_dead(proofs[-1])
        choices = prove_router(artifact.runtime, routed) if routed else None
        manifest, engine = artifact.runtime.manifest, artifact.runtime.engine.info()
    quality = _quality(proofs, gate, manifest)
    if ladder:
        quality |= {"ladder": without_nan([asdict(rung) for rung in ladder])}
    if choices is not None:
        quality |= {"auto": choices}
    figures = {proof.adapter: _figures(proof, gate) for proof in proofs}
    merged = {proof.adapter: figures[proof.adapter] for proof in proofs if proof.merged}
    if merged:  # such an adapter has no entry of its own in the manifest
        quality |= {"merged": merged}
    document = origin.document(manifest, engine)
    if quality["gate"] == "failed":
        if accept_loss is None:
            refusal = _refusal(proofs, gate, refused_report, manifest.base.kv_cache)
            write_report(refused_report, proofs, quality, figures, document, remedy=refusal.hint)
            raise refusal
        quality |= {"accepted": accept_loss}
    write_report(folder / REPORT_FOLDER, proofs, quality, figures, document)
    return Quality(quality, figures)


def _refuse_dead(proof: Proof) -> None:
    side = dead(proof)
    if side is not None:
        raise InputError(
            f"adapter {proof.adapter} changes nothing {side}: its logits there are those of the bare base",
            "export it again with another --mode, --format or --quantize; train it longer if its change is tiny",
        )


def _figures(proof: Proof, gate: Gate) -> dict[str, Any]:
    """What a manifest says of one adapter: the proof's figures, and the answers to the three questions."""
    answers = {
        "alive": dead(proof) is None,
        "faithful": not unfaithful(proof, gate),
        "good": not not_good(proof, gate),
        "least_loss": round(least_loss(proof, gate), 3),
        "least_gain": round(least_gain(proof), 3),
    }
    figures: dict[str, Any] = without_nan(answers)
    return proof.summary() | figures


def _quality(proofs: Sequence[Proof], gate: Gate, manifest: Manifest) -> dict[str, Any]:
    """What a manifest says of the bundle; the figure of each question is that of the adapter that does worst."""
    worst = {
        "alive": (
            "change",
            _least([change for proof in proofs for change in (proof.torch_change, proof.device_change)]),
        ),
        "faithful": ("mean_kl", _most([proof.mean_kl for proof in proofs])),
        "good": ("gain", _least([proof.gain for proof in proofs])),
    }
    judged = {
        "alive": not any(dead(proof) for proof in proofs),
        "faithful": not any(unfaithful(proof, gate) for proof in proofs),
        "good": not any(not_good(proof, gate) for proof in proofs),
    }
    questions = {key: {"passed": judged[key], name: round(figure, 5)} for key, (name, figure) in worst.items()}
    questions["faithful"]["loss"] = round(_most([proof.loss for proof in proofs]), 3)
    questions["good"] |= {
        "score": round(_least([proof.device_score for proof in proofs]), 3),
        "exact": round(_least([proof.device_exact for proof in proofs]), 3),
    }
    reasons = [f"{proof.adapter}: {reason}" for proof in proofs for reason in unfaithful(proof, gate)]
    reasons += [f"{proof.adapter}: {reason}" for proof in proofs for reason in not_good(proof, gate)]
    quality: dict[str, Any] = {
        "gate": "passed" if all(judged.values()) else "failed",
        **questions,
        "reference": f"torch at {', '.join(sorted({proof.runs_on for proof in proofs}))}",
        "artifact": _artifact(manifest, proofs),
        "rows": max(len(proof.rows) for proof in proofs),
        "max_loss_points": gate.max_loss_points,
        "max_mean_kl": gate.max_mean_kl,
        "min_score": gate.min_score,
        "min_gain": gate.min_gain,
    }
    if reasons:
        quality |= {"reasons": reasons}
    strict: dict[str, Any] = without_nan(quality)
    return strict


def _artifact(manifest: Manifest, proofs: Sequence[Proof]) -> str:
    """The engine that was asked, with what."""
    cache = manifest.base.kv_cache
    with_cache = f" with a KV cache of {cache}" if cache else ""
    return f"{manifest.engine} at {', '.join(sorted({proof.quantization for proof in proofs}))}{with_cache}"


def _least(figures: Sequence[float]) -> float:
    """The smallest; NaN when one is, which Python's own min forgets."""
    return float(np.min(figures))


def _most(figures: Sequence[float]) -> float:
    return float(np.max(figures))


def _refusal(proofs: Sequence[Proof], gate: Gate, report: Path, kv_cache: str | None) -> Refused:
    """Loss first: a wider type, of weights or of the KV cache, may mend that, and what it mends may be good enough."""
    lost = [proof for proof in proofs if unfaithful(proof, gate)]
    kind, what = (
        (Refused, "the exported files answer worse than the trained model")
        if lost
        else (NotGood, "the adapter is not good enough")
    )
    first = (lost or [proof for proof in proofs if not_good(proof, gate)])[0]
    found = [f"{proof.adapter}: {reason}" for proof in proofs for reason in unfaithful(proof, gate)]
    found += [f"{proof.adapter}: {reason}" for proof in proofs for reason in not_good(proof, gate)]
    wider = f"export with --kv-cache {F16}, or " if kv_cache and lost else ""
    hint = f"{wider}{remedy(first, gate)}"
    return kind(f"{what}: {'; '.join(found)} (report: {report / 'report.html'})", hint, found)
