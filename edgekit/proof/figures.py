"""The figures of a proof, each with what it means and what is asked of it: cards of the page, columns of report.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.evaluation.calls import SHARES
from edgekit.proof.compare import Proof
from edgekit.proof.words import METRICS, asked_gain, figure, points, spread

STEPS = "base → trained → device"
ARROW = "\N{NO-BREAK SPACE}→\N{NO-BREAK SPACE}"  # figures stay in one line
EXACT = "Exactly right"  # the last of those that decide


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
        *_calls(proof),
        Figure(EXACT, f"{ARROW.join(exact)} %", f"{STEPS}: rows whose whole answer is right."),
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


CALLS = {
    "whole": "rows whose calls are right as a whole: names, arguments, number and order.",
    "names": "rows whose calls have the right names, in number and order.",
    "arguments": "rows whose calls have the right arguments, by value.",
    "parsable": "answers that are a text, or calls that can be read.",
    "false_calls": "rows that shall not call, and do.",
    "text": "the words of rows that shall not call, as in the expected text.",
}


def _calls(proof: Proof) -> list[Figure]:
    """What of the calls is right, where rows call tools."""
    sides = [proof.calls[side] for side in ("base", "torch", "device") if side in proof.calls]
    asked = {name: [side[name] for side in sides] for name in CALLS if sides}
    return [
        Figure(
            SHARES[name][:1].upper() + SHARES[name][1:],
            f"{ARROW.join(figure(each, '.1f') for each in values)} %",
            f"{STEPS}: {CALLS[name]}",
        )
        for name, values in asked.items()
        if None not in values  # no row is of that kind
    ]


def decisive(figures: Sequence[Figure]) -> int:
    """How many of the first figures are to be seen at once."""
    return [each.label for each in figures].index(EXACT) + 1


def figure_table(columns: Sequence[Sequence[Figure]], adapters: Sequence[str]) -> list[list[str]]:
    """Heading and a row an adapter, as text; adapters whose rows call tools have more figures than others."""
    known = meanings(columns)
    rows = [{each.label: each.value for each in row} for row in columns]
    cells = [[name, *(row.get(label, "") for label in known)] for name, row in zip(adapters, rows, strict=True)]
    return [["adapter", *known], *cells]


def parts_table(combined: Mapping[str, Any]) -> list[list[str]]:
    """Heading and a row for each part of a combination, as text: its own task before and after, by its run.json."""
    rows = [["part", "weight", "rows", "alone", "combined", "loss (95 % interval)"]]
    for part in combined["parts"]:
        if "loss" not in part:
            rows.append([part["name"], f"{part['weight']:g}", "0", "", "", "not measured"])
            continue
        low, high = (float("nan") if end is None else end for end in part["loss_interval"])
        scores = [figure(part["before"], ".1f"), figure(part["after"], ".1f"), spread(part["loss"], (low, high))]
        rows.append([part["name"], f"{part['weight']:g}", str(part["rows"]), *scores])
    return rows


def meanings(columns: Sequence[Sequence[Figure]]) -> dict[str, Figure]:
    """Each figure that one of the adapters has, by its label."""
    return {each.label: each for row in sorted(columns, key=len, reverse=True) for each in row}


def _change(proof: Proof) -> Figure:
    value = f"{_short(proof.torch_change)} → {_short(proof.device_change)} nats"
    meaning = "trained → device: how far the adapter moves its base, per token; 0 is a dead adapter."
    arrives = f"Of this merged one's change {figure(proof.reach, '.0%')} arrives." if proof.merged else ""
    return Figure("Change of the base", value, meaning, detail=arrives)


def _short(value: float) -> str:
    return figure(value, ".3g" if value < 1000 else ".3e")
