"""Trimming an adapter of a model of random weights: what stays is exact, what results is a plain PEFT folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from edgekit.cli import main
from edgekit.project import load_project
from edgekit.training.lora import load_pairs
from edgekit.training.prepared import prepare
from edgekit.training.run import wrapped_model
from edgekit.trimming.contributions import Contributions
from edgekit.trimming.trim import Trimmed, judge, trim
from edgekit_runtime.errors import GateRefused, InputError, UsageError

pytestmark = pytest.mark.usefixtures("one_thread")
MakeProject = Callable[..., Path]
LoraMaker = Callable[[Path], None]
AUTO: dict[str, Any] = {"targets": "auto", "base_precision": "gguf", "export": {"quantize": "Q8_0"}}
KEPT = ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj")


def test_what_stays_computes_what_it_did_with_the_others_zeroed(
    tiny_project: MakeProject, tiny_chat_base: Path, random_lora: LoraMaker, tmp_path: Path
) -> None:
    project = load_project(tiny_project())
    random_lora(tmp_path / "whole")
    adapter = replace(project.adapter("small"), targets=KEPT)
    kept = wrapped_model(prepare(project, adapter, {}))
    load_pairs(kept, tmp_path / "whole")
    kept.save_pretrained(str(tmp_path / "kept"))
    base = AutoModelForCausalLM.from_pretrained(tiny_chat_base, dtype=torch.float32)
    loaded = PeftModel.from_pretrained(base, str(tmp_path / "kept")).eval()
    whole = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_chat_base, dtype=torch.float32), str(tmp_path / "whole")
    ).eval()
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        before = whole(ids).logits
        for name, parameter in whole.named_parameters():
            if "lora_B" in name and not any(module in name for module in KEPT):
                parameter.zero_()
        after = whole(ids).logits
        assert not torch.equal(before, after)
        assert torch.equal(loaded(ids).logits, after)


def test_a_start_without_a_pair_that_is_to_be_trained_is_refused(
    tiny_project: MakeProject, random_lora: LoraMaker, tmp_path: Path
) -> None:
    project = load_project(tiny_project(rank=2))
    random_lora(tmp_path / "whole")  # of rank 4
    with pytest.raises(InputError, match=r"has no .*lora_A.* of shape \[2, 64\]"):
        load_pairs(wrapped_model(prepare(project, project.adapter("small"), {})), tmp_path / "whole")


def test_contributions_add_up_to_what_the_adapter_does_to_the_loss(
    tiny_project: MakeProject, random_lora: LoraMaker, tmp_path: Path
) -> None:
    project = load_project(tiny_project())
    random_lora(tmp_path / "whole")
    prepared = prepare(project, project.adapter("small"), {})
    model = wrapped_model(prepared)
    load_pairs(model, tmp_path / "whole")
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # two points of the way tell a small change's integral
            parameter.data *= 0.1
    collator = transformers.DataCollatorForSeq2Seq(prepared.encoder.tokenizer, label_pad_token_id=-100)
    weighed = Contributions(model, collator, prepared.datasets[0][:12])
    parts = weighed.of(weighed.modules)
    assert len(parts) == 14
    gained = weighed.loss([]) - weighed.loss(weighed.modules)
    assert abs(gained) > 1e-3
    assert sum(parts.values()) == pytest.approx(gained, rel=0.05)
    one = weighed.modules[0]
    assert weighed.of([one])[one] == pytest.approx(weighed.loss([]) - weighed.loss([one]), rel=0.05, abs=1e-5)


def test_training_with_targets_auto_leaves_a_plain_adapter_under_the_budget(
    tiny_project: MakeProject, tiny_chat_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_project(**AUTO, decode_budget=0.95, gate={"max_loss_points": 100, "min_gain": -100})
    assert main(["train", "--project", str(folder), "--set", "max_steps=4", "--set", "system=Look."]) == 0
    assert "of 14 matrices left: decode 0." in capsys.readouterr().out
    adapter = folder / "adapters" / "small"
    record = json.loads((adapter / "run.json").read_text())
    trimmed = record["trimmed"]
    assert 0 < trimmed["matrices"] < trimmed["matrices_before"] == 14
    assert trimmed["share_before"] < 0.95 <= trimmed["share"]
    assert record["settings"] == {"max_steps": 4, "system": "Look."}
    assert record["hyperparameters"]["max_steps"] == 4
    assert trimmed["rows"] == 4
    pairs = {name.split(".lora_")[0] for name in load_file(adapter / "adapter_model.safetensors")}
    assert len(pairs) == trimmed["matrices"] == sum(map(len, trimmed["kept"].values()))
    base = AutoModelForCausalLM.from_pretrained(tiny_chat_base, dtype=torch.float32)
    loaded = PeftModel.from_pretrained(base, str(adapter))
    adapted = [name for name, _ in loaded.named_modules() if name.endswith("lora_A.default")]
    assert len(adapted) == trimmed["matrices"]
    card = (adapter / "README.md").read_text()
    assert f"auto: {trimmed['matrices']} of 14 matrices" in card
    assert "## What it changes" in card
    assert main(["export", "--project", str(folder)]) == 0
    with pytest.raises(InputError, match="trimmed already: train it again"):
        trim(load_project(folder), "small")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"targets": "all-linear"}, "has no targets: auto"),
        (AUTO | {"export": {"mode": "merged"}}, "a merged adapter, which costs nothing: use all-linear"),
        (AUTO | {"export": {"format": "onnx"}, "base_precision": "fp32"}, "is for llama.cpp on a CPU"),
        (AUTO | {"export": {"device": "phone-browser"}}, "is for llama.cpp on a CPU"),
    ],
)
def test_what_cannot_be_trimmed_is_refused_before_anything_is_loaded(
    tiny_project: MakeProject, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        trim(load_project(tiny_project(**settings)))


@pytest.mark.parametrize("low", [1.01, float("nan")])
def test_a_lost_score_is_refused_and_said(low: float) -> None:
    found = Trimmed("a", "x86-64-avx2", 0.9, 0.91, 0.7, 40, 210, {}, 61.0, 78.0, (low, 25.0), 48, "", Path())
    with pytest.raises(GateRefused, match=r"scores 61.0 with 40 of 210 matrices and 78.0 with all .*stays: lower dec"):
        judge(found, 1.0)
    judge(replace(found, loss_interval=(1.0, 25.0)), 1.0)  # which noise alone may be
