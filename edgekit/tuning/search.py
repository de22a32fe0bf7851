"""The search: a training for each trial, bad ones ended early, the best ones scored on what devices run."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from edgekit.bases.resolve import project_base
from edgekit.bases.weights import GGUF, training_weights, with_blocks
from edgekit.data import data_digest, load_rows
from edgekit.evaluation.evaluate import evaluate
from edgekit.evaluation.scoring import Score
from edgekit.project import Project, with_settings
from edgekit.project.run_record import read_record
from edgekit.training.record import final_losses
from edgekit.training.run import train
from edgekit.tuning.space import RATE, Space
from edgekit.tuning.study import RATE_ALONE, RUNGS, again, mark, open_study, study_folder
from edgekit_exporters.peft.files import find_adapter
from edgekit_runtime.errors import EdgekitError, InputError

log = logging.getLogger(__name__)

FINALISTS = 3
WITHIN = 1.0  # points of the score (0-100) that a smaller adapter may be worse
SETTINGS, SECONDS, PROBLEM = "settings", "seconds", "problem"  # what is kept of a trial


@dataclass(frozen=True)
class Finalist:
    """A trial whose adapter was scored.

    Attributes:
        number: of the trial.
        settings: what it had beside the project file; empty for the adapter's own settings.
        loss: evaluation loss, nats per answer token.
        parameters: of the adapter.
        score: of its greedy answers to evaluation rows, on the device's engine where it runs the blocks trained on.
        folder: the trained adapter.
    """

    number: int
    settings: dict[str, Any]
    loss: float
    parameters: int
    score: Score
    folder: Path


@dataclass(frozen=True)
class Found:
    """What a search has come to: its trials, the finalists, best first, and whether their size was weighed."""

    trials: Sequence[FrozenTrial]
    finalists: Sequence[Finalist]
    weighs_size: bool

    @property
    def best(self) -> Finalist:
        """The finalist of the best score; where size is weighed, the smallest within a point of that."""
        first = self.finalists[0]
        if not self.weighs_size:
            return first
        near = [each for each in self.finalists if 100 * (first.score.value - each.score.value) <= WITHIN]
        return min(near, key=lambda each: each.parameters)


def search(
    project: Project,
    space: Space,
    *,
    trials: int,
    seconds: float | None = None,
    resume: bool = False,
    weighs_size: bool = False,
    rows: int | None = None,
) -> Found:
    """Search better settings for ``space``'s adapter.

    The first trials try learning rates, the adapter's own settings first; the others draw all that is searched.  Where
    only the loss counts, trials that fall behind are ended early (ASHA: Li et al. 2020, arXiv 1810.05934).

    Args:
        project: a loaded project file.
        space: what is searched.
        trials: how many trials the study shall have, those of earlier and other processes included.
        seconds: begin no trial after so long.
        resume: go on with the study in the project; several processes can.
        weighs_size: search for the smallest adapter of a good score.
        rows: most evaluation rows to score the finalists on.

    Raises:
        InputError: bad data or base; nothing to resume; no trial came to its end.
        UsageError: settings that don't fit together.
        KeyboardInterrupt: after Ctrl-C; finished trials are kept, and the one under way begins anew with ``resume``.
    """
    work = _Work(project, space, weighs_size)
    study = open_study(
        project, space.adapter.name, work.recipe(), resume=resume, weighs_size=weighs_size, seed=space.adapter.seed
    )
    if not study.get_trials(deepcopy=False):
        for rate in space.first_rates:
            study.enqueue_trial({RATE: rate}, {RATE_ALONE: True})
        if not space.first_rates:
            study.enqueue_trial(space.own())
    begun = time.monotonic()
    while work.count(study) < trials and (seconds is None or time.monotonic() - begun < seconds):
        work.attempt(study, trials)
    finalists = work.finals(study, rows)
    return Found(study.get_trials(deepcopy=False), finalists, weighs_size)


class _Work:
    """What one process does for a study."""

    def __init__(self, project: Project, space: Space, weighs_size: bool) -> None:
        self.project, self.space, self.weighs_size = project, space, weighs_size
        self.name = space.adapter.name
        self.folder = study_folder(project, self.name)
        files = project.data_for(self.name)
        self.data = data_digest([files.train, files.eval])
        self.rows = len(load_rows(files.train))

    def recipe(self) -> dict[str, Any]:
        base = project_base(self.project)
        weights = training_weights(self.space.adapter, self.project.export, base.gguf)
        return {
            "base": base.family,
            "weights": weights.label,
            "data": self.data,
            "adapter": replace(self.space.adapter, data=None),
            "searched": self.space.searched,
            "weighs_size": self.weighs_size,
        }

    def count(self, study: optuna.Study) -> int:
        """Trials that have ended or are under way; failed ones don't count."""
        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        return len(study.get_trials(deepcopy=False, states=states))

    def attempt(self, study: optuna.Study, trials: int) -> None:
        """One trial."""
        trial = study.ask()
        mark(trial)
        alone = trial.user_attrs.get(RATE_ALONE, False)
        settings = self.space.draw(trial, None if alone else self._best_rate(study))
        trial.set_user_attr(SETTINGS, settings)
        folder, begun = self.folder / "trials" / str(trial.number), time.monotonic()
        told = ", ".join(f"{key} {value}" for key, value in settings.items())
        log.info("%s: trial %d of %d, %s", self.name, trial.number + 1, trials, told)
        try:
            loss = self._trained(trial, settings, folder)
        except optuna.TrialPruned:
            study.tell(trial, state=TrialState.PRUNED)
        except KeyboardInterrupt:
            study.tell(trial, state=TrialState.FAIL)
            again(study, trial)
            raise KeyboardInterrupt(f"in trial {trial.number + 1}; go on with --resume") from None
        except (EdgekitError, RuntimeError) as error:
            trial.set_user_attr(PROBLEM, str(error).splitlines()[0])
            study.tell(trial, state=TrialState.FAIL)
            if trial.number == 0 or not isinstance(error, RuntimeError):
                raise  # with the adapter's own settings it wouldn't train either
            log.warning("%s: trial %d failed (%s)", self.name, trial.number + 1, str(error).splitlines()[0])
        else:
            trial.set_user_attr(SECONDS, round(time.monotonic() - begun, 1))
            size = _parameters(folder)
            study.tell(trial, [loss, size] if self.weighs_size else loss)
            log.info("%s: trial %d has an evaluation loss of %.4f", self.name, trial.number + 1, loss)
        finally:
            shutil.rmtree(folder.with_name(f".{folder.name}.train"), ignore_errors=True)
        self._keep_best(study)

    def _trained(self, trial: optuna.Trial, settings: dict[str, Any], folder: Path) -> float:
        """Train, and return the evaluation loss of what is kept."""
        count = 0

        def told(step: int, loss: float) -> None:
            nonlocal count
            count += 1
            if not math.isfinite(loss):
                raise optuna.TrialPruned
            if not self.weighs_size:
                trial.report(loss, count)
                if trial.should_prune():
                    raise optuna.TrialPruned

        fidelity = {"eval_steps": self._eval_steps(settings)}
        train(self.project, self.name, settings=settings | fidelity, output=folder, on_evaluation=told)
        record = read_record(folder)
        assert record is not None  # training has just written it
        loss = final_losses(record["losses"], record["kept_step"]).get("eval_loss", math.nan)
        if not math.isfinite(loss):
            raise optuna.TrialPruned
        return float(loss)

    def _eval_steps(self, settings: dict[str, Any]) -> int:
        adapter = with_settings(self.project, [self.name], settings).adapter(self.name)
        batch = adapter.batch_size * adapter.gradient_accumulation
        steps = adapter.max_steps or math.ceil(adapter.epochs * self.rows / batch)
        return max(1, steps // RUNGS)

    def _best_rate(self, study: optuna.Study) -> float:
        """Of the trials that have ended, that of the lowest loss."""
        ended = self._complete(study)
        best = min(ended, key=lambda trial: trial.values[0], default=None) if ended else None
        settings = {} if best is None else best.user_attrs[SETTINGS]
        return float(settings.get(RATE, self.space.adapter.highest_rate))

    def _complete(self, study: optuna.Study) -> list[FrozenTrial]:
        return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))

    def _chosen(self, study: optuna.Study) -> list[FrozenTrial]:
        """Who may be in the finals: the lowest losses, or those that nobody beats in loss and size."""
        if self.weighs_size:
            return sorted(study.best_trials, key=lambda trial: trial.values[0])[:FINALISTS]
        return sorted(self._complete(study), key=lambda trial: trial.values[0])[:FINALISTS]

    def _keep_best(self, study: optuna.Study) -> None:
        """Adapters that can't win any more go."""
        kept = {trial.number for trial in self._chosen(study)} | {0}
        for trial in self._complete(study):
            if trial.number not in kept:
                shutil.rmtree(self.folder / "trials" / str(trial.number), ignore_errors=True)

    def finals(self, study: optuna.Study, rows: int | None) -> list[Finalist]:
        """Score the best trials, and the adapter's own settings, which have to be beaten."""
        chosen = {trial.number: trial for trial in self._chosen(study)}
        chosen |= {trial.number: trial for trial in self._complete(study) if trial.number == 0}
        if not chosen:
            raise InputError("no trial came to its end", "give the search more --time or --trials, with --resume")
        device = deployed_blocks(self.project, self.name)
        scored = []
        for number, trial in chosen.items():
            folder, settings = self.folder / "trials" / str(number), dict(trial.user_attrs[SETTINGS])
            finalist = on_trial(self.project, self.name, settings, folder)
            found = evaluate(finalist, self.name, artifact=device, limit=rows, with_base=False)
            scored.append(Finalist(number, settings, trial.values[0], _parameters(folder), found.adapter_score, folder))
        return sorted(scored, key=lambda each: (-each.score.value, each.loss))


def deployed_blocks(project: Project, name: str) -> Path | None:
    """The GGUF whose blocks the adapter is trained on, for the device's engine; None for any other weights."""
    base = project_base(project)
    weights = with_blocks(project, base, training_weights(project.adapter(name), project.export, base.gguf))
    return weights.blocks if weights.format == GGUF else None


def on_trial(project: Project, name: str, settings: Mapping[str, Any], folder: Path) -> Project:
    """The project with an adapter that was trained with ``settings`` to ``folder``."""
    changed = with_settings(project, [name], settings)
    return replace(changed, adapters={**changed.adapters, name: replace(changed.adapter(name), path=folder)})


def _parameters(folder: Path) -> int:
    """Of a trained adapter."""
    from safetensors import safe_open

    with safe_open(find_adapter(folder).weights_file, "np") as tensors:
        return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
