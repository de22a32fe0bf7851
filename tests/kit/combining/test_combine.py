"""Combined adapters of a project: made, measured on the rows of their parts, stale when a part changes, exported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML
from transformers import AutoModelForCausalLM

from edgekit.cli.program import main
from edgekit.combining.gate import part_refusals
from edgekit.evaluation.evaluate import evaluate
from edgekit.project import Gate, load_project
from edgekit.project.folders import trained_folder
from edgekit_runtime.errors import InputError
from tests.adapters import save_random_lora


@pytest.fixture
def project(tiny_project: Callable[..., Path], tiny_chat_base: Path) -> Path:
    """Two adapters of random weights at paths, ``a`` and ``b``, with rows, and ``both``, which is made of them."""
    folder = tiny_project(gate={"min_gain": -100, "rows": 4, "max_part_loss_points": 100})
    torch.manual_seed(0)
    for name, rank in (("a", 2), ("b", 3)):
        model = AutoModelForCausalLM.from_pretrained(tiny_chat_base, dtype=torch.float32)
        save_random_lora(model, folder / "made" / name, std=0.1, r=rank, lora_alpha=8, target_modules=["q_proj"])
    change(folder, lambda adapters: adapters.clear())
    change(folder, lambda adapters: adapters.update({name: {"path": f"made/{name}"} for name in "ab"}))
    change(folder, lambda adapters: adapters.update(both={"combined": {"parts": {"a": 1, "b": 0.5}}}))
    return folder


def change(folder: Path, how: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "edgekit.yaml"
    document = YAML().load(path.read_text())
    how(document["adapters"])
    with path.open("w") as file:
        YAML().dump(document, file)


def combine(folder: Path, *words: str) -> int:
    return main(["combine", *words, "--project", str(folder)])


def test_a_combination_is_made_measured_exported_and_stale_when_a_part_changes(
    project: Path, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    both = load_project(project).adapter("both")
    with pytest.raises(InputError, match=r"is not in .*both: run `edgekit combine both` first"):
        trained_folder(load_project(project), both)
    assert combine(project) == 0
    assert "alone" in capsys.readouterr().out
    record = json.loads((project / "adapters/both/run.json").read_text())["combined"]
    assert [part["rows"] for part in record["parts"]] == [4, 4]
    assert record["settings"] == {"parts": {"a": 1, "b": 0.5}, "method": "cat"}
    card = (project / "adapters/both/README.md").read_text()
    assert "combined with edgekit" in card
    assert record["parts"][0]["digest"] in card
    assert main(["export", "both", "--project", str(project), "--output", str(project / "bundle")]) == 0
    report = json.loads((project / "bundle/report/report.json").read_text())
    assert report["combined"]["both"] == record
    assert "the tasks of its parts" in (project / "bundle/report/report.md").read_text()
    assert "the tasks of its parts" in (project / "bundle/report/report.html").read_text()
    config = project / "made/b/adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 8', '"lora_alpha": 4'))
    with pytest.raises(InputError, match="adapter both is stale: b has changed since"):
        trained_folder(load_project(project), both)
    change(project, lambda adapters: adapters["both"]["combined"].update(method="svd"))
    with pytest.raises(InputError, match=r"combined with other settings than edgekit\.yaml has now"):
        trained_folder(load_project(project), load_project(project).adapter("both"))


def test_the_gate_refuses_a_combination_that_loses_too_much_until_that_is_accepted(
    project: Path, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    part = {
        "name": "a",
        "metric": "token_f1",
        "before": 90.0,
        "after": 70.0,
        "loss": 20.0,
        "loss_interval": [9.0, 31.0],
    }
    assert part_refusals([part], Gate(max_part_loss_points=9)) == []
    (reason,) = part_refusals([part], Gate(max_part_loss_points=8.9))
    assert "on the rows of a it scores 70.0 of 100 and a alone 90.0" in reason
    assert part_refusals([part | {"loss_interval": [None, None]}], Gate())
    assert part_refusals([{"name": "a"}], Gate()) == []
    rows = evaluate(load_project(project), "a", with_base=False).samples
    lines = [json.dumps({"prompt": f"scratch of {n} mm", "completion": each["answer"]}) for n, each in enumerate(rows)]
    (project / "data/eval.jsonl").write_text("\n".join(lines))  # as a answers them, and goes on
    change(project, lambda adapters: adapters["both"]["combined"].update(parts={"a": 0.5, "b": 4}))
    document = YAML().load((project / "edgekit.yaml").read_text())
    document["gate"]["max_part_loss_points"] = 1
    with (project / "edgekit.yaml").open("w") as file:
        YAML().dump(document, file)
    assert combine(project, "both") == 4
    said = capsys.readouterr().err
    assert "both loses too much of what its parts can do: on the rows of a it scores" in said
    assert "of 100 and a alone" in said
    assert not (project / "adapters/both").exists()
    assert combine(project, "both", "--accept-loss", "a is old") == 0
    assert json.loads((project / "adapters/both/run.json").read_text())["combined"]["accepted"] == "a is old"


def test_from_writes_the_combination_into_the_project_and_search_its_weights(project: Path, one_thread: None) -> None:
    words = ("new", "--from", "a=1,made/b=-0.5", "--method", "svd", "--rank", "2")
    assert combine(project, *words) == 0
    new = load_project(project).adapter("new")
    assert new.combined is not None
    assert (dict(new.combined.parts), new.combined.method, new.combined.rank) == ({"a": 1, "made/b": -0.5}, "svd", 2)
    assert trained_folder(load_project(project), new).name == "new"
    config = json.loads((project / "adapters/new/adapter_config.json").read_text())
    assert config["r"] == 2
    search = ("both", "--from", "a,b", "--method", "ties", "--search", "--trials", "2")
    assert combine(project, *search) == 0
    both = load_project(project).adapter("both")
    assert both.combined is not None
    assert 0.05 <= both.combined.parts["a"] <= 1.5
    assert both.combined.density is not None
    assert trained_folder(load_project(project), both).name == "both"
    assert combine(project, "both", "--search", "--trials", "2", "--resume") == 0


@pytest.mark.parametrize(
    ("combined", "problem"),
    [
        ({"parts": {"a": 1}}, "parts: it takes two adapters or more"),
        ({"parts": {"a": 1, "b": 0}}, r"parts\.b: a weight of 0 adds nothing"),
        ({"parts": {"a": 1, "b": -1}, "method": "ties"}, r"parts\.b: method: ties elects signs before it weighs"),
        ({"parts": {"a": 1, "b": 1}, "rank": 4}, "rank: method: cat has none"),
        ({"parts": {"a": 1, "b": 1}, "method": "svd", "density": 0.5}, "density: method: svd has none"),
        ({"parts": {"a": 1, "b": 1}, "method": "guessed"}, "method: 'guessed' is not possible"),
        ({"parts": {"a": 1, "b": 1}, "steps": 8}, "steps: method: cat has none"),
    ],
)
def test_what_can_t_be_right_is_refused_at_its_line(project: Path, combined: Any, problem: str) -> None:
    change(project, lambda adapters: adapters["both"].update(combined=combined))
    with pytest.raises(InputError, match=rf"edgekit\.yaml:\d+: adapters\.both\.combined\.{problem}"):
        load_project(project)


def test_an_adapter_that_is_not_trained_needs_no_training_rows(project: Path) -> None:
    change(project, lambda adapters: adapters["both"].update(data={"eval": "data/eval.jsonl"}))
    assert load_project(project).adapter("both").data is not None
    change(project, lambda adapters: adapters.update(other={"data": {"eval": "data/eval.jsonl"}}))
    with pytest.raises(InputError, match=r"adapters\.other\.data\.train is missing: add it"):
        load_project(project)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("x", "--from", "a=1,c=1"), "there is no adapter 'c'"),
        (("x", "--from", "a=1,both=1"), "both is made of others itself"),
        (("a", "--from", "a=1,b=1"), "adapter a is not made of others"),
        (("x", "--from", "a=1,b=much"), "'much' is no number"),
        (("x", "--from", "a=1,b=1", "--rank", "3"), "method: cat has none"),
        (("both", "--method", "svd"), "go with --from"),
        (("both", "--resume"), "--resume is for --search"),
    ],
)
def test_what_can_t_be_combined_is_told_before_any_work(
    project: Path, words: tuple[str, ...], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert combine(project, *words) in (2, 3)
    assert problem in capsys.readouterr().err


def test_training_leaves_combinations_out(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "both", "--project", str(project)]) == 2
    assert "run `edgekit combine both`" in capsys.readouterr().err
