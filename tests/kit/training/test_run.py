"""Training end to end on a model of random weights: every precision and method, interruption, what is left behind."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from edgekit.cli import main
from edgekit.project import load_project
from edgekit.training import run
from edgekit.training.checkpoints import full_disk_told
from edgekit.training.history import read_runs
from edgekit.training.kept import as_trained
from edgekit.training.run import train
from edgekit_runtime.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")
MakeProject = Callable[..., Path]


@pytest.mark.parametrize("precision", ["gguf", "nf4", "int8", "bf16", "fp32"])
def test_every_precision_trains_an_adapter_that_peft_loads(
    tiny_project: MakeProject, tiny_chat_base: Path, precision: str
) -> None:
    project = load_project(tiny_project(base_precision=precision, export={"quantize": "Q8_0"}))
    folder = train(project)
    base = AutoModelForCausalLM.from_pretrained(tiny_chat_base, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, str(folder))
    moved = [parameter for name, parameter in model.named_parameters() if "lora_B" in name and parameter.any()]
    assert len(moved) == 14  # 7 linear layers in each of 2 blocks have learned something


@pytest.mark.parametrize("method", ["lora", "rslora", "dora", "pissa", "lora+"])
def test_every_method_trains_on_a_float_base(tiny_project: MakeProject, tiny_chat_base: Path, method: str) -> None:
    folder = train(load_project(tiny_project(method=method)))
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["use_rslora"], config["use_dora"]) == (method == "rslora", method == "dora")
    base = AutoModelForCausalLM.from_pretrained(tiny_chat_base, dtype=torch.float32)
    PeftModel.from_pretrained(base, str(folder))


def test_an_activated_lora_learns_on_packed_blocks_from_what_precedes_answers(
    tiny_project: MakeProject, tiny_chat_base: Path
) -> None:
    settings = {"method": "alora", "base_precision": "gguf", "export": {"quantize": "Q8_0"}}
    folder = train(load_project(tiny_project(**settings)))
    config = json.loads((folder / "adapter_config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(tiny_chat_base)
    assert tokenizer.decode(config["alora_invocation_tokens"]) == "<|im_start|>assistant\n"
    weights = load_file(folder / "adapter_model.safetensors")
    assert any(tensor.any() for name, tensor in weights.items() if "lora_B" in name)


def test_an_invocation_that_no_prompt_has_is_refused(tiny_project: MakeProject) -> None:
    with pytest.raises(InputError, match="train.jsonl:1: the prompt never has the tokens"):
        train(load_project(tiny_project(method="alora", invocation="Judge now:")))
    with pytest.raises(InputError, match="only an activated LoRA has one"):
        load_project(tiny_project(invocation="Judge now:"))


def test_layers_may_have_ranks_of_their_own(tiny_project: MakeProject) -> None:
    folder = train(load_project(tiny_project(rank_pattern={"down_proj": 2}, alpha_pattern={"down_proj": 9})))
    ranks = {name: tensor.shape[0] for name, tensor in load_file(folder / "adapter_model.safetensors").items()}
    assert {rank for name, rank in ranks.items() if "down_proj.lora_A" in name} == {2}
    assert {rank for name, rank in ranks.items() if "q_proj.lora_A" in name} == {4}


def test_an_adapter_that_changes_its_base_is_saved_as_difference_to_the_original(
    tiny_project: MakeProject, tiny_chat_base: Path
) -> None:
    """Untrained, it is the difference of nothing: the model answers as its base does."""
    folder = train(load_project(tiny_project(method="pissa", max_steps=1, learning_rate=1e-12)))
    ids = torch.arange(12)[None]
    base = AutoModelForCausalLM.from_pretrained(tiny_chat_base, dtype=torch.float32)
    with torch.no_grad():
        before = base(ids).logits
        after = PeftModel.from_pretrained(base, str(folder)).eval()(ids).logits
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-3)


def test_the_run_record_says_how_the_adapter_came_about(tiny_project: MakeProject) -> None:
    folder = train(load_project(tiny_project(system="You inspect parts.")))
    record = json.loads((folder / "run.json").read_text())
    assert record["schema"] == "edgekit.run/1"
    assert record["base_precision"] == "fp32"
    assert record["system"] == "You inspect parts."
    assert record["hyperparameters"]["rank"] == 4
    assert record["data"]["train_rows"] == 24
    assert [entry["step"] for entry in record["losses"] if "loss" in entry] == [1, 2, 3]
    assert any("eval_loss" in entry for entry in record["losses"])
    assert {"torch", "peft", "transformers"} <= set(record["versions"])
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_seed_trains_the_same_adapter(tiny_project: MakeProject) -> None:
    project = load_project(tiny_project())
    first = (train(project) / "adapter_model.safetensors").read_bytes()
    assert (train(project) / "adapter_model.safetensors").read_bytes() == first


class _SignalAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


def _interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    original = run.Progress.install

    def install(trainer: Any, label: str) -> run.Progress:
        shown = original(trainer, label)
        trainer.add_callback(_SignalAt(step))
        return shown

    monkeypatch.setattr(run.Progress, "install", install)


def test_resuming_after_an_interrupt_gives_what_an_unbroken_run_gives(
    tiny_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = load_project(tiny_project(max_steps=6, dropout=0.0))
    unbroken = (train(project) / "adapter_model.safetensors").read_bytes()
    with monkeypatch.context() as patch:
        _interrupt_at(3, patch)
        with pytest.raises(KeyboardInterrupt, match="--resume"):
            train(project)
    kept = (project.folder / "adapters" / "small" / "adapter_model.safetensors").read_bytes()
    assert kept == unbroken  # the earlier adapter stays until a new one is whole
    _, broken = read_runs(project)
    assert broken["status"] == "interrupted"
    folder = train(project, resume=True)
    _, whole = read_runs(project)
    assert (whole["run"], whole["status"], whole["started"]) == (broken["run"], "finished", broken["started"])
    assert whole["seconds"] > broken["seconds"]
    assert [each["step"] for each in whole["losses"] if "loss" in each] == [1, 2, 3, 4, 5, 6]
    assert (folder / "adapter_model.safetensors").read_bytes() == unbroken
    assert not (project.folder / ".edgekit" / "train" / "small").exists()


@pytest.mark.parametrize("steps", [1, 5])
def test_a_training_that_was_cut_before_its_adapter_was_written_makes_no_step_more(
    steps: int, tiny_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = load_project(tiny_project(max_steps=steps, dropout=0.0))
    unbroken = (train(project) / "adapter_model.safetensors").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(run, "_publish", _cut)
        with pytest.raises(KeyboardInterrupt):
            train(project)
    folder = train(project, resume=True)
    assert (folder / "adapter_model.safetensors").read_bytes() == unbroken
    losses = json.loads((folder / "run.json").read_text())["losses"]
    assert [each["step"] for each in losses if "loss" in each] == [*range(1, steps + 1)]


def _cut(*_: Any) -> Path:
    raise KeyboardInterrupt


def test_resuming_several_adapters_leaves_out_those_that_are_done(
    tiny_project: MakeProject, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_project(max_steps=4)
    text = (folder / "edgekit.yaml").read_text()
    settings = text[text.index("  small:\n") + len("  small:\n") : text.index("export:")]
    (folder / "edgekit.yaml").write_text(text.replace("export:", f"  second:\n{settings}  third:\n{settings}export:"))
    place = ["--project", str(folder)]
    assert main(["train", "small", *place]) == 0
    with monkeypatch.context() as patch:
        _interrupt_at(2, patch)
        assert main(["train", "second", "--set", "rank=2", *place]) == 130
    assert "go on with --resume and the same --set" in capsys.readouterr().err
    assert main(["train", "--resume", *place]) == 3
    assert "put them back (what was given by --set too)" in capsys.readouterr().err
    assert main(["train", "--resume", "--set", "rank=2", *place]) == 0
    said, noted = capsys.readouterr()
    assert "small is trained already" in noted
    assert [line.partition(":")[0] for line in said.splitlines() if line.endswith(("second", "third"))] == [
        "second",
        "third",
    ]
    runs = {record["adapter"]: record["status"] for record in read_runs(load_project(folder))}
    assert runs == {"small": "finished", "second": "finished", "third": "finished"}
    assert main(["train", "--resume", *place]) == 3
    assert "no interrupted training" in capsys.readouterr().err


def test_resume_refuses_other_settings_and_nothing_to_resume(
    tiny_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = load_project(tiny_project(max_steps=6))
    with pytest.raises(InputError, match="no interrupted training"):
        train(project, resume=True)
    with monkeypatch.context() as patch:
        _interrupt_at(3, patch)
        with pytest.raises(KeyboardInterrupt):
            train(project)
    changed = load_project(tiny_project(max_steps=6, rank=8))
    with pytest.raises(InputError, match="have changed"):
        train(changed, resume=True)


def test_a_row_that_exceeds_the_context_stops_before_training(tiny_project: MakeProject) -> None:
    folder = tiny_project()
    with (folder / "data" / "train.jsonl").open("a") as stream:
        stream.write(json.dumps({"prompt": "scratch " * 400, "completion": "scrap"}) + "\n")
    with pytest.raises(InputError, match=r"train\.jsonl:25: the row is \d+ tokens long and the limit is 256"):
        train(load_project(folder))
    assert not (folder / "adapters").exists()


def test_a_method_that_changes_the_base_needs_a_float_one(tiny_project: MakeProject) -> None:
    with pytest.raises(InputError, match="base_precision: fp32"):
        train(load_project(tiny_project(method="pissa", base_precision="nf4")))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_loftq_without_a_gpu_says_what_to_use_instead(tiny_project: MakeProject) -> None:
    with pytest.raises(InputError, match="use method: qlora or pissa"):
        train(load_project(tiny_project(method="loftq")))


def test_targets_that_match_nothing_are_refused(tiny_project: MakeProject) -> None:
    with pytest.raises(InputError, match="target no_such_proj fits no layer of the text model: .*all-linear") as told:
        train(load_project(tiny_project(targets=["no_such_proj"])))
    assert "its layers are down_proj, gate_proj, k_proj, " in str(told.value)
    assert "connector" not in str(told.value)  # this base reads no images


def test_a_name_that_is_no_list_is_told_to_be_a_pattern(tiny_project: MakeProject) -> None:
    with pytest.raises(InputError, match=r"the pattern 'q_proj' fits no layer's whole name: write a list of names"):
        train(load_project(tiny_project(targets="q_proj")))


def test_a_disk_that_is_full_at_the_end_leaves_the_work_to_go_on_with(
    tiny_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "adapter_model.safetensors")

    project = load_project(tiny_project(max_steps=2))
    with monkeypatch.context() as patch:
        patch.setattr(run, "save_adapter", full)
        with pytest.raises(InputError, match="the disk is full.*free some space, then go on with --resume"):
            train(project)
    assert (train(project, resume=True) / "adapter_model.safetensors").exists()


@pytest.mark.parametrize("tensors", [1, 300])
def test_a_checkpoint_that_the_disk_has_no_room_for_says_so(tmp_path: Path, tensors: int) -> None:
    """torch has one message for a tensor that doesn't fit, and another for a file that ends short."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        told = pytest.raises(InputError, match="can't be written to .*free some space, then go on with --resume")
        with told, full_disk_told(tmp_path):
            torch.save([torch.zeros(600_000 // tensors) for _ in range(tensors)], tmp_path / "optimizer.pt")
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)  # a failed write may hold its file open


def test_settings_of_one_training_are_recorded_and_stay_with_what_it_made(tiny_project: MakeProject) -> None:
    project = load_project(tiny_project(system="You inspect parts."))
    settings = {"rank": 2, "system": "You look at welds.", "generation.max_tokens": 9}
    folder = train(project, settings=settings)
    record = json.loads((folder / "run.json").read_text())
    assert record["settings"] == settings
    assert (record["hyperparameters"]["rank"], record["system"]) == (2, "You look at welds.")
    assert {t.shape[0] for n, t in load_file(folder / "adapter_model.safetensors").items() if "lora_A" in n} == {2}
    kept = as_trained(project).adapter()
    assert (kept.system, kept.generation.max_tokens) == ("You look at welds.", 9)
    train(project)
    assert as_trained(project).adapter() == project.adapter()
