"""Preference tuning through TRL, on a model of random weights."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from edgekit.data import load_rows
from edgekit.encoding.encoder import Encoder
from edgekit.project import load_project
from edgekit.training import run
from edgekit.training.preference import preference_example
from edgekit.training.prepared import prepare
from edgekit.training.run import train
from edgekit_runtime.errors import InputError, UsageError

pytest.importorskip("trl", reason="the extra is not installed: pip install 'edgekit[preference]'")

pytestmark = pytest.mark.usefixtures("one_thread")
MakeProject = Callable[..., Path]


@pytest.fixture
def preferring(tiny_project: MakeProject) -> MakeProject:
    """A project whose rows prefer ``accept`` to ``scrap`` or the other way round."""

    def write(**settings: Any) -> Path:
        folder = tiny_project(method="dpo", **settings)
        for name, count in (("train", 16), ("eval", 4)):
            answers = [("accept the part", "scrap"), ("scrap", "accept the part")]
            rows = [
                {"prompt": f"scratch of {n} mm", "chosen": answers[n % 2][0], "rejected": answers[n % 2][1]}
                for n in range(count)
            ]
            (folder / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return folder

    return write


@pytest.mark.parametrize("precision", ["gguf", "nf4", "fp32"])
def test_pairs_are_told_apart_after_training_and_the_adapter_is_a_plain_one(
    preferring: MakeProject, tiny_chat_base: Path, precision: str
) -> None:
    settings = {"learning_rate": 0.001, "max_steps": 6, "eval_steps": 1, "scheduler": "constant", "warmup_ratio": 0.0}
    folder = train(load_project(preferring(base_precision=precision, export={"quantize": "Q8_0"}, **settings)))
    record = json.loads((folder / "run.json").read_text())
    first = next(entry for entry in record["losses"] if "loss" in entry)
    assert first["loss"] == pytest.approx(math.log(2), rel=1e-3)  # the adapter begins as its reference, the base
    evaluated = [entry for entry in record["losses"] if "eval_loss" in entry]
    assert evaluated[-1]["eval_loss"] < evaluated[0]["eval_loss"]
    assert evaluated[-1]["eval_rewards/margins"] > evaluated[0]["eval_rewards/margins"]
    assert "Preference loss after 6 steps" in (folder / "README.md").read_text()
    assert not (folder / "ref").exists()
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_chat_base, dtype=torch.float32), str(folder))


def test_what_trl_computes_is_what_the_device_asks_and_the_model_answers(
    preferring: MakeProject, tiny_chat_base: Path
) -> None:
    project = load_project(preferring(system="You inspect parts.", dropout=0.0))
    row = load_rows(project.data_for("small").train)[0]
    encoder = Encoder(tiny_chat_base)
    example = preference_example(encoder, row, "You inspect parts.", 256)
    assert example["prompt_ids"] == encoder.prompt_ids(row, "You inspect parts.")
    assert example["chosen_ids"] == encoder.answer_ids(row, "You inspect parts.")
    assert row.rejected is not None
    assert example["rejected_ids"] == encoder.answer_ids(row.rejected, "You inspect parts.")

    prepared = prepare(project, project.adapter(), {})
    model = run.wrapped_model(prepared)
    trainer = run.make_trainer(prepared, model, project.folder / "work", "one")
    batch = next(iter(trainer.get_eval_dataloader()))
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    with torch.no_grad():
        scored = model(**inputs, labels=labels, fused_lm_head=True).log_probs.sum(1)
        logits = AutoModelForCausalLM.from_pretrained(tiny_chat_base, dtype=torch.float32)(**inputs).logits
    log_probs = torch.log_softmax(logits[:, :-1], -1).gather(-1, batch["input_ids"][:, 1:, None])[..., 0]
    torch.testing.assert_close(scored, (log_probs * batch["completion_mask"][:, 1:]).sum(1), rtol=1e-4, atol=1e-4)


def test_rows_and_settings_that_do_not_go_with_preferences_are_refused(preferring: MakeProject) -> None:
    project = load_project(preferring())
    with pytest.raises(InputError, match=r"train\.jsonl:1: it has a chosen and a rejected answer.*method: dpo"):
        train(project, settings={"method": "lora"})
    for setting in ({"loss": "all"}, {"label_smoothing_factor": 0.1}):
        with pytest.raises(UsageError, match="doesn't go with method: dpo"):
            train(project, settings=setting)
    with pytest.raises(UsageError, match="beta: only preferences have one: method: dpo"):
        train(project, settings={"method": "lora", "beta": 0.2})
    rows = project.folder / "data" / "train.jsonl"
    for row, message in (
        ({"prompt": "?", "completion": "yes"}, "chosen and rejected is missing"),
        ({"prompt": "?", "chosen": "yes", "rejected": "yes"}, "are the same answer"),
        ({"prompt": "?", "chosen": "yes", "rejected": ""}, "the answer is empty"),
        (
            {
                "chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
                "rejected": [{"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}],
            },
            "answer different questions",
        ),
    ):
        rows.write_text(json.dumps(row) + "\n")
        with pytest.raises(InputError, match=rf"train\.jsonl:1: .*{message}"):
            train(project)
