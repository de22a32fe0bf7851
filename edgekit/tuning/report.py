"""What a search has tried and found: a table, trials.json and a plot."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from edgekit.tuning.search import PROBLEM, SETTINGS, Finalist, Found
from edgekit.tuning.space import RATE
from edgekit_runtime.bench.report import aligned
from edgekit_runtime.files.atomic import write_whole
from edgekit_runtime.files.strict_json import strict_json

SEARCH_SCHEMA = "edgekit.search/1"
TRIALS_FILE, PLOT_FILE = "trials.json", "trials.png"
_ENDED = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "ended early", TrialState.FAIL: "failed"}


def as_document(found: Found) -> dict[str, Any]:
    """The JSON document of a search: all trials, the finalists, and which one is the best."""
    return {
        "schema": SEARCH_SCHEMA,
        "trials": [_trial(trial) for trial in found.trials if trial.state.is_finished()],
        "finalists": [_finalist(each) for each in found.finalists],
        "best": _finalist(found.best),
    }


def save(found: Found, folder: Path, own_rate: float) -> None:
    """Write trials.json and the plot; raises InputError where they can't be written."""
    write_whole(folder / TRIALS_FILE, (strict_json(as_document(found), indent=2) + "\n").encode())
    plot_trials(found, own_rate, folder / PLOT_FILE)


def table(found: Found, keys: list[str]) -> str:
    """The finalists, best first; the chosen one has a mark."""
    rows = [["", "trial", "score", "exact", "loss", "parameters", *keys]]
    for each in found.finalists:
        settings = [_short(each.settings.get(key, "as it was")) for key in keys]
        score = [f"{100 * each.score.value:.1f}", f"{100 * each.score.exact:.1f}", f"{each.loss:.4f}"]
        mark = "→" if each is found.best else ""
        rows.append([mark, str(each.number + 1), *score, f"{each.parameters:,}", *settings])
    return "\n".join(aligned(rows))


def plot_trials(found: Found, own_rate: float, path: Path) -> None:
    """Draw evaluation losses over the course of each trial, and over learning rates, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained", dpi=120)
    course, rates = figure.subplots(1, 2)
    for trial in found.trials:
        seen = sorted(trial.intermediate_values.items())
        if not seen:
            continue
        finished = trial.state == TrialState.COMPLETE
        label = f"trial {trial.number + 1}" if trial.number == found.best.number else None
        course.plot(
            *zip(*seen, strict=True), marker=".", lw=2 if label else 0.8, alpha=1 if finished else 0.4, label=label
        )
        rate = trial.user_attrs.get(SETTINGS, {}).get(RATE, own_rate)
        rates.plot(rate, seen[-1][1], "o" if finished else "x", color="C0" if finished else "0.6")
    course.set(xlabel="evaluation", ylabel="evaluation loss (nats per answer token)", title="course of the trials")
    rates.set(xlabel="learning rate", xscale="log", title="last loss (×: ended early)")
    for axes in (course, rates):
        axes.grid(alpha=0.3)
    if course.get_legend_handles_labels()[0]:
        course.legend()
    figure.savefig(path)


def _trial(trial: FrozenTrial) -> dict[str, Any]:
    return {
        "trial": trial.number + 1,
        "ended": _ENDED[trial.state],
        "settings": trial.user_attrs.get(SETTINGS, {}),
        "losses": [loss for _, loss in sorted(trial.intermediate_values.items()) if math.isfinite(loss)],
        "loss": trial.values[0] if trial.state == TrialState.COMPLETE else None,
        "seconds": None if trial.duration is None else round(trial.duration.total_seconds(), 1),
        "problem": trial.user_attrs.get(PROBLEM),
    }


def _finalist(each: Finalist) -> dict[str, Any]:
    return {
        "trial": each.number + 1,
        "settings": each.settings,
        "loss": each.loss,
        "parameters": each.parameters,
        "score": each.score.value,
        "exact": each.score.exact,
        "rows": each.score.rows,
    }


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
