"""Each setting of a training has its effect, on a model of random weights."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers.trainer_pt_utils import LabelSmoother

from edgekit.encoding.encoder import IGNORED
from edgekit.project import SCHEDULERS, Adapter, load_project, with_settings
from edgekit.project.schedulers import NEEDED_ARGUMENTS
from edgekit.training import run
from edgekit.training.optimisation import optimisation
from edgekit.training.prepared import prepare
from edgekit.training.run import train
from edgekit.training.smoothing import SmoothedLoss
from edgekit_runtime.errors import UsageError

pytestmark = pytest.mark.usefixtures("one_thread")
MakeProject = Callable[..., Path]


def trained(folder: Path, **settings: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    made = train(load_project(folder), settings=settings)
    return load_file(made / "adapter_model.safetensors"), json.loads((made / "run.json").read_text())


def norm(weights: dict[str, torch.Tensor], part: str) -> float:
    return float(torch.cat([tensor.flatten() for name, tensor in weights.items() if part in name]).norm())


def test_weight_decay_optimizer_and_clipping_change_what_is_learnt(tiny_project: MakeProject) -> None:
    folder = tiny_project(learning_rate=0.01, scheduler="constant")
    plain, _ = trained(folder)
    decayed, _ = trained(folder, weight_decay=1.0)
    assert norm(decayed, "lora_A") < 0.98 * norm(plain, "lora_A")  # each step takes a hundredth
    sgd, record = trained(folder, optim="sgd")
    assert max(entry["grad_norm"] for entry in record["losses"] if "loss" in entry) > 0.1
    clipped, _ = trained(folder, optim="sgd", max_grad_norm=1e-6)  # Adam would not tell: it scales gradients itself
    assert 0 < norm(clipped, "lora_B") < 1e-3 * norm(sgd, "lora_B") < norm(plain, "lora_B")


def test_warm_up_steps_and_arguments_of_the_scheduler_shape_the_rate(tiny_project: MakeProject) -> None:
    settings = {"warmup_steps": 2, "scheduler": "polynomial", "lr_scheduler_kwargs.lr_end": 1e-4, "max_steps": 4}
    _, record = trained(tiny_project(learning_rate=2e-4), **settings)
    rates = [entry["learning_rate"] for entry in record["losses"] if "loss" in entry]
    assert rates == pytest.approx([0, 1e-4, 2e-4, 1.5e-4])


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_arguments_of_schedulers_are_those_of_transformers(name: str) -> None:
    make = transformers.optimization.TYPE_TO_SCHEDULER_FUNCTION[transformers.SchedulerType(name)]
    known = set(inspect.signature(make).parameters) - {"optimizer", "num_warmup_steps", "num_training_steps"}
    assert set(SCHEDULERS[name]) == known - {"last_epoch"}
    needed = {NEEDED_ARGUMENTS[name][-1]: 0.1} if name in NEEDED_ARGUMENTS else {}
    adapter = Adapter(name="one", scheduler=name, lr_scheduler_kwargs=needed)
    options = optimisation(adapter)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    transformers.get_scheduler(options["lr_scheduler_type"], optimizer, 1, 10, options["lr_scheduler_kwargs"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_optimizers_that_can_not_be_are_refused(tiny_project: MakeProject) -> None:
    with pytest.raises(UsageError, match="adamw_8bit needs a GPU"):
        trained(tiny_project(), optim="adamw_8bit")
    with pytest.raises(UsageError, match="sgd doesn't go with method: lora"):
        trained(tiny_project(), optim="sgd", method="lora+")


@pytest.mark.parametrize("precision", ["gguf", "nf4", "fp32"])
def test_noise_on_embeddings_is_there_in_training_and_gone_after_it(tiny_project: MakeProject, precision: str) -> None:
    folder = tiny_project(base_precision=precision, export={"quantize": "Q8_0"}, dropout=0.0, max_steps=2)
    losses = []
    for settings in ({}, {"neftune_noise_alpha": 50.0}):
        project = load_project(folder)
        prepared = prepare(with_settings(project, ["small"], settings), project.adapter(), settings)
        changed = with_settings(project, ["small"], settings).adapter()
        prepared = run.replace(prepared, adapter=changed)
        model, record = run._fit(prepared, resume=False, on_evaluation=None)
        losses.append(record.losses)
        embeddings = model.get_input_embeddings()
        assert not embeddings._forward_hooks
        assert not hasattr(embeddings, "neftune_noise_alpha")
    first, noisy = ([entry["loss"] for entry in each if "loss" in entry] for each in losses)
    assert first[0] != noisy[0]


def test_smoothed_labels_are_those_of_answers_and_evaluations_stay_plain() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 7, 11), torch.randint(11, (2, 7))
    labels[:, :3] = IGNORED
    labels[1, 5:] = IGNORED  # padding
    outputs = transformers.modeling_outputs.CausalLMOutput(logits=logits)
    model = torch.nn.Linear(1, 1)
    ours = SmoothedLoss(model, 0.2)
    torch.testing.assert_close(ours(outputs, labels), LabelSmoother(0.2)(outputs, labels, shift_labels=True))
    torch.testing.assert_close(ours(outputs, labels, 12), ours(outputs, labels) * 6 / 12)  # 6 tokens have a label
    model.eval()
    plain = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, 11), labels[:, 1:].reshape(-1))
    torch.testing.assert_close(ours(SimpleNamespace(logits=logits), labels), plain)


def test_label_smoothing_trains_and_its_evaluation_loss_compares_with_others(tiny_project: MakeProject) -> None:
    folder = tiny_project(dropout=0.0, max_steps=1, learning_rate=1e-12)
    _, plain = trained(folder)
    _, smoothed = trained(folder, label_smoothing_factor=0.3)
    _, in_two = trained(folder, label_smoothing_factor=0.3, batch_size=2, gradient_accumulation=2)
    losses = [each["losses"] for each in (plain, smoothed, in_two)]
    assert losses[0][0]["loss"] != pytest.approx(losses[1][0]["loss"], rel=1e-3)
    assert losses[1][0]["loss"] == pytest.approx(losses[2][0]["loss"], rel=1e-4)
    evaluated = [entry["eval_loss"] for each in losses for entry in each if "eval_loss" in entry]
    assert evaluated == pytest.approx([evaluated[0]] * len(evaluated), rel=1e-5)


def test_a_training_that_gets_worse_stops_early_and_keeps_its_best(tiny_project: MakeProject) -> None:
    seen: list[tuple[int, float]] = []
    folder = tiny_project(max_steps=30, learning_rate=1.0, max_grad_norm=0, optim="sgd", scheduler="constant")
    settings = {"early_stopping": 2, "eval_steps": 1}
    made = train(load_project(folder), settings=settings, on_evaluation=lambda step, loss: seen.append((step, loss)))
    record = json.loads((made / "run.json").read_text())
    best = min(seen, key=lambda each: each[1])
    assert record["status"] == "stopped early"
    assert len(seen) < 30
    assert seen[-1][0] == best[0] + 2
    assert record["kept_step"] == best[0]
    # what is kept has the loss of that step: train on from nothing, with the weights that were kept
    project = load_project(folder)
    prepared = prepare(project, project.adapter(), {})
    model = run.wrapped_model(prepared)
    model.load_adapter(str(made), "default")
    loss = run.make_trainer(prepared, model, folder / "again", "again").evaluate()["eval_loss"]
    assert loss == pytest.approx(best[1], rel=1e-4)
    _, last = trained(folder, **settings, keep="last")
    assert last["kept_step"] is None
    assert last["status"] == "stopped early"


def test_whoever_is_told_of_evaluations_may_stop_the_training(tiny_project: MakeProject) -> None:
    class Enough(Exception):
        pass

    def told(step: int, loss: float) -> None:
        assert loss > 0
        raise Enough

    folder = tiny_project(max_steps=6)
    output = folder / "trials" / "7"
    with pytest.raises(Enough):
        train(load_project(folder), settings={"eval_steps": 2}, output=output, on_evaluation=told)
    (record,) = [json.loads(path.read_text()) for path in (folder / "runs").glob("*.json")]
    assert (record["status"], len([entry for entry in record["losses"] if "loss" in entry])) == ("stopped", 2)
    assert not (folder / "adapters").exists()
    assert not (folder / ".edgekit").exists()
    assert train(load_project(folder), output=output) == output
    assert (output / "adapter_config.json").exists()
    assert [path.name for path in output.parent.iterdir()] == ["7"]
