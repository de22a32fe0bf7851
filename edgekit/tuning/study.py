"""The study of an adapter: Optuna's journal in the project, which several processes may write at once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
import psutil
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import TrialState

from edgekit.project import Project
from edgekit_runtime.errors import InputError, UsageError

log = logging.getLogger(__name__)

JOURNAL = "journal.log"
STUDY = "study"
RECIPE = "recipe"
HOST, PROCESS, RATE_ALONE = "host", "process", "rate alone"  # attributes of trials
LOSS, SIZE = "loss", "size"  # what is made small; size is the adapter's, in parameters
RUNGS = 9  # evaluations of a trial: a third of all trials goes on after the first one, a third of those after the third
REDUCTION = 3


def study_folder(project: Project, name: str) -> Path:
    """Where journal, trials and plot of an adapter lie."""
    return project.folder / "tuning" / name


def open_study(
    project: Project, name: str, recipe: Mapping[str, Any], *, resume: bool, weighs_size: bool, seed: int
) -> optuna.Study:
    """A new study of the adapter ``name``, or the one in the project.

    Args:
        project: holds the journal.
        name: of the adapter.
        recipe: what all trials of a study have in common; of other data or another base they can't be compared.
        resume: go on with the study there is, which another process may be at work on.
        weighs_size: search for small adapters too; no trial ends early then, as Optuna prunes for one goal only.
        seed: of the draws.

    Raises:
        InputError: nothing to resume, or it is a study of something else.
        UsageError: a new one, while another process is at work on the old one.
    """
    folder = study_folder(project, name)
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True, default=str).encode()).hexdigest()
    exists = (folder / JOURNAL).exists()
    if resume and not exists:
        raise InputError(f"there is no search in {folder}", "start without --resume")
    if exists and not resume:
        _check_nobody_works(_loaded(folder, seed))
        log.warning("starting over; the search in %s is dropped", folder)
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    study = _loaded(folder, seed, weighs_size=weighs_size)
    known = study.user_attrs.get(RECIPE)
    if known is None:
        study.set_user_attr(RECIPE, digest)
    elif known != digest:
        raise InputError(
            "settings, data or what is searched have changed since that search began",
            "start without --resume, or put them back (a search that ends writes to edgekit.yaml without --no-write)",
        )
    _fail_abandoned(study)
    return study


def _loaded(folder: Path, seed: int, *, weighs_size: bool | None = None) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with _quiet():
        storage = JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
        common: dict[str, Any] = {
            "study_name": STUDY,
            "storage": storage,
            "sampler": optuna.samplers.TPESampler(multivariate=True, group=True, n_startup_trials=4, seed=seed),
            "pruner": optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION),
        }
        if weighs_size is None:
            return optuna.load_study(**common)
        goals = [StudyDirection.MINIMIZE] * (2 if weighs_size else 1)
        return optuna.create_study(directions=goals, load_if_exists=True, **common)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's words on what it still calls experimental; versions are pinned."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def mark(trial: optuna.Trial) -> None:
    """Note who works on a trial."""
    trial.set_user_attr(HOST, socket.gethostname())
    trial.set_user_attr(PROCESS, os.getpid())


def again(study: optuna.Study, trial: optuna.Trial | optuna.trial.FrozenTrial) -> None:
    """Try once more what a trial that failed had drawn."""
    study.enqueue_trial(trial.params, {RATE_ALONE: trial.user_attrs.get(RATE_ALONE, False)})


def _is_abandoned(trial: optuna.trial.FrozenTrial) -> bool:
    here = trial.user_attrs.get(HOST) == socket.gethostname()
    return here and not psutil.pid_exists(int(trial.user_attrs.get(PROCESS, -1)))


def _running(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def _check_nobody_works(study: optuna.Study) -> None:
    for trial in _running(study):
        if trial.user_attrs.get(PROCESS) is not None and not _is_abandoned(trial):
            raise UsageError(
                f"process {trial.user_attrs[PROCESS]} on {trial.user_attrs.get(HOST)} is at work on this search",
                "--resume joins it",
            )


def _fail_abandoned(study: optuna.Study) -> None:
    """Trials of processes that were killed begin anew."""
    for trial in _running(study):
        if _is_abandoned(trial):
            study.tell(trial.number, state=TrialState.FAIL)
            again(study, trial)
