"""A proof in plain words, for the screen, the report and the demo: the three questions, and what the rows can show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit.proof.pairs import FEWEST_ROWS


def headline(quality: Mapping[str, Any]) -> str:
    """The verdict, never without the share of rows that are exactly right.

    Args:
        quality: ``quality`` of a manifest.
    """
    if quality["gate"] == "skipped":
        return "skipped"
    exact = _figure(quality["good"]["exact"], ".0f")
    failed = [question for question in ("alive", "faithful", "good") if not quality[question]["passed"]]
    why = f" (not {', not '.join(failed)})" if failed else " (alive, faithful, good)"
    return f"{quality['gate']}{why}, {exact} % of the rows exactly right"


def proof_lines(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Each question with its answer, and what so many rows can show.

    Args:
        figures: ``quality`` of an adapter's entry in a manifest.
    """
    value = _Figures(figures)
    alive = f"it moves its base by {value('torch_change', '.4g')} nats per token in torch, "
    alive += (
        f"the merged file by {value('device_change', '.4g')}, and {value('reach', '.0%')} of the change arrives"
        if figures["merged"]
        else f"{value('device_change', '.4g')} on the device"
    )
    faithful = (
        f"{value('torch_score')} in torch, {value('device_score')} on the device engine, of 100 ({figures['metric']}, "
        f"{figures['rows']} rows), mean KL {value('mean_kl', '.4f')}"
    )
    low, high = (_figure(end, "+.1f") for end in figures["gain_interval"])
    good = (
        f"{value('device_score')} against {value('base_score')} of the bare base, a gain of {value('gain', '+.1f')} "
        f"points ({low} to {high}); {value('device_exact', '.0f')} % of the rows exactly right"
    )
    return [
        ("alive", _answer(figures["alive"], alive)),
        ("faithful", _answer(figures["faithful"], faithful)),
        ("good", _answer(figures["good"], good)),
        ("rows", _rows(figures)),
    ]


def _rows(figures: Mapping[str, Any]) -> str:
    value = _Figures(figures)
    count = figures["rows"]
    said = (
        f"{count} {'row' if count == 1 else 'rows'} can show a loss from {value('least_loss')} points on, and a gain "
        f"from {value('least_gain')} on; a smaller one passes as chance"
    )
    if count < FEWEST_ROWS:
        said += f".  That is too few to tell: ask {FEWEST_ROWS} or more, 48 say (gate.rows, data.eval)"
    return said


def _answer(yes: bool, said: str) -> str:
    return f"{'yes' if yes else 'no'}: {said}"


class _Figures:
    """Figures of a manifest by name, as text; what is no number there is null."""

    def __init__(self, figures: Mapping[str, Any]) -> None:
        self._figures = figures

    def __call__(self, name: str, form: str = ".1f") -> str:
        return _figure(self._figures[name], form)


def _figure(value: float | None, form: str) -> str:
    return "no number" if value is None else format(value, form)
