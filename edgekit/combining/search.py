"""Weights, and the density of methods that prune, searched on evaluation rows of the parts.

Every second row is for the search; the gate asks them all later, so half of what it sees is new.
"""

from __future__ import annotations

import logging
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from edgekit.bases.resolve import loading_name, project_base
from edgekit.combining.measure import Measure
from edgekit.combining.preflight import check_combine
from edgekit.evaluation.evaluate import Questions
from edgekit.project import Adapter, Combined, Project
from edgekit.training.kept import as_trained
from edgekit.training.parts import combination, combined_pairs, common_weights, find_parts
from edgekit.tuning.study import mark, open_study
from edgekit_exporters.peft.combinations import PRUNES
from edgekit_exporters.peft.written import write_peft
from edgekit_runtime.errors import InputError

log = logging.getLogger(__name__)

LEAST_ROWS = 4  # of a part
WEIGHT_BOUNDS = (0.05, 1.5)
DENSITY_BOUNDS = (0.2, 1.0)
MEAN_SHARE = 0.1  # of the mean loss beside the worst part's: it tells apart what the worst part does not
_DENSITY = "density"


def search_weights(project: Project, name: str, *, trials: int, resume: bool = False) -> Project:
    """The project with the weights (and density) of the combination ``name`` at which its worst part loses least.

    The first trial has the settings of the project; a weight keeps its sign.

    Args:
        project: a loaded project file.
        name: a combined adapter.
        trials: combinations to try, those before an interruption included.
        resume: go on with the search in the project, ``tuning/NAME``.

    Raises:
        InputError: as :func:`~edgekit.combining.make.make_combined`, or a part without rows to search on.
    """
    adapter = check_combine(project, name, search=True)
    known, combined = as_trained(project), adapter.combined
    assert combined is not None
    base = project_base(project)
    parts = find_parts(known, combined.parts, base)
    bare = next((part.name for part in parts if not part.has_rows), None)
    if bare is not None or project.gate.rows == 0:
        raise InputError(
            f"--search needs evaluation rows of each part, and there are none of {bare or parts[0].name}",
            "name parts by adapters of the project that have data, and set gate.rows above 0",
        )
    weights = common_weights(known, adapter, parts, base)
    recipe = {
        "parts": {part.name: part.digest for part in parts},
        "signs": {part: weight > 0 for part, weight in combined.parts.items()},
        "method": [combined.method, combined.rank],
        "seed": adapter.seed,
        "weights": [weights.label, weights.digest],
        "rows": project.gate.rows,
    }
    study = open_study(project, name, recipe, resume=resume, weighs_size=False, seed=adapter.seed)
    if not study.get_trials(deepcopy=False):
        study.enqueue_trial(_as_drawn(combined), skip_if_exists=True)
    measure = Measure(known, parts, base, weights, project.gate.rows, choose=_every_second)

    def objective(trial: optuna.Trial) -> float:
        mark(trial)
        drawn = _drawn(trial, combined)
        with tempfile.TemporaryDirectory(prefix="edgekit-combine-") as scratch:
            made = combined_pairs(parts, drawn.parts, combination(drawn, adapter.seed))
            write_peft(made, base, loading_name(base), Path(scratch))
            losses = [score.loss for score in measure.scores(Path(scratch), name)]
        worst = max(losses) + MEAN_SHARE * statistics.fmean(losses)
        log.info("%s: %s loses at most %.1f points", name, _said(drawn), max(losses))
        return worst

    done = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
    if done < trials:
        study.optimize(objective, n_trials=trials - done)
    best = _drawn(study.best_trial, combined)
    log.info("%s: the best of %d trials has %s", name, max(done, trials), _said(best))
    return _changed(project, adapter, best)


def _every_second(asked: Questions) -> Questions:
    if len(asked.rows) < LEAST_ROWS:
        raise InputError(f"{len(asked.rows)} evaluation rows are too few to search on", f"use at least {LEAST_ROWS}")
    return asked._replace(rows=asked.rows[::2])


def _as_drawn(combined: Combined) -> dict[str, Any]:
    """The settings of the project as a trial, as near as its bounds let it."""
    low, high = WEIGHT_BOUNDS
    drawn: dict[str, Any] = {part: min(high, max(low, abs(weight))) for part, weight in combined.parts.items()}
    if combined.method in PRUNES:
        drawn[_density_key(combined)] = min(1.0, max(DENSITY_BOUNDS[0], combination(combined, 0).density))
    return drawn


def _drawn(trial: optuna.Trial | optuna.trial.FrozenTrial, combined: Combined) -> Combined:
    def sized(part: str, weight: float) -> float:
        found = trial.suggest_float(part, *WEIGHT_BOUNDS)
        return round(found if weight > 0 else -found, 3)

    parts: Mapping[str, float] = {part: sized(part, weight) for part, weight in combined.parts.items()}
    if combined.method not in PRUNES:
        return replace(combined, parts=parts)
    return replace(
        combined, parts=parts, density=round(trial.suggest_float(_density_key(combined), *DENSITY_BOUNDS), 3)
    )


def _density_key(combined: Combined) -> str:
    """A name that no part has."""
    return next(key for n in range(len(combined.parts) + 1) if (key := _DENSITY + "'" * n) not in combined.parts)


def _said(combined: Combined) -> str:
    weights = ", ".join(f"{part}={weight:g}" for part, weight in combined.parts.items())
    return weights if combined.density is None else f"{weights}, density {combined.density:g}"


def _changed(project: Project, adapter: Adapter, combined: Combined) -> Project:
    return replace(project, adapters={**project.adapters, adapter.name: replace(adapter, combined=combined)})
