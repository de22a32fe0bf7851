"""Quick steps learn what plain ones of transformers and PEFT learn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgekit.bases.quantized import QuantizedLinear
from edgekit.bases.resolve import resolve_base
from edgekit.bases.torch_model import load_base
from edgekit.bases.weights import Weights
from edgekit.project import Adapter, load_project
from edgekit.training import answer_loss, packing
from edgekit.training import trainer as trainer_module
from edgekit.training.answer_loss import learn_answers_only
from edgekit.training.lora_product import compute_pairs_at_once
from edgekit.training.packing import collator_for, pack
from edgekit.training.run import train
from edgekit.training.step import Step, keep_floats, quick_step
from edgekit.training.trainer import training_arguments
from edgekit_exporters.gguf.base import base_gguf

from .quick import ATTENTION_ONLY, VOCABULARY, WITH_STATE, adapted, learnt, padded, rows

MakeProject = Callable[..., Path]


def assert_same(ours: tuple[torch.Tensor, torch.Tensor], theirs: tuple[torch.Tensor, torch.Tensor]) -> None:
    assert theirs[1].abs().max() > 0
    torch.testing.assert_close(ours[0], theirs[0])
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-3, atol=2e-5 * float(theirs[1].abs().max()))


@pytest.mark.parametrize("kind", ATTENTION_ONLY)
def test_loss_and_gradients_equal_the_plain_ones(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted(kind, ATTENTION_ONLY[kind])
    plain = learnt(model, padded(rows()))
    monkeypatch.setattr(answer_loss, "MAX_LOGITS", 5 * VOCABULARY)  # in four pieces
    collator = quick_step(model, padded, rows()).collator
    assert collator is pack
    assert_same(learnt(model, padded(rows())), plain)
    assert_same(learnt(model, collator(rows())), plain)


@pytest.mark.parametrize("kind", WITH_STATE)
def test_rows_whose_neighbours_would_be_seen_are_not_packed(kind: str) -> None:
    model = adapted(kind, WITH_STATE[kind])
    plain = learnt(model, padded(rows())) if kind != "qwen3_5_text" else None  # its plain training keeps a cache
    collator = quick_step(model, padded, rows()).collator
    assert collator is padded
    ours = learnt(model, collator(rows()))
    assert ours[1].isfinite().all()
    if plain is not None:
        assert_same(ours, plain)


def test_a_packed_row_knows_nothing_of_its_neighbours() -> None:
    model = adapted("llama", {})
    step = quick_step(model, padded, rows())
    assert (step.collator, step.pads) == (pack, False)
    first, second, third = rows()
    other = {**second, "input_ids": second["input_ids"][:5] + third["input_ids"][5:10] + second["input_ids"][10:]}

    def hidden(neighbour: Any) -> torch.Tensor:
        batch = {key: each for key, each in pack([first, neighbour]).items() if key != "labels"}
        with torch.no_grad():
            states: torch.Tensor = model.get_base_model().model(**batch).last_hidden_state
        return states[0, : len(first["input_ids"])]

    torch.testing.assert_close(hidden(second), hidden(other), rtol=0, atol=1e-6)


def test_what_rows_share_ends_before_the_place_that_says_the_first_label() -> None:
    first, second = rows()[:2]
    first["labels"] = [-100] * 4 + first["input_ids"][4:]  # the place before says it, which is no longer shared
    batch = pack([first, second])
    assert batch["input_ids"].shape[1] == len(first["labels"]) + len(second["labels"]) - 3
    assert int((batch["labels"][:, 1:] != -100).sum()) == sum(
        label != -100 for each in (first, second) for label in each["labels"]
    )


def test_one_row_and_equal_rows_can_be_packed() -> None:
    model = adapted("llama", {})
    batches = [rows()[:1], [rows()[0]] * 3]
    plain = [learnt(model, padded(each)) for each in batches]
    collator = quick_step(model, padded, rows()).collator
    for each, theirs in zip(batches, plain, strict=True):
        assert_same(learnt(model, collator(each)), theirs)


def test_accumulated_batches_weigh_by_their_labels() -> None:
    model = adapted("llama", {})
    plain = learnt(model, padded(rows()))
    collator = quick_step(model, padded, rows()).collator
    count = sum(label != -100 for each in rows() for label in each["labels"])
    parts = [learnt(model, collator(part), num_items_in_batch=count) for part in (rows()[:1], rows()[1:])]
    assert_same((parts[0][0] + parts[1][0], parts[0][1] + parts[1][1]), plain)


def test_smoothed_labels_are_those_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted("gemma2", ATTENTION_ONLY["gemma2"])
    batch = padded(rows())
    labels = batch["labels"]

    def smoothed() -> torch.Tensor:
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
        loss: torch.Tensor = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels[:, 1:].flatten(), label_smoothing=0.1
        )
        return loss

    model.zero_grad()
    (theirs := smoothed()).backward()
    gradients = torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None])
    monkeypatch.setattr(answer_loss, "MAX_LOGITS", 5 * VOCABULARY)
    learn_answers_only(model, label_smoothing=0.1)
    assert_same(learnt(model, batch), (theirs.detach(), gradients))


def test_an_output_matrix_that_is_trained_too_gets_its_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted("llama", {}, target_modules=["q_proj", "lm_head"])
    plain = learnt(model, padded(rows()))
    monkeypatch.setattr(answer_loss, "MAX_LOGITS", 5 * VOCABULARY)
    quick_step(model, padded, rows())
    assert_same(learnt(model, padded(rows())), plain)


def test_without_labels_the_model_answers_as_before() -> None:
    model = adapted("llama", {})
    ids = torch.tensor([rows()[0]["input_ids"]])
    with torch.no_grad():
        before = model(input_ids=ids).logits
        quick_step(model, padded, rows())
        torch.testing.assert_close(model(input_ids=ids).logits, before)
        assert model.generate(input_ids=ids, max_new_tokens=3, do_sample=False).shape[1] == ids.shape[1] + 3


def test_a_model_that_calls_only_parts_of_its_backbone_stays_as_it_is() -> None:
    model = adapted("opt", {"word_embed_proj_dim": 32})
    assert not learn_answers_only(model)
    step = quick_step(model, padded, rows())
    assert (step.collator, step.pads) == (padded, True)


def test_layers_that_are_no_plain_lora_stay_as_they_are() -> None:
    assert compute_pairs_at_once(adapted("llama", {}, use_dora=True)) == 0
    assert compute_pairs_at_once(adapted("llama", {})) == 21


def test_dropout_leaves_out_its_share_and_is_fair(monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted("llama", {}, lora_dropout=0.25)
    batch = padded(rows())
    quick_step(model, padded, rows())
    torch.manual_seed(0)
    first = learnt(model, batch)
    assert not torch.equal(learnt(model, batch)[0], first[0])
    torch.manual_seed(0)
    assert torch.equal(learnt(model, batch)[0], first[0])  # the seed decides
    from edgekit.training.lora_product import _kept

    kept = _kept(torch.empty(400, 999), 0.25)
    assert abs(float(kept.float().mean()) - 0.75) < 0.01
    model.eval()
    with torch.no_grad():
        assert torch.equal(model(**batch).loss, model(**batch).loss)


def test_the_check_of_packed_rows_sees_nan_and_models_that_are_dead() -> None:
    model = adapted("llama", {})
    norm = model.get_base_model().model.norm
    for value in (float("nan"), 0.0):
        norm.weight.data.fill_(value)
        assert collator_for(model, padded, rows()) is padded


def test_kept_floats_are_those_of_the_blocks_to_the_bit(tiny_chat_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = resolve_base(str(tiny_chat_base))
    model = load_base(base, Weights("gguf", "Q4_0", blocks=base_gguf(base, "Q4_0")))
    layer = next(each for each in model.modules() if isinstance(each, QuantizedLinear))
    before = {dtype: layer.blocks.dequantize(dtype) for dtype in (torch.float32, torch.bfloat16)}
    monkeypatch.setattr("edgekit.training.step.KEPT_SHARE", 0.0)
    assert not keep_floats(model)
    monkeypatch.setattr("edgekit.training.step.KEPT_SHARE", 0.25)
    assert keep_floats(model)
    assert any(layer.blocks.keeps(dtype) for dtype in before)
    for dtype, floats in before.items():
        assert torch.equal(layer.blocks.dequantize(dtype), floats)
        assert torch.equal(layer.blocks.dequantize(dtype, 1, 3), floats[1:3])


def test_rows_are_grouped_by_length_only_where_that_saves_padding(tmp_path: Path) -> None:
    arguments = [training_arguments(Adapter("a"), 10, tmp_path, pads=pads) for pads in (True, False)]
    assert [each["train_sampling_strategy"] for each in arguments] == ["group_by_length", "random"]


def test_training_has_the_loss_curve_of_plain_steps(tiny_project: MakeProject, monkeypatch: pytest.MonkeyPatch) -> None:
    project = load_project(tiny_project(max_steps=20, base_precision="gguf", export={"quantize": "Q8_0"}))

    def curve() -> list[float]:
        import json

        record = json.loads((train(project) / "run.json").read_text())
        return [entry["loss"] for entry in record["losses"] if "loss" in entry]

    packs = []
    monkeypatch.setattr(packing, "pack", lambda examples, pack=pack: packs.append(1) or pack(examples))
    quick = curve()
    assert len(packs) > 20
    monkeypatch.setattr(
        trainer_module, "quick_step", lambda model, padded, examples, **_: Step(padded, False, pads=False)
    )
    plain = curve()
    assert len(plain) == 20
    assert plain[-1] < plain[0]
    assert quick == pytest.approx(plain, rel=0.01)
