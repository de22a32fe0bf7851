"""Prompt tuning and P-tuning: what is learnt, what is left behind, and where it is refused before training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from edgekit.bases.resolve import resolve_base
from edgekit.cli import main
from edgekit.encoding.asking import asked
from edgekit.encoding.encoder import Encoder
from edgekit.evaluation.evaluate import evaluate
from edgekit.exporting.export import export
from edgekit.exporting.preflight import check_merge
from edgekit.project import load_project
from edgekit.training import virtual_tokens
from edgekit.training.preflight import check_train
from edgekit.training.run import train
from edgekit.training.step import quick_step
from edgekit.training.virtual_tokens import wrap_with_virtual_tokens
from edgekit_exporters.peft.prompts import learn_prompt, prompt_config
from edgekit_runtime import Runtime
from edgekit_runtime.errors import InputError, UsageError

from .quick import ATTENTION_ONLY, bare, learnt, padded, rows
from .test_run import _interrupt_at

MakeProject = Callable[..., Path]
WEIGHTS = "adapter_model.safetensors"
pytestmark = pytest.mark.usefixtures("one_thread")
PLAIN: dict[str, Any] = {"rank": 16, "virtual_tokens": 5}  # the tiny project has a rank otherwise


def _rows(folder: Path) -> torch.Tensor:
    return load_file(folder / WEIGHTS)["prompt_embeddings"]


@pytest.mark.parametrize("method", ["prompt-tuning", "p-tuning"])
@pytest.mark.parametrize("precision", ["gguf", "nf4"])
def test_it_trains_on_every_kind_of_base_what_peft_loads(
    tiny_project: MakeProject, tiny_chat_base: Path, method: str, precision: str
) -> None:
    project = load_project(tiny_project(method=method, base_precision=precision, samples=1, **PLAIN))
    folder = train(project)
    assert _rows(folder).shape == (5, 64)
    base = AutoModelForCausalLM.from_pretrained(tiny_chat_base, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, str(folder))
    assert torch.equal(model.get_prompt(1)[0].detach(), _rows(folder))
    settings = json.loads((folder / "run.json").read_text())["hyperparameters"]
    assert settings["virtual_tokens"] == 5
    assert settings["learning_rate"] == (0.1 if method == "prompt-tuning" else 0.01)
    assert {"rank", "targets"}.isdisjoint(settings)
    assert str(tiny_chat_base.parent) not in (folder / "adapter_config.json").read_text()


def test_prompt_tuning_starts_from_its_text(tiny_chat_base: Path, tiny_project: MakeProject) -> None:
    project = load_project(tiny_project(method="prompt-tuning", init_text="Say pass or fail.", **PLAIN))
    encoder = Encoder(resolve_base(str(tiny_chat_base)).folder)
    model = AutoModelForCausalLM.from_pretrained(tiny_chat_base, dtype=torch.float32)
    wrapped = wrap_with_virtual_tokens(model, project.adapter(), "fp32", encoder, checkpointing=False)
    ids = encoder.tokenizer("Say pass or fail.", add_special_tokens=False)["input_ids"]
    wanted = model.get_input_embeddings().weight[torch.tensor((ids * 5)[:5])]
    assert torch.equal(wrapped.get_prompt(1)[0], wanted)
    trained = [name for name, each in wrapped.named_parameters() if each.requires_grad]
    assert trained == ["prompt_encoder.default.embedding.weight"]


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gemma3_text"])
def test_the_quick_step_learns_what_pefts_own_does(kind: str) -> None:
    torch.manual_seed(1)
    model = learn_prompt(bare(kind, ATTENTION_ONLY[kind]), prompt_config(4, 32))
    torch.nn.init.normal_(model.prompt_encoder["default"].embedding.weight, std=0.3)
    plain = learnt(model, padded(rows()))
    step = quick_step(model, padded, rows(), packs=False)
    assert step.collator is padded
    ours = learnt(model, padded(rows()))
    assert plain[1].abs().max() > 0
    torch.testing.assert_close(ours[0], plain[0])
    torch.testing.assert_close(ours[1], plain[1], rtol=1e-3, atol=2e-5 * float(plain[1].abs().max()))


def test_a_batch_of_prompts_is_answered_as_each_alone(tiny_chat_base: Path) -> None:
    torch.manual_seed(4)
    base = AutoModelForCausalLM.from_pretrained(tiny_chat_base, dtype=torch.float32)
    model = learn_prompt(base, prompt_config(6, 64)).eval()
    torch.nn.init.normal_(model.prompt_encoder["default"].embedding.weight, std=0.5)
    prompts = [[7 * at + 5 for at in range(length)] for length in (3, 19, 8)]
    options: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    with torch.inference_mode():
        batch = asked(model, prompts, 0)
        found = batch.model.generate(**batch.inputs, **options)[:, batch.width :].tolist()
        plain = asked(model, prompts, 0, with_adapter=False)
        without = plain.model.generate(**plain.inputs, **options)[:, plain.width :].tolist()
        for prompt, answer in zip(prompts, found, strict=True):
            ids = torch.tensor([prompt])
            for token in answer:  # PEFT's own forward, token by token
                assert token == int(model(input_ids=ids).logits[0, -1].argmax())
                ids = torch.cat([ids, torch.tensor([[token]])], 1)
    assert found != without


@pytest.mark.parametrize("method", ["prompt-tuning", "p-tuning"])
def test_resuming_gives_what_an_unbroken_run_gives(
    tiny_project: MakeProject, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    project = load_project(tiny_project(method=method, max_steps=6, **PLAIN))
    unbroken = _rows(train(project))
    with monkeypatch.context() as patch:
        _interrupt_at(3, patch)
        with pytest.raises(KeyboardInterrupt, match="--resume"):
            train(project)
    assert torch.equal(_rows(train(project, resume=True)), unbroken)


def test_the_best_state_of_p_tuning_is_what_was_evaluated(
    tiny_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[int, torch.Tensor] = {}
    whole = virtual_tokens.KeptEncoder.on_save

    def on_save(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
        kept[state.global_step] = more["model"].get_prompt_embedding_to_save("default")
        whole(self, args, state, control, **more)

    monkeypatch.setattr(virtual_tokens.KeptEncoder, "on_save", on_save)
    settings = {"learning_rate": 0.5, "keep": "best", "eval_steps": 1, "max_steps": 4}
    folder = train(load_project(tiny_project(method="p-tuning", **settings, **PLAIN)))
    step = json.loads((folder / "run.json").read_text())["kept_step"]
    assert len({each.sum().item() for each in kept.values()}) == len(kept) > 1
    assert torch.equal(_rows(folder), kept[step])


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"method": "prompt-tuning", "rank": 8}, "trains no layer"),
        ({"method": "prompt-tuning", "targets": ["q_proj"]}, "trains no layer"),
        ({"method": "p-tuning", "dropout": 0.1}, "trains no layer"),
        ({"method": "p-tuning", "init_text": "Inspect."}, "where prompt tuning starts"),
        ({"virtual_tokens": 8}, "only virtual tokens are counted"),
        ({"method": "p-tuning", "virtual_tokens": 5000}, "1024"),
    ],
)
def test_keys_that_mean_nothing_to_the_method_are_refused(
    tiny_project: MakeProject, settings: dict[str, Any], why: str
) -> None:
    with pytest.raises(InputError, match=why):
        load_project(tiny_project(**({"rank": 16} | settings)))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"format": "onnx", "quantize": "int8"}, "an ONNX base takes token ids alone"),
        ({"mode": "merged"}, "change no weight to merge into"),
        ({"device": "phone-browser"}, "the engine of a page .* takes no embeddings"),
    ],
)
def test_a_target_that_cannot_use_it_is_told_before_training(
    tiny_project: MakeProject, options: dict[str, Any], why: str
) -> None:
    project = load_project(tiny_project(method="prompt-tuning", export=options, **PLAIN))
    with pytest.raises(UsageError, match=why):
        check_train(project, ["small"])
    with pytest.raises(UsageError, match="change no weight to merge into"):
        check_merge(project, None)


def test_a_plan_for_a_page_tells_it(tiny_project: MakeProject, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_project(method="p-tuning", **PLAIN)
    assert main(["plan", "--device", "phone-browser", "--project", str(folder)]) == 2
    assert "takes no embeddings" in capsys.readouterr().err


def test_rows_and_virtual_tokens_share_the_context(tiny_project: MakeProject) -> None:
    with pytest.raises(InputError, match="max_length 255 and 5 virtual tokens are more than the base's context of 256"):
        train(load_project(tiny_project(method="prompt-tuning", max_length=255, **PLAIN)))


def test_what_was_trained_is_exported_proven_and_evaluated(tiny_project: MakeProject) -> None:
    # So many steps that no two tokens of these answers are as likely but for rounding: the weights are random.
    folder = tiny_project(method="prompt-tuning", base_precision="gguf", max_steps=16, **PLAIN)
    project = load_project(folder)
    train(project)
    bundle, manifest = export(project)
    (entry,) = manifest.adapters
    assert (entry.kind, entry.virtual_tokens, entry.rank, entry.targets) == ("prompt", 5, 0, ())
    assert entry.quality is not None
    assert entry.quality["faithful"]
    assert entry.quality["other_prompts"] == 0
    assert 0 <= entry.quality["mean_kl"] < 0.02
    assert abs(entry.quality["reach"] - 1) < 0.1
    assert (bundle / entry.file).stat().st_size < 4096
    torch_answers = [each["answer"] for each in evaluate(project).samples]
    assert torch_answers == [each["answer"] for each in evaluate(project, artifact=bundle).samples]
    with Runtime(bundle) as runtime:
        assert runtime.generate("scratch of 1 mm", max_tokens=4).adapter == "small"
    with pytest.raises(UsageError, match="change no weight to merge into"):
        export(project, mode="merged")
