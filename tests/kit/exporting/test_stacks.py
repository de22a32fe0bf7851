"""Stacks of a project: proven against torch, and asked for by their name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from transformers import AutoModelForCausalLM

from edgekit.bases.resolve import project_base
from edgekit.cli.program import main
from edgekit.data import load_rows
from edgekit.evaluation.evaluate import evaluate
from edgekit.evaluation.stacked import stack_subject, stacked_model
from edgekit.exporting.export import export
from edgekit.project import load_project
from edgekit.proof.alive import token_kl
from edgekit_runtime import Runtime
from edgekit_runtime.cli import main as runtime_main
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.manifest import Manifest
from tests.adapters import save_random_lora
from tests.service import serving

SCALES = {"a": 1.0, "b": 0.5}
QUESTION = "scratch of 3 mm"


@pytest.fixture(scope="module")
def project(tiny_chat_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two adapters of random weights with other ranks and layers, and a stack of them."""
    folder = tmp_path_factory.mktemp("stacks")
    torch.manual_seed(0)
    for name, rank, target in (("a", 2, "q_proj"), ("b", 3, "up_proj")):
        model = AutoModelForCausalLM.from_pretrained(tiny_chat_base, dtype=torch.float32)
        save_random_lora(
            model, folder / "made" / name, std=0.1, r=rank, lora_alpha=8, target_modules=["v_proj", target]
        )
    rows = [json.dumps({"prompt": f"scratch of {n} mm", "completion": "rework"}) for n in range(4)]
    (folder / "rows.jsonl").write_text("\n".join(rows))
    document = {
        "project": "stacked",
        "base": str(tiny_chat_base),
        "data": {"train": "rows.jsonl", "eval": "rows.jsonl"},
        "adapters": {name: {"path": f"made/{name}", "system": "Be short."} for name in SCALES},
        "stacks": {"both": {"adapters": SCALES, "generation": {"max_tokens": 9}}},
        "gate": {"min_gain": -100, "rows": 4, "max_mean_kl": 1},
        "export": {"quantize": "F16", "default_adapter": "both"},
    }
    with (folder / "edgekit.yaml").open("w") as file:
        YAML().dump(document, file)
    return folder


@pytest.fixture(scope="module")
def bundle(project: Path) -> tuple[Path, Manifest]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    made = export(load_project(project), output=project / "bundle", accept_loss="random weights")
    torch.set_num_threads(threads)
    return made


def test_torch_adds_what_peft_adds_with_all_of_them_active(project: Path, tiny_chat_base: Path) -> None:
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer

    loaded = load_project(project)
    subject = stack_subject(loaded, "both")
    model, _ = stacked_model(loaded, subject, project_base(loaded))
    rows = load_rows(loaded.eval_files("both")[0])
    prompts = [model.encoder.prompt_ids(row, subject.system) for row in rows]
    answers = [model.encoder.answer_ids(row, subject.system) for row in rows]
    found = list(model.answer_logprobs(rows, prompts, answers, with_adapter=True))
    bare: Any = AutoModelForCausalLM.from_pretrained(tiny_chat_base, dtype=torch.float32)
    peft = PeftModel.from_pretrained(bare, str(project / "made/a"), adapter_name="a")
    peft.load_adapter(str(project / "made/b"), adapter_name="b")
    for layer in peft.modules():
        if isinstance(layer, LoraLayer) and "b" in layer.scaling:
            layer.scaling["b"] *= SCALES["b"]
    peft.base_model.set_adapter(["a", "b"])
    for prompt, answer, ours in zip(prompts, answers, found, strict=True):
        with torch.inference_mode():
            logits = peft(input_ids=torch.tensor([prompt + answer])).logits[0].float()
        theirs = torch.log_softmax(logits[len(prompt) - 1 : -1], -1).numpy()
        assert float(np.abs(token_kl(theirs, ours)).max()) < 1e-5
        with peft.disable_adapter(), torch.inference_mode():
            without = peft(input_ids=torch.tensor([prompt + answer])).logits[0].float()
        assert not torch.allclose(logits, without, atol=1e-2)


