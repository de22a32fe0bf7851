"""Whether a proof is good enough to ship: three questions, and no figure that is no number answers one with yes."""

from __future__ import annotations

import math

from edgekit.project import ONNX_PRECISIONS, Gate
from edgekit.proof.alive import Change
from edgekit.proof.compare import Proof
from edgekit.proof.pairs import least_visible
from edgekit.proof.words import between, figure
from edgekit_exporters.onnx.base import PRECISIONS as ONNX_EXPORTS

DEAD_REACH = 0.1  # of a merged adapter's change: less has certainly not arrived
ACCEPT = "or ship it with --accept-loss REASON"


def at_most(value: float, limit: float) -> bool:
    """Whether a figure is a number, and no larger than the limit."""
    return math.isfinite(value) and value <= limit


def at_least(value: float, limit: float) -> bool:
    """Whether a figure is a number, and no smaller than the limit."""
    return math.isfinite(value) and value >= limit


def dead(proof: Proof) -> str | None:
    """Where the adapter changes nothing: "in torch", "on the device engine", or None where it is alive in both.

    A merged one is held against torch's base, which differs from the device's by its quantisation too.  It is dead when
    its change has certainly not arrived and nothing as large has come in its place: what is broken is unfaithful.
    """
    if not Change(proof.torch_change, proof.torch_largest).alive:
        return "in torch"
    if not Change(proof.device_change, proof.device_largest).alive:
        return "on the device engine"
    arrived = not at_most(proof.reach_interval[1], DEAD_REACH) or not at_most(proof.device_change, proof.torch_change)
    if proof.merged and not arrived:
        return "on the device engine"
    return None


def unfaithful(proof: Proof, gate: Gate) -> list[str]:
    """Why these files don't answer as the trained model does; empty when they do.

    A loss counts when it exceeds ``gate.max_loss_points`` even at the favourable end of its 95 % interval, so that
    noise alone does not refuse; the KL divergence sees what the score of a few rows can't.
    """
    reasons = []
    if proof.other_prompts:
        reasons.append(
            f"{proof.other_prompts} of {len(proof.rows)} prompts become other tokens on the device than in training"
        )
    if not at_most(proof.loss_interval[0], gate.max_loss_points):
        reasons.append(
            f"it loses {figure(proof.loss, '.1f')} points of {proof.metric} ({between(proof.loss_interval, '.1f')}), "
            f"allowed: {gate.max_loss_points:g}"
        )
    if not (at_least(proof.mean_kl, 0.0) and at_most(proof.mean_kl, gate.max_mean_kl)):
        reasons.append(f"its mean KL is {figure(proof.mean_kl, '.3f')} nats, allowed: {gate.max_mean_kl:g}")
    if proof.merged and not at_least(proof.reach_interval[0], DEAD_REACH):
        share = between([100 * end for end in proof.reach_interval], ".0f")
        reasons.append(f"of its change of the base {share} % arrives on the device")
    return reasons


def not_good(proof: Proof, gate: Gate) -> list[str]:
    """Why the adapter is not good enough; empty when it is."""
    reasons = []
    score = figure(proof.device_score, ".1f")
    if gate.min_score is not None and not at_least(proof.device_score, gate.min_score):
        reasons.append(f"it scores {score} of 100 on the device ({proof.metric}), {gate.min_score:g} are asked")
    low = proof.gain_interval[0]
    enough = at_least(low, gate.min_gain) if gate.min_gain is not None else at_least(low, 0.0) and low > 0
    if not enough:
        asked = f"{gate.min_gain:g} or more are asked" if gate.min_gain is not None else "which may be chance"
        reasons.append(
            f"on the device it scores {score} of 100 and the bare base {figure(proof.base_score, '.1f')}: a gain of "
            f"{figure(proof.gain, '+.1f')} points ({between(proof.gain_interval, '+.1f')}), {asked}"
        )
    return reasons


def refusals(proof: Proof, gate: Gate) -> list[str]:
    """Why these files must not ship; empty when they may.  A dead adapter is none of these: nobody can accept it."""
    return unfaithful(proof, gate) + not_good(proof, gate)


def least_loss(proof: Proof, gate: Gate) -> float:
    """The smallest loss, in points, that these rows could have shown: the gate passes a smaller one as noise."""
    return least_visible(proof.losses, gate.max_loss_points)


def least_gain(proof: Proof) -> float:
    """The smallest gain over the base, in points, that these rows could have shown."""
    return least_visible(proof.gains)


def remedy(proof: Proof, gate: Gate) -> str:
    """What helps against the first of the refusals."""
    return _more_faithful(proof) if unfaithful(proof, gate) else _better(proof, gate)


def _more_faithful(proof: Proof) -> str:
    """Against a loss that quantisation or a mismatch has caused."""
    if proof.other_prompts:
        return "the bundle's tokenizer or chat template is not the base's: export from the base that was trained on"
    onnx = proof.quantization in ONNX_EXPORTS
    wider = f"export with --quantize {'int8' if onnx else 'Q8_0'}"
    if proof.runs_on == proof.quantization:
        return f"{wider}, train longer, {ACCEPT}"
    if onnx:
        precision = next((key for key, value in ONNX_PRECISIONS.items() if value == proof.quantization), "fp32")
        return f"train with base_precision: {precision}, {wider}, {ACCEPT}"
    return (
        f"train with base_precision: gguf and export.quantize: {proof.quantization}, {wider}, use --imatrix, {ACCEPT}"
    )


def _better(proof: Proof, gate: Gate) -> str:
    """Against an adapter that has learned too little."""
    helps = "train longer (epochs, max_steps) or on more rows, check that rows and system prompt are right"
    if proof.gain > 0 and gate.min_gain is None:
        helps = f"ask more evaluation rows (gate.rows): these {len(proof.rows)} show a gain from "
        helps += f"{least_gain(proof):.1f} points on; train longer (epochs, max_steps) or on more rows"
    return f"{helps}, say with gate.min_gain what is enough, {ACCEPT}"
