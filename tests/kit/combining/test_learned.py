"""Learned combinations: better than the weights they start from, exactly what their folder says, the same each time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from ruamel.yaml import YAML
from transformers import AutoModelForCausalLM

from edgekit.bases.resolve import loading_name, project_base
from edgekit.cli.program import main
from edgekit.combining.make import make_combined
from edgekit.combining.weighing import Weighing, carrying
from edgekit.evaluation.evaluate import evaluate
from edgekit.project import load_project
from edgekit.training.parts import combined_pairs, find_parts
from edgekit_exporters.peft.combinations import LEARNED, Combination
from edgekit_exporters.peft.names import PREFIX
from edgekit_exporters.peft.written import write_peft
from edgekit_runtime.errors import InputError
from tests.adapters import save_random_lora

TOKENS = torch.tensor([[5, 9, 200, 31, 77, 12, 400, 8]])
LARGEST_KL = 1e-5


@pytest.fixture
def project(tiny_project: Callable[..., Path], tiny_chat_base: Path, one_thread: None) -> Path:
    """Two adapters of random weights, and ``both``, which weighs them."""
    folder = tiny_project(gate={"min_gain": -100, "rows": 0, "max_part_loss_points": 100})
    torch.manual_seed(0)
    for name, rank, target in (("a", 2, "q_proj"), ("b", 3, "up_proj")):
        model = AutoModelForCausalLM.from_pretrained(tiny_chat_base, dtype=torch.float32)
        save_random_lora(
            model, folder / "made" / name, std=0.3, r=rank, lora_alpha=8, target_modules=["v_proj", target]
        )
    path = folder / "edgekit.yaml"
    document = YAML().load(path.read_text())
    document["adapters"] = {name: {"path": f"made/{name}"} for name in "ab"}
    document["data"]["eval"] = "data/train.jsonl"
    combined = {"parts": {"a": 1, "b": 1}, "method": "learned", "steps": 30}
    document["adapters"]["both"] = {"combined": combined, "seed": 3}
    YAML().dump(document, path)
    return folder


def answered_by_a(folder: Path) -> None:
    """Let the rows of both parts be what ``a`` answers: ``b`` is noise then."""
    rows = evaluate(load_project(folder), "a", with_base=False).samples
    lines = [json.dumps({"prompt": f"scratch of {n} mm", "completion": each["answer"]}) for n, each in enumerate(rows)]
    (folder / "data/train.jsonl").write_text("\n".join(lines))


def changed(folder: Path, how: Callable[[dict[str, Any]], object]) -> None:
    document = YAML().load((folder / "edgekit.yaml").read_text())
    how(document)
    YAML().dump(document, folder / "edgekit.yaml")


def logprobs(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = torch.log_softmax(model.eval()(input_ids=TOKENS).logits[0].double(), -1)
    return found


def kl(p: torch.Tensor, q: torch.Tensor) -> float:
    return float((p.exp() * (p - q)).sum(-1).max())


def summed_by_peft(base: Path, project: Path, weights: dict[str, dict[str, float]]) -> torch.Tensor:
    """With both adapters active, each layer's update times its weight."""
    bare: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(bare, str(project / "made/a"), adapter_name="a")
    model.load_adapter(str(project / "made/b"), adapter_name="b")
    for full, layer in model.named_modules():
        for name in layer.scaling if isinstance(layer, LoraLayer) else ():
            layer.scaling[name] *= weights[name][full.removeprefix(PREFIX)]
    model.base_model.set_adapter(["a", "b"])
    return logprobs(model)


