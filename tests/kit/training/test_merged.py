"""Training merged: the blocks that it sees are those that the export ships, and nothing else is shipped."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from edgekit.bases.folded_layers import FoldedLinear, fold_layers
from edgekit.bases.folding import Folding, pairs_of
from edgekit.bases.quantized import dequantized_state
from edgekit.bases.quantized.blocks import dequantize
from edgekit.bases.resolve import resolve_base
from edgekit.bases.torch_model import load_base, load_dense
from edgekit.bases.weights import GGUF, Weights
from edgekit.cli import main
from edgekit.evaluation.evaluate import evaluate
from edgekit.evaluation.torch_model import trained_model
from edgekit.exporting.export import export
from edgekit.project import Project, load_project
from edgekit.training.run import train
from edgekit.training.step import keep_floats, quick_step
from edgekit_exporters.base import Base
from edgekit_exporters.gguf.base import base_gguf, gguf_from_folder
from edgekit_exporters.gguf.blocks import tensor_blocks
from edgekit_exporters.gguf.quantize import quantize
from edgekit_exporters.hf.float_model import load_float
from edgekit_exporters.peft.intake import attach, take_in
from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.formats.gguf import read_gguf

from .test_run import _interrupt_at

MakeProject = Callable[..., Path]
WEIGHTS = "adapter_model.safetensors"
MERGED: dict[str, Any] = {"merged": True, "base_precision": None, "learning_rate": 0.02}
pytestmark = pytest.mark.usefixtures("one_thread")


def _folding(project: Project, base: Base, kind: str) -> Folding:
    return Folding(project, base, Weights(GGUF, kind, blocks=base_gguf(base, kind)))


@pytest.fixture
def base(tiny_chat_base: Path) -> Base:
    return resolve_base(str(tiny_chat_base))


def test_folded_blocks_are_those_of_converter_and_quantizer_to_the_bit(
    base: Base, tiny_project: MakeProject, random_lora: Callable[[Path], None], tmp_path: Path
) -> None:
    project = load_project(tiny_project())
    random_lora(tmp_path / "lora")
    pairs = pairs_of(take_in(tmp_path / "lora", base))
    model = load_float(base.folder)  # the other way: a float model, llama.cpp's converter, llama.cpp's quantizer
    for layer, fold in _folding(project, base, "Q4_0").folds(pairs).items():
        model.get_submodule(layer).weight.data = fold.floats(pairs[layer])
    model.save_pretrained(tmp_path / "float")
    for file in base.folder.glob("tok*"):
        (tmp_path / "float" / file.name).write_bytes(file.read_bytes())
    gguf_from_folder(tmp_path / "float", tmp_path / "merged.gguf", "F32")

    for kind in ("Q4_0", "Q8_0", "Q4_K_M"):
        plain, made, folded = (tmp_path / f"{name}-{kind}.gguf" for name in ("plain", "made", "folded"))
        quantize(base_gguf(base, "F32"), plain, kind)
        quantize(tmp_path / "merged.gguf", made, kind)
        folding = Folding(project, base, Weights(GGUF, kind, blocks=plain))
        folding.write(pairs, folded)
        ours, theirs, before = (read_gguf(path).tensors for path in (folded, made, plain))
        changed = set(folding.tensors(pairs))
        assert len(changed) == 14  # seven layers in each of two blocks
        for name, info in theirs.items():
            assert ours[name].type_name == info.type_name
            blocks = tensor_blocks(folded, ours[name])
            assert np.array_equal(blocks, tensor_blocks(made, info)), (kind, name)
            assert np.array_equal(blocks, tensor_blocks(plain, before[name])) is (name not in changed)


def test_a_layer_computes_with_the_blocks_and_its_gradient_goes_straight_through(
    base: Base, tiny_project: MakeProject, random_lora: Callable[[Path], None], tmp_path: Path
) -> None:
    random_lora(tmp_path / "lora")
    folding = _folding(load_project(tiny_project()), base, "Q4_0")
    packed = load_base(base, Weights(GGUF, "Q4_0", blocks=folding.file))
    model = attach(packed, take_in(tmp_path / "lora", base))
    for name, layer in fold_layers(model, folding).items():
        a, b, scale = layer.pair
        a.requires_grad_(True), b.requires_grad_(True)
        x = torch.randn(5, layer.in_features, requires_grad=True)
        y = layer(x)
        blocks = layer.fold.part(0, layer.fold.floats(layer.pair))
        order = np.argsort(layer.fold.pieces[0].places)
        weight = dequantize(torch.from_numpy(blocks[order]), "Q4_0")
        assert torch.equal(y, x @ weight.T), name
        through = b @ a * scale
        wanted = x @ (weight + through - through.detach()).T
        seed = torch.randn_like(y)
        ours = torch.autograd.grad(y, (x, a, b), seed)
        for one, other in zip(ours, torch.autograd.grad(wanted, (x, a, b), seed), strict=True):
            assert other.abs().max() > 0
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
        with model.disable_adapter():
            assert torch.equal(layer(x), layer.get_base_layer()(x))
        made = layer.blocks()
        assert layer.blocks() is made  # until the pair changes
        with torch.no_grad():
            b.data.add_(0.01)
        assert layer.blocks() is not made


def test_the_quick_step_unpacks_folded_weights_and_not_those_of_their_base(
    base: Base, tiny_project: MakeProject, random_lora: Callable[[Path], None], tmp_path: Path
) -> None:
    random_lora(tmp_path / "lora")
    folding = _folding(load_project(tiny_project()), base, "Q4_0")
    model = attach(load_base(base, Weights(GGUF, "Q4_0", blocks=folding.file)), take_in(tmp_path / "lora", base))
    layers = fold_layers(model, folding)
    assert keep_floats(model)
    quick_step(model, lambda rows: rows, [])
    for layer in layers.values():
        assert isinstance(layer, FoldedLinear)
        assert layer.blocks().keeps(layer.kept_dtype or torch.float64)
        assert not layer.get_base_layer().blocks.keeps(torch.float32)


def _logits(model: Any) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = model(input_ids=torch.arange(3, 40)[None]).logits
    return logits


def test_what_is_trained_is_what_is_proven_and_shipped(
    tiny_project: MakeProject, base: Base, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = {"rows": 2, "min_gain": -100}
    folder = tiny_project({"quantize": "Q4_0", "mode": "merged"}, gate=gate, **{**MERGED, "merged": False})
    assert main(["train", "--project", str(folder), "--merged"]) == 0
    assert "then edgekit export --mode merged" in capsys.readouterr().out
    project = load_project(folder)
    record = json.loads((folder / "adapters" / "small" / "run.json").read_text())
    assert (record["hyperparameters"]["merged"], record["settings"], len(record["folded"])) == (
        True,
        {"merged": True},
        64,
    )
    bundle, manifest = export(project)
    assert manifest.base.merged == ("small",)
    assert not manifest.adapters
    report = json.loads((bundle / "report" / "report.json").read_text())
    assert report["digests"]["folded"] == {"small": record["folded"]}
    assert "to the bit, those that its training ended with" in (bundle / "report" / "report.md").read_text()
    assert manifest.quality["merged"]["small"]["torch_change"] > 0

    shipped = bundle / "base" / "model.gguf"
    trained, _ = trained_model(project, project.adapter(), base)
    alone = load_dense(base, shipped, torch.float32)
    assert torch.equal(_logits(trained._model), _logits(alone))
    state = dequantized_state(shipped, alone.config, hf_folder=base.folder)
    plain = dequantized_state(base_gguf(base, "Q4_0"), alone.config, hf_folder=base.folder)
    assert {name for name in state if not torch.equal(state[name], plain[name])} >= {
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.1.mlp.down_proj.weight",
    }
    with trained._with(False):
        assert torch.equal(_logits(trained._model), _logits(load_dense(base, base_gguf(base, "Q4_0"), torch.float32)))

    asked = evaluate(
        project, artifact=base_gguf(base, "Q4_0"), limit=2, with_base=False
    )  # as a search of settings does
    proven = [row["device"] for row in report["adapters"][0]["rows"]]
    assert [each["answer"] for each in asked.samples] == proven
    with pytest.raises(InputError, match="merged into other blocks"):
        evaluate(project, artifact=base_gguf(base, "Q8_0"))

    weights = folder / "adapters" / "small" / WEIGHTS
    tensors = load_file(weights)
    save_file({name: each * 1.25 if "lora_B" in name else each for name, each in tensors.items()}, weights)
    with pytest.raises(InputError, match="other blocks than its training has ended with"):
        export(project)


def test_it_ships_in_no_other_form(tiny_project: MakeProject) -> None:
    project = load_project(tiny_project({"quantize": "Q4_0"}, **MERGED, max_steps=1))
    train(project)
    for options, words in (
        ({}, "beside them it is another adapter"),
        ({"mode": "merged", "quantize": "Q8_0"}, "export it with --quantize Q4_0"),
        ({"mode": "merged", "quantize": "auto"}, "export it with --quantize Q4_0"),
    ):
        with pytest.raises(UsageError, match=words):
            export(project, **options)


def test_it_goes_on_where_it_was_interrupted(tiny_project: MakeProject, monkeypatch: pytest.MonkeyPatch) -> None:
    project = load_project(tiny_project({"quantize": "Q4_0"}, **MERGED, max_steps=4, keep="best", eval_steps=2))
    unbroken = json.loads((train(project) / "run.json").read_text())
    with monkeypatch.context() as patch:
        _interrupt_at(2, patch)
        with pytest.raises(KeyboardInterrupt):
            train(project)
    resumed = json.loads((train(project, resume=True) / "run.json").read_text())
    assert resumed["folded"] == unbroken["folded"]


def test_preferences_are_learnt_merged(tiny_project: MakeProject) -> None:
    pytest.importorskip("trl")
    folder = tiny_project({"quantize": "Q4_0", "mode": "merged"}, **MERGED, method="dpo")
    for name in ("train", "eval"):
        rows = [{"prompt": f"scratch {n}", "chosen": "pass", "rejected": "fail"} for n in range(6)]
        (folder / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    trained = train(load_project(folder))
    losses = [each["loss"] for each in json.loads((trained / "run.json").read_text())["losses"] if "loss" in each]
    assert losses[0] == pytest.approx(0.693, abs=0.05)  # the reference is the base, which the first step starts from
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("export_settings", "settings", "words"),
    [
        ({}, {"dropout": 0.1}, "merged: true is set"),
        ({}, {"method": "dora"}, "doesn't go with method: dora"),
        ({}, {"connector": True}, "a connector isn't merged"),
        ({}, {"base_precision": "nf4"}, "nf4 has no GGUF blocks"),
        ({"quantize": "auto"}, {}, "export.quantize is auto"),
        ({"format": "onnx", "quantize": "int4"}, {}, "export.format is onnx"),
        ({"quantize": None}, {}, "export.quantize says no type"),
        ({}, {"targets": ["lm_head"]}, "can't fold lm_head"),
    ],
)
def test_what_cannot_be_folded_is_refused_by_name(
    tiny_project: MakeProject,
    export_settings: dict[str, Any],
    settings: dict[str, Any],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tiny_project({"quantize": "Q4_0"} | export_settings, **{**MERGED, **settings})
    assert main(["train", "--project", str(folder)]) in (2, 3)
    assert words in capsys.readouterr().err


def test_experts_are_refused_by_name(tiny_project: MakeProject) -> None:
    from edgekit.training.targets import _check_experts

    adapter = replace(load_project(tiny_project({"quantize": "Q4_0"}, **MERGED)).adapter())
    with pytest.raises(UsageError, match=r"folds linear layers alone, and mlp\.experts\.down_proj"):
        _check_experts(adapter, ["mlp.experts.down_proj"])
