"""A search on a model of random weights: what it tries, keeps, goes on with and takes over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from edgekit.project import Project, load_project
from edgekit.project.run_record import read_record
from edgekit.tuning import search as searching
from edgekit.tuning import study as studies
from edgekit.tuning.apply import apply, write_settings
from edgekit.tuning.report import as_document, save, table
from edgekit.tuning.search import Found, search
from edgekit.tuning.space import space_of
from edgekit_runtime.errors import InputError, UsageError

pytestmark = pytest.mark.usefixtures("one_thread")
MakeProject = Callable[..., Path]
SEARCHED = ["learning_rate", "rank"]


@pytest.fixture
def project(tiny_project: MakeProject) -> Project:
    return load_project(
        tiny_project(max_steps=9, learning_rate=1e-5, base_precision="gguf", export={"quantize": "Q8_0"})
    )


def searched(project: Project, *keys: str, **options: Any) -> Found:
    return search(project, space_of(project.adapter("small"), keys or SEARCHED), **options)


def test_a_search_beats_settings_that_are_too_careful_and_writes_what_it_found(
    project: Project, tmp_path: Path
) -> None:
    found = searched(project, trials=6)
    losses = {trial.number: trial.values[0] for trial in found.trials if trial.state == TrialState.COMPLETE}
    assert len(found.trials) == 6
    assert min(losses.values()) < losses[0]
    assert any(trial.state == TrialState.PRUNED for trial in found.trials)
    assert {0} < {each.number for each in found.finalists}
    assert found.best.score.rows == 4
    assert all(each.folder.exists() for each in found.finalists)
    kept = sorted(path.name for path in (project.folder / "tuning/small/trials").iterdir())
    assert kept == sorted(str(each.number) for each in found.finalists)
    save(found, tmp_path, 1e-5)
    assert json.loads((tmp_path / "trials.json").read_text())["best"] == as_document(found)["best"]
    assert (tmp_path / "trials.png").read_bytes().startswith(b"\x89PNG")
    assert "→" in table(found, SEARCHED)
    changed = apply(project, "small", found)
    after = load_project(project.folder)
    assert changed == bool(found.best.settings)
    for key, value in found.best.settings.items():
        assert getattr(after.adapter("small"), key) == value
    record = read_record(project.folder / "adapters/small")
    assert record is not None
    assert record["settings"].items() >= found.best.settings.items()


def test_a_search_goes_on_where_it_was_stopped(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    train, calls = searching.train, []

    def interrupted(*arguments: Any, **options: Any) -> Path:
        calls.append(options["settings"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train(*arguments, **options)

    monkeypatch.setattr(searching, "train", interrupted)
    with pytest.raises(KeyboardInterrupt, match="trial 2; go on with --resume"):
        searched(project, "rank", trials=3)
    found = searched(project, "rank", trials=3, resume=True)
    assert calls[2] == calls[1]  # the trial that was cut off
    ended = [trial for trial in found.trials if trial.state != TrialState.FAIL]
    assert len(ended) == 3
    tried = len(calls)
    again = searched(project, "rank", trials=3, resume=True)
    assert len(calls) == tried  # nothing was left to try
    assert [each.number for each in again.finalists] == [each.number for each in found.finalists]


def test_a_study_of_other_data_is_not_gone_on_with(project: Project) -> None:
    with pytest.raises(InputError, match="no search in"):
        searched(project, trials=1, resume=True)
    searched(project, trials=1)
    rows = project.folder / "data/train.jsonl"
    rows.write_text(rows.read_text() * 2)
    with pytest.raises(InputError, match="have changed since that search began"):
        searched(project, trials=2, resume=True)


def test_a_new_search_does_not_take_the_place_of_one_under_way(project: Project) -> None:
    study = studies.open_study(project, "small", {}, resume=False, weighs_size=False, seed=0)
    studies.mark(study.ask())
    with pytest.raises(UsageError, match=f"process {os.getpid()} on .* is at work"):
        searched(project, trials=1)


def test_trials_of_a_killed_process_begin_anew(project: Project) -> None:
    study = studies.open_study(project, "small", {}, resume=False, weighs_size=False, seed=0)
    trial = study.ask()
    drawn = trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    studies.mark(trial)
    trial.set_user_attr(studies.PROCESS, dead.pid)
    study = studies.open_study(project, "small", {}, resume=True, weighs_size=False, seed=0)
    assert study.trials[0].state == TrialState.FAIL
    assert study.ask().suggest_float("learning_rate", 1e-5, 1e-2, log=True) == drawn


def test_where_size_is_weighed_the_smallest_of_the_good_ones_wins(project: Project) -> None:
    found = search(project, space_of(project.adapter("small"), ["rank"]), trials=3, weighs_size=True)
    good = [each for each in found.finalists if each.score.value >= found.finalists[0].score.value - 0.01]
    assert found.best.parameters == min(each.parameters for each in good)


def test_comments_and_order_of_the_project_file_stay(project: Project) -> None:
    path = project.folder / "edgekit.yaml"
    text = path.read_text().replace("rank: 4", "rank: 4  # small boards")
    path.write_text("# ours\n" + text.replace("project: line-3", 'project: "line-3"'))
    for rank in (8, 16):
        write_settings(project, "small", {"rank": rank, "learning_rate": 6e-4}, f"edgekit tune, today: rank {rank}")
        text = path.read_text()
        assert "# ours" in text
        assert "# small boards" in text
        assert 'project: "line-3"' in text
        assert text.count("# edgekit tune, ") == 1
        adapter = load_project(path).adapter("small")
        assert (adapter.rank, adapter.learning_rate, adapter.max_steps) == (rank, 6e-4, 9)
    assert text.index("adapters:") < text.index("export:")


def test_the_last_of_several_processes_writes_its_best_alone(project: Project) -> None:
    write_settings(project, "small", {"rank": 64, "alpha": 32, "max_steps": 18}, "edgekit tune, today: one process")
    write_settings(project, "small", {"learning_rate": 6e-4}, "edgekit tune, today: another")
    written = load_project(project.folder).adapter("small")
    assert written == replace(project.adapter("small"), learning_rate=6e-4)


def test_a_project_file_that_cannot_say_it_stays_as_it_was(project: Project) -> None:
    path = project.folder / "edgekit.yaml"
    before = path.read_text()
    with pytest.raises((InputError, UsageError)):
        write_settings(project, "small", {"rank": 0}, "edgekit tune, today")
    assert path.read_text() == before
