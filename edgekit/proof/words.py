"""A proof in plain words, for the screen, the reports and the demo: the verdict, the three questions, the limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.proof.pairs import FEWEST_ROWS
from edgekit_exporters.requantized import requantized_note

MORE = "docs/fidelity.md, “The proof”"
METRICS = {
    "field_accuracy": "field_accuracy, the share of JSON fields that are right",
    "tool_accuracy": "tool_accuracy, the share of rows whose calls are right; where no call is due, the words count",
    "token_f1": "token_f1, how far the words are those of the expected answer",
}
QUESTIONS = {
    "alive": "Does the adapter change what its base says, in torch and on the device engine?",
    "faithful": "Does the device engine answer as the trained model does?",
    "good": "Does the adapter score enough more on the device engine than its bare base?",
}


def verdict(quality: Mapping[str, Any]) -> str:
    """In one word or two: passed, refused, or shipped although it failed."""
    if quality["gate"] == "passed":
        return "passed"
    return "accepted" if quality.get("accepted") else "refused"


def sentence(quality: Mapping[str, Any], origin: Mapping[str, Any], figures: Mapping[str, Mapping[str, Any]]) -> str:
    """What is proven, in one sentence: adapters, base, engine and quantisation, the verdict and why.

    Args:
        quality: ``quality`` of a manifest.
        origin: as in report.json.
        figures: ``quality`` of each adapter's entry in a manifest.
    """
    several = len(figures) > 1
    merged = "merged into" if origin["base"]["merged"] else "on"
    named = listed([_called(name, origin) for name in figures])
    what = f"The adapter{'s' if several else ''} {named} {merged} base {origin['base']['name']}, "
    what += f"exported for {quality['artifact']}{_made_of(origin)}, "
    if verdict(quality) == "passed":
        good = "scores more than the bare base" if quality["min_gain"] is None else "is as good as the gate asks"
        each = "each" if several else "it"
        does = f"{each} changes its base, answers as the trained model does, and {good}"
        return f"{what}passed: on the device engine {does}."
    why = [f"{name} {listed(failed)}" for name, entry in figures.items() if (failed := _failed(entry, quality))]
    if not several:
        why = [f"it {listed(_failed(next(iter(figures.values())), quality))}"]
    said = "failed the proof and ships all the same" if quality.get("accepted") else f"{_were(several)} refused"
    return f"{what}{said}: {'; '.join(why)}."


def _called(name: str, origin: Mapping[str, Any]) -> str:
    """An adapter, or a stack with its adapters."""
    scales = origin.get("stacks", {}).get(name)
    return name if scales is None else f"{name} ({' + '.join(f'{scale:g} × {part}' for part, scale in scales.items())})"


def _made_of(origin: Mapping[str, Any]) -> str:
    """What the reader has to know of the base's blocks: they were trained, or made from others."""
    base, notes = origin["base"], []
    if origin.get("digests", {}).get("folded"):
        notes.append("the blocks that hold it are, to the bit, those that its training ended with")
    if source := base.get("requantized_from"):
        notes.append(requantized_note(base["quantization"], source))
    return f" ({'; '.join(notes)})" if notes else ""


def _were(several: bool) -> str:
    return "were" if several else "was"


def _failed(figures: Mapping[str, Any], quality: Mapping[str, Any]) -> list[str]:
    said = {
        "alive": "changes nothing",
        "faithful": "does not answer on the device as it was trained to",
        "good": "does not score more than the bare base beyond chance"
        if quality["min_gain"] is None
        else "is not as good as the gate asks",
    }
    return [words for question, words in said.items() if not figures[question]]


def listed(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def points(count: float) -> str:
    """``1 point``, ``2.5 points``."""
    return f"{count:g} point{'' if count == 1 else 's'}"


def asked_gain(quality: Mapping[str, Any]) -> str:
    """The least gain, at the low end of its interval."""
    least = quality["min_gain"]
    return "more than zero" if least is None else f"{points(least)} or more"


def headline(quality: Mapping[str, Any]) -> str:
    """The verdict, never without the share of rows that are exactly right.

    Args:
        quality: ``quality`` of a manifest.
    """
    if quality["gate"] == "skipped":
        return "skipped"
    exact = figure(quality["good"]["exact"], ".0f")
    failed = [question for question in QUESTIONS if not quality[question]["passed"]]
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
    good = (
        f"{value('device_score')} against {value('base_score')} of the bare base, a gain of {value('gain', '+.1f')} "
        f"points ({between(figures['gain_interval'], '+.1f')}); "
        f"{value('device_exact', '.0f')} % of the rows exactly right"
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
        return figure(self._figures[name], form)


def figure(value: float | None, form: str) -> str:
    """A number as text; "no number" for None, NaN and infinities."""
    return "no number" if value is None or not math.isfinite(value) else format(value, form)


def between(ends: Sequence[float | None], form: str) -> str:
    """An interval: ``5.0 to 17.5``."""
    low, high = (figure(end, form) for end in ends)
    return f"{low} to {high}"


def spread(value: float, ends: Sequence[float]) -> str:
    """Points with their interval, which stays in one line."""
    interval = between(ends, "+.1f").replace(" ", "\N{NO-BREAK SPACE}")
    return f"{figure(value, '+.1f')} points ({interval})"


def of_unseen(choices: Mapping[str, Any]) -> str:
    """What a proof found of requests for auto, in a sentence."""
    right, unseen = choices["right"], choices["unseen"]
    return (
        f"{right:.1f} % of evaluation rows go to their adapter, as the mean over adapters.  Of {unseen['rows']} other"
        f" texts, of kinds that were not trained on, {unseen['fallback']:.1f} % go to the fallback."
    )
