"""The figures of a proof, each with what it means and what is asked of it: cards of the page, columns of report.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.proof.compare import Proof
from edgekit.proof.words import METRICS, asked_gain, figure, points, spread

STEPS = "base → trained → device"
ARROW = "\N{NO-BREAK SPACE}→\N{NO-BREAK SPACE}"  # figures stay in one line
DECISIVE = 5  # so many come first


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        label: its name.
        value: with its unit.
        meaning: what it says, in a line; the same of every adapter.
        limit: what the gate asks of it; empty where it asks nothing.
        detail: what is to be said of this adapter's.
    """

    label: str
    value: str
    meaning: str
    limit: str = ""
    detail: str = ""


def proof_figures(proof: Proof, quality: Mapping[str, Any], told: Mapping[str, Any]) -> list[Figure]:
    """What was measured of one adapter, what decides first.

    Args:
        proof: the adapter's.
        quality: ``quality`` of a manifest, for the limits.
        told: what a manifest says of the adapter.
    """
    score = [figure(each, ".1f") for each in (proof.base_score, proof.torch_score, proof.device_score)]
    exact = [figure(each, ".1f") for each in (proof.base_exact, proof.torch_exact, proof.device_exact)]
    least = quality["min_score"]
    return [
        Figure(
            "Score",
            ARROW.join(score),
            f"{STEPS}, of 100.",
            "" if least is None else f"Asked on the device: {least:g} or more.",
            f"Measured is {METRICS[proof.metric]}.",
        ),
        Figure(
            "Gain",
            spread(proof.gain, proof.gain_interval),
            "What the adapter adds to its bare base on the device, with the 95 % interval.",
            f"Asked at the low end: {asked_gain(quality)}.",
        ),
        Figure(
            "Loss",
            spread(proof.loss, proof.loss_interval),
            "What the export costs: trained minus device, with the 95 % interval.",
            f"Allowed at the low end: {points(quality['max_loss_points'])}.",
        ),
        Figure(
            "Mean KL",
            f"{figure(proof.mean_kl, '.4f')} nats",
            "How far the device's token probabilities are from the trained model's; 0 is no difference.",
            f"Allowed: {quality['max_mean_kl']:g}.",
            f"95 % of {proof.tokens} tokens are at or below {figure(proof.p95_kl, '.4f')}.",
        ),
        Figure("Exactly right", f"{ARROW.join(exact)} %", f"{STEPS}: rows whose whole answer is right."),
        Figure(
            "McNemar p",
            figure(proof.mcnemar_p, ".2f"),
            "How likely such a difference in exactly right rows is by chance; below 0.05 it hardly is.",
        ),
        Figure(
            "Same likeliest token",
            f"{figure(proof.top1, '.1f')} %",
            "Answer tokens that both, trained model and device, think likeliest.",
        ),
        Figure(
            "Perplexity",
            f"{_short(proof.torch_perplexity)} → {_short(proof.device_perplexity)}",
            "trained → device: how much the expected answers surprise the model; 1 is not at all.",
        ),
        _change(proof),
        Figure(
            "Prompts that differ",
            f"{proof.other_prompts} of {len(proof.rows)}",
            "Rows whose prompt becomes other tokens on the device than in training.",
            "Allowed: 0.",
        ),
        Figure(
            "Visible from",
            f"loss {figure(told['least_loss'], '.1f')}, gain {figure(told['least_gain'], '.1f')} points",
            "The smallest that so many rows can show; a smaller one passes as chance.",
        ),
    ]


def figure_table(columns: Sequence[Sequence[Figure]], adapters: Sequence[str]) -> list[list[str]]:
    """Heading and a row an adapter, as text."""
    heading = ["adapter", *(each.label for each in columns[0])]
    return [heading, *([name, *(each.value for each in row)] for name, row in zip(adapters, columns, strict=True))]


def _change(proof: Proof) -> Figure:
    value = f"{_short(proof.torch_change)} → {_short(proof.device_change)} nats"
    meaning = "trained → device: how far the adapter moves its base, per token; 0 is a dead adapter."
    arrives = f"Of this merged one's change {figure(proof.reach, '.0%')} arrives." if proof.merged else ""
    return Figure("Change of the base", value, meaning, detail=arrives)


def _short(value: float) -> str:
    return figure(value, ".3g" if value < 1000 else ".3e")
