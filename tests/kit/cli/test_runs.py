"""Trainings as a user sees them: what is told before and after, and the history."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.cli import main
from edgekit.project import load_project
from edgekit.training.history import begin_run, find_runs, read_runs
from edgekit_runtime.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")
MakeProject = Callable[..., Path]


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_a_dry_run_says_what_training_takes_and_writes_nothing(
    tiny_project: MakeProject, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_project(epochs=2, max_steps=None, gradient_accumulation=2)
    before = files_of(folder)
    assert main(["train", "--dry-run", "--json", "--set", "eval_steps=2", "--project", str(folder)]) == 0
    found = json.loads(capsys.readouterr().out)["adapters"]["small"]
    assert (found["steps"], found["evaluations"], found["examples"], found["evaluated"]) == (6, 3, 24, 4)
    assert 0 < found["learnt_tokens"] < found["tokens"] < 24 * found["longest"]
    assert 0 <= found["padding"] < 0.5  # packed rows have none
    assert found["memory_mb"] > 100
    assert found["seconds"] > found["seconds_a_step"] > 0
    assert files_of(folder) == before
    assert main(["train", "--dry-run", "--resume", "--project", str(folder)]) == 2


def test_runs_outlive_the_adapter_and_are_listed_compared_and_drawn(
    tiny_project: MakeProject, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_project(samples=1)
    place = ["--project", str(folder)]
    (folder / "data" / "eval.jsonl").unlink()
    edited = (folder / "edgekit.yaml").read_text().replace("  eval: data/eval.jsonl\n", "")
    (folder / "edgekit.yaml").write_text(edited)
    assert main(["train", *place]) == 0
    said, noted = capsys.readouterr()
    assert f"small: {folder / 'adapters' / 'small'}" in said
    assert "finished after 3 steps in 0:" in said
    assert "next: edgekit evaluate small, then edgekit export" in said
    assert "small: 3 steps of 4 examples" in noted
    assert "2 of 24 rows are held out" in noted
    assert "step 3, data/train.jsonl:" in noted  # a sample
    assert main(["train", *place, "--set", "rank=2", "--set", "samples=0"]) == 0
    capsys.readouterr()

    first, second = read_runs(load_project(folder))
    assert [len(each["samples"]) for each in (first, second)] == [3, 0]
    assert set(first["samples"][0]) == {"step", "where", "expected", "answer"}
    assert first["data"]["held_out"] == {"share": 0.1, "seed": 0}
    assert json.loads((folder / "adapters" / "small" / "run.json").read_text())["run"] == second["run"]
    assert main(["runs", *place]) == 0
    listed = capsys.readouterr().out
    assert first["run"] in listed
    assert "rank=2 samples=0" in listed
    picture = folder / "losses.svg"
    assert main(["runs", first["run"], "last", "--json", "--plot", str(picture), *place]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert compared["differ"] == {"rank": [4, 2], "alpha": [8, 4]}
    assert all(each["eval_loss"] > 0 for each in compared["final"])
    assert second["run"] in picture.read_text()
    assert main(["runs", first["run"], second["run"], *place]) == 0
    assert "evaluation loss" in capsys.readouterr().out
    assert main(["runs", "smal", *place]) == 3
    assert "did you mean small?" in capsys.readouterr().err
    assert main(["runs", "--plot", "losses.doc", *place]) == 2


def test_samples_change_nothing_of_what_is_learnt(tiny_project: MakeProject) -> None:
    from edgekit.training.run import train

    project = load_project(tiny_project())
    files = [
        (train(project, settings={"samples": samples}) / "adapter_model.safetensors").read_bytes() for samples in (0, 2)
    ]
    assert files[0] == files[1]


def test_an_empty_history_says_how_to_begin_one(tiny_project: MakeProject, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_project()
    assert main(["runs", "--project", str(folder)]) == 0
    assert "`edgekit train` records one" in capsys.readouterr().out
    assert main(["runs", "--plot", "a.svg", "--project", str(folder)]) == 3
    (folder / "runs").mkdir()
    (folder / "runs" / "cut.json").write_text('{"schema": "edgekit.run/1", "run"')
    with pytest.raises(InputError, match="there are no runs"):
        find_runs(load_project(folder), ["cut"])
    begun = begin_run(load_project(folder), "small", folder / "work", resumed=True)  # its note was lost
    assert begun.name.startswith("small-")
    assert begun.seconds == 0


def test_tensorboard_follows_a_training_and_missing_trackers_are_told_before_it(
    tiny_project: MakeProject, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard", reason="the extra is not installed: pip install 'edgekit[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tiny_project(report_to="tensorboard")
    assert main(["train", "--json", "--project", str(folder)]) == 0
    assert list(json.loads(capsys.readouterr().out)["adapters"]) == ["small"]
    (record,) = read_runs(load_project(folder))
    events = EventAccumulator(str(folder / "runs" / "tensorboard" / record["run"])).Reload()
    logged = [scalar.value for scalar in events.Scalars("train/loss")]
    losses = [entry["loss"] for entry in record["losses"] if "loss" in entry]
    assert logged == pytest.approx(losses)
    assert "eval/loss" in events.Tags()["scalars"]


@pytest.mark.parametrize("tracker", ["trackio", "wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_is_told_before_training(
    tracker: str, tiny_project: MakeProject, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekit.training import trackers

    find = trackers.importlib.util.find_spec
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None if name == tracker else find(name))
    assert main(["train", "--project", str(tiny_project(report_to=[tracker]))]) == 2
    assert f"pip install 'edgekit[{tracker}]', or leave {tracker} out" in capsys.readouterr().err