def test_a_stack_is_proven_and_answers_as_its_adapters_together(bundle: tuple[Path, Manifest]) -> None:
    folder, manifest = bundle
    (stack,) = manifest.stacks
    assert (stack.name, stack.scales, stack.system) == ("both", SCALES, "Be short.")
    assert stack.generation == {"max_tokens": 9}
    assert stack.quality is not None
    assert stack.quality["faithful"]
    assert stack.quality["alive"]
    assert stack.quality["mean_kl"] < 1e-3
    report = json.loads((folder / "report/report.json").read_text())
    assert report["stacks"] == {"both": SCALES}
    assert [each["adapter"] for each in report["adapters"]] == ["a", "b", "both"]
    assert "both (1 × a + 0.5 × b)" in (folder / "report/report.html").read_text()
    with Runtime(folder) as runtime:
        by_name = runtime.generate(QUESTION, adapter="both")
        told = [{"role": "system", "content": "Be short."}, {"role": "user", "content": QUESTION}]
        scaled = runtime.generate(messages=told, lora=SCALES, max_tokens=9)
        assert (by_name.text, by_name.usage.completion_tokens) == (scaled.text, scaled.usage.completion_tokens)
        by_default = runtime.generate(QUESTION)
        assert (manifest.default_adapter, by_default.adapter, by_default.text) == ("both", "both", by_name.text)
        prompt = runtime.encode([{"role": "user", "content": QUESTION}], "both")
        assert not np.array_equal(runtime.logits(prompt, "both"), runtime.logits(prompt, "a"))
        with pytest.raises(InputError, match="both is a stack, and lora takes adapters"):
            runtime.generate(QUESTION, lora={"both": 1.0})
        runtime.remove_adapter("b")
        assert not runtime.manifest.stacks
        with pytest.raises(InputError, match="the stack both needs b, which doesn't answer"):
            runtime.generate(QUESTION, adapter="both")
        with pytest.raises(InputError, match="the stack both needs b, which doesn't answer"):
            runtime.generate(QUESTION)  # the base alone is no answer in its place
        assert runtime.generate(QUESTION, adapter="a", max_tokens=2).text


