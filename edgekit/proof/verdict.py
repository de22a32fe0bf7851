"""Whether a proof is good enough to ship."""

from __future__ import annotations

from edgekit.project import ONNX_PRECISIONS, Gate
from edgekit.proof.compare import Proof
from edgekit_exporters.onnx_base import PRECISIONS as ONNX_EXPORTS


def refusals(proof: Proof, gate: Gate) -> list[str]:
    """Why these files must not ship; empty when they may.

    A loss counts when it exceeds ``gate.max_loss_points`` even at the favourable end of its 95 % interval, so that
    noise alone does not refuse; the KL divergence sees what the score of a few rows can't.
    """
    reasons = []
    if proof.other_prompts:
        reasons.append(
            f"{proof.other_prompts} of {len(proof.rows)} prompts become other tokens on the device than in training"
        )
    if proof.loss_interval[0] > gate.max_loss_points:
        low, high = proof.loss_interval
        reasons.append(
            f"it loses {proof.loss:.1f} points of {proof.metric} ({low:.1f} to {high:.1f}), "
            f"{gate.max_loss_points:g} are allowed"
        )
    if not proof.mean_kl <= gate.max_mean_kl:  # a NaN is refused as well
        reasons.append(f"its mean KL is {proof.mean_kl:.3f} nats, {gate.max_mean_kl:g} are allowed")
    return reasons


def remedy(proof: Proof) -> str:
    """What helps against a loss that quantisation or a mismatch has caused."""
    if proof.other_prompts:
        return "the bundle's tokenizer or chat template is not the base's: export from the base that was trained on"
    onnx = proof.quantization in ONNX_EXPORTS
    wider = f"export with --quantize {'int8' if onnx else 'Q8_0'}"
    accepted = "or ship it with --accept-loss REASON"
    if proof.runs_on == proof.quantization:
        return f"{wider}, train longer, {accepted}"
    if onnx:
        precision = next((key for key, value in ONNX_PRECISIONS.items() if value == proof.quantization), "fp32")
        return f"train with base_precision: {precision}, {wider}, {accepted}"
    return (
        f"train with base_precision: gguf and export.quantize: {proof.quantization}, {wider}, use --imatrix, {accepted}"
    )