def test_learned_weights_leave_noise_out_and_are_what_the_folder_computes_and_the_same_each_time(
    project: Path, tiny_chat_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answered_by_a(project)
    assert main(["combine", "both", "--project", str(project)]) == 0
    assert "weights are means over layers; loss " in capsys.readouterr().out
    folder = project / "adapters/both"
    record = json.loads((folder / "run.json").read_text())
    learned, parts = record["combined"]["learned"], {part["name"]: part for part in record["combined"]["parts"]}
    assert learned["loss"] < 0.85 * learned["loss_before"]
    assert parts["b"]["weight"] < 0.8 < parts["a"]["weight"]
    assert record["losses"][0] | {"eval_loss": learned["loss_before"]} == record["losses"][0]  # the start is asked too
    weights = {name: part["of_layers"] for name, part in parts.items()}
    assert {name: len(each) for name, each in weights.items()} == {"a": 4, "b": 4}
    bare: Any = AutoModelForCausalLM.from_pretrained(tiny_chat_base, dtype=torch.float32)
    without = logprobs(bare)
    found = logprobs(PeftModel.from_pretrained(bare, str(folder)))
    assert kl(summed_by_peft(tiny_chat_base, project, weights), found) < LARGEST_KL
    assert kl(without, found) > 100 * LARGEST_KL
    digest = hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()
    loaded = load_project(project)
    make_combined(loaded, "both")
    assert hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest() == digest


def test_the_model_that_is_trained_computes_what_is_written(
    project: Path, tiny_chat_base: Path, tmp_path: Path
) -> None:
    loaded = load_project(project)
    base = project_base(loaded)
    parts = find_parts(loaded, "ab", base)
    bare: Any = AutoModelForCausalLM.from_pretrained(tiny_chat_base, dtype=torch.float32)
    model = carrying(bare, parts, base)
    weighing = Weighing(model, parts, [0.7, -0.4])
    trained = [each for each in model.parameters() if each.requires_grad]
    assert [each.numel() for each in trained] == [1, 2, 1] * 2  # of q_proj, v_proj and up_proj in two layers
    for number, each in enumerate(trained):
        each.data += 0.1 * number
    weights = weighing.taken()
    assert weights["b"]["model.layers.0.mlp.up_proj"] == pytest.approx(-0.2)
    made = combined_pairs(parts, {"a": 1.0, "b": 1.0}, Combination(LEARNED), weights)
    folder = tmp_path / "made"
    folder.mkdir()
    write_peft(made, base, loading_name(base), folder)
    found = logprobs(model)
    assert kl(summed_by_peft(tiny_chat_base, project, weights), found) < LARGEST_KL
    again: Any = AutoModelForCausalLM.from_pretrained(tiny_chat_base, dtype=torch.float32)
    assert kl(logprobs(PeftModel.from_pretrained(again, str(folder))), found) < LARGEST_KL


def test_ctrl_c_leaves_no_half_combination_and_no_entry(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: Weighing) -> dict[str, dict[str, float]]:
        raise KeyboardInterrupt

    monkeypatch.setattr(Weighing, "taken", interrupted)
    before = (project / "edgekit.yaml").read_text()
    words = ["combine", "new", "--from", "a,b", "--method", "learned", "--steps", "2", "--project", str(project)]
    assert main(words) != 0
    assert not (project / "adapters").exists()
    assert (project / "edgekit.yaml").read_text() == before


def test_what_can_t_be_learned_is_told_before_anything_is_loaded(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*words: str) -> str:
        assert main(["combine", *words, "--project", str(project)]) in (2, 3)
        return capsys.readouterr().err

    assert "method: learned trains the weights: leave out --search" in told("both", "--search")
    paths = ("x", "--from", "a,made/b", "--method", "learned")
    assert "trains on rows of each part, and there are none of made/b: name adapters of the project" in told(*paths)
    assert "steps: method: svd has none" in told("x", "--from", "a,b", "--method", "svd", "--steps", "3")
    changed(project, lambda document: document["adapters"]["b"].update(data={"eval": "data/eval.jsonl"}))
    assert "there are none of b: add data.train to adapters.b" in told("both")
    row = {"prompt": "scratch", "chosen": "rework", "rejected": "ship"}
    (project / "data/pairs.jsonl").write_text(json.dumps(row))
    files = dict.fromkeys(("train", "eval"), "data/pairs.jsonl")
    changed(project, lambda document: document["adapters"]["b"].update(method="dpo", data=files))
    assert "trains on answers, and the rows of b are preferences" in told("both")


def test_parts_whose_layers_have_no_weight_of_their_own_are_refused(project: Path, tiny_chat_base: Path) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(tiny_chat_base, dtype=torch.float32)
    save_random_lora(model, project / "made/b", std=0.1, r=2, lora_alpha=4, target_modules=["embed_tokens", "q_proj"])
    with pytest.raises(InputError, match=r"b changes an embedding \(model.embed_tokens\), which method learned can't"):
        make_combined(load_project(project), "both")