def test_a_stack_is_evaluated_as_adapters_are(
    bundle: tuple[Path, Manifest], project: Path, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    report = json.loads((bundle[0] / "report/report.json").read_text())
    proven = next(each for each in report["adapters"] if each["adapter"] == "both")
    loaded = load_project(project)
    found = {
        "torch": evaluate(loaded, "both"),
        "device": evaluate(loaded, "both", artifact=bundle[0]),
        "gguf": evaluate(loaded, "both", artifact=bundle[0] / "base/model.gguf", with_base=False),
    }
    for each in found.values():
        assert (each.adapter, each.rows) == ("both", 4)
    assert 100 * found["torch"].adapter_score.value == pytest.approx(proven["torch_score"])
    assert 100 * found["device"].adapter_score.value == pytest.approx(proven["device_score"])
    assert found["gguf"].samples == found["device"].samples
    assert found["torch"].base_score is not None
    assert not (project / "adapters").exists()
    assert main(["evaluate", "both", "--project", str(project), "--no-base", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == found["torch"].samples
    with pytest.raises(InputError, match="has no adapter other|no adapter 'other'"):
        evaluate(loaded, "other")


def test_a_bundle_without_the_stack_is_told_before_anything_is_loaded(
    bundle: tuple[Path, Manifest], project: Path, tmp_path: Path
) -> None:
    document = json.loads((bundle[0] / "manifest.json").read_text())
    del document["stacks"]
    (tmp_path / "manifest.json").write_text(json.dumps(document | {"default_adapter": None}))
    with pytest.raises(InputError, match="has no stack both: export it with all of its adapters"):
        evaluate(load_project(project), "both", artifact=tmp_path)


def test_a_plan_says_what_a_stack_costs(
    bundle: tuple[Path, Manifest], project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device = ["--device", "raspberry-pi-5", "--prompt-tokens", "16", "--context", "64", "--json"]
    assert main(["plan", str(bundle[0]), *device]) == 0
    shares = {name: each["value"] for name, each in json.loads(capsys.readouterr().out)["adapter_shares"].items()}
    assert 1 / shares["both"] - 1 == pytest.approx(sum(1 / shares[name] - 1 for name in SCALES), rel=1e-9)
    assert shares["both"] < min(shares[name] for name in SCALES) < 1
    assert main(["plan", "--project", str(project), *device]) == 0
    assert (
        json.loads(capsys.readouterr().out)["adapter_shares"] == {}
    )  # nobody has written ranks of adapters with a path


def test_the_service_takes_a_stack_as_a_model(bundle: tuple[Path, Manifest]) -> None:
    with serving(bundle[0]) as service:
        cards = {card["id"]: card for card in service.http.get("/v1/models").json()["data"]}
        assert cards["both"]["adapters"] == [{"name": name, "scale": scale} for name, scale in SCALES.items()]
        asked = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 5}
        found = service.http.post("/v1/chat/completions", json=asked | {"model": "both"}).json()
        assert "choices" in found, found
        lora = [{"id": name, "scale": scale} for name, scale in SCALES.items()]
        told = [{"role": "system", "content": "Be short."}, *asked["messages"]]
        scaled = service.http.post(
            "/v1/chat/completions", json=asked | {"model": "base", "lora": lora, "messages": told}
        ).json()
        assert "choices" in scaled, scaled
        assert found["model"] == "both"
        assert service.http.get("/status").json()["bundle"]["default_adapter"] == "both"
        assert found["choices"][0]["message"] == scaled["choices"][0]["message"]
        assert service.http.post("/v1/unload_lora_adapter", json={"lora_name": "a"}).status_code == 200
        lacking = service.http.post("/v1/chat/completions", json=asked | {"model": "both"})
        assert (lacking.status_code, "the stack both needs a, which doesn't answer" in lacking.text) == (400, True)
        assert service.http.get("/v1/models/both").status_code == 404


def test_a_stack_goes_along_with_all_its_adapters_alone(
    project: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, one_thread: None
) -> None:
    with pytest.raises(InputError, match="default_adapter both is not among the exported adapters"):
        export(load_project(project), ["a"], output=tmp_path / "one", accept_loss="random weights")
    loaded = load_project(project)
    alone = replace(loaded, export=replace(loaded.export, default_adapter=None))
    _, manifest = export(alone, ["a"], output=tmp_path / "one", accept_loss="random weights")
    assert manifest.default_adapter == "a"
    assert not manifest.stacks
    assert b'"stacks"' not in (tmp_path / "one/manifest.json").read_bytes()
    assert "the stack both is left out: b is not exported" in caplog.text


def test_bench_has_a_line_for_a_stack(bundle: tuple[Path, Manifest], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(bundle[0]), "--quick", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [each["adapter"] for each in document["results"]] == ["base", "a", "b", "both"]


def test_a_doctor_tries_a_stack(bundle: tuple[Path, Manifest], capsys: pytest.CaptureFixture[str]) -> None:
    assert runtime_main(["doctor", str(bundle[0])]) == 0, capsys.readouterr().out
    assert "effect of both: its logits are others than the base's" in capsys.readouterr().out


def test_onnx_runtime_adds_them_too(project: Path, tmp_path: Path, one_thread: None) -> None:
    loaded = load_project(project)
    folder, manifest = export(
        loaded, output=tmp_path / "onnx", format="onnx", quantize="fp32", accept_loss="random weights"
    )
    (stack,) = manifest.stacks
    assert stack.quality is not None
    assert stack.quality["alive"]
    assert stack.quality["mean_kl"] < 1e-3
    with Runtime(folder) as runtime:
        told = [{"role": "system", "content": "Be short."}, {"role": "user", "content": QUESTION}]
        scaled = runtime.generate(messages=told, lora=SCALES, max_tokens=9)
        assert runtime.generate(QUESTION, adapter="both").text == scaled.text
