"""The gate has teeth: a faithful export passes, each kind of sabotage is refused, and nothing is lost."""

from __future__ import annotations

import json
import math
import shutil
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file

import edgekit.exporting.export
import edgekit.proof.reference
import edgekit_exporters.bundle
from edgekit.bases.weights import Weights
from edgekit.cli import main
from edgekit.data import data_digest
from edgekit.evaluation.torch_model import TorchModel
from edgekit.proof import gate, ladder
from edgekit_exporters.gguf import adapter as gguf_adapter
from edgekit_exporters.peft.canonical import CanonicalAdapter, LowRank
from edgekit_runtime.formats.adapter import AdapterFacts
from edgekit_runtime.formats.bundle import file_digest
from edgekit_runtime.prompts.template import TemplateFacts
from edgekit_runtime.runtime import Runtime
from edgekit_runtime.scheduler import decoding


@pytest.fixture
def trained(tiny_project: Callable[..., Path], random_lora: Callable[[Path], None]) -> Path:
    folder = tiny_project(system="You inspect parts.")
    random_lora(folder / "adapters" / "small")
    return folder


def _export(folder: Path, *options: str) -> int:
    return main(["export", "--project", str(folder), *options])


def _manifest(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "dist" / "line-3" / "manifest.json").read_text())
    return document


def test_a_faithful_export_passes_with_its_figures_in_the_manifest(trained: Path) -> None:
    assert _export(trained) == 0
    manifest = _manifest(trained)
    assert manifest["quality"]["gate"] == "passed"
    quality = manifest["adapters"][0]["quality"]
    assert quality["mean_kl"] < 1e-3
    assert quality["top1"] > 99
    assert quality["other_prompts"] == 0
    listed = {entry["path"] for entry in manifest["files"]}
    assert {"report/report.json", "report/report.md", "report/report.html"} <= listed
    assert (quality["alive"], quality["faithful"], quality["good"]) == (True, True, True)
    report = _report(trained / "dist" / "line-3" / "report" / "report.json")
    assert [row["where"] for row in report["adapters"][0]["rows"]] == [
        f"data/eval.jsonl:{number}" for number in range(1, 5)
    ]
    page = (trained / "dist" / "line-3" / "report" / "report.html").read_text()
    assert "The adapter small on base tiny-chat, exported for llama.cpp at F16, passed" in page
    assert "scratch of 0 mm" in page  # the prompt
    assert "<svg" in page
    assert "://" not in page  # it opens without a network


def _report(file: Path) -> dict[str, Any]:
    """As a strict reader takes it."""

    def refused(word: str) -> NoReturn:
        raise AssertionError(f"{word} is no JSON")

    document: dict[str, Any] = json.loads(file.read_text(), parse_constant=refused)
    return document


def _with_gate(folder: Path, **settings: Any) -> None:
    """The project of ``folder`` with another gate."""
    file = folder / "edgekit.yaml"
    document = YAML(typ="safe").load(file)
    YAML().dump(document | {"gate": settings}, file)


def _scaled(canonical: CanonicalAdapter) -> CanonicalAdapter:
    return CanonicalAdapter({name: replace(layer, b=layer.b * 3) for name, layer in canonical.layers.items()})


def _shuffled(canonical: CanonicalAdapter) -> CanonicalAdapter:
    """Each layer's update goes to the other block."""

    def other(name: str) -> str:
        return name.replace(".0.", ".x.").replace(".1.", ".0.").replace(".x.", ".1.")

    return CanonicalAdapter({name: canonical.layers[other(name)] for name in canonical.layers})


def _lost(canonical: CanonicalAdapter) -> CanonicalAdapter:
    def none(layer: LowRank) -> LowRank:
        return replace(layer, b=layer.b * 0)

    return CanonicalAdapter({name: none(layer) for name, layer in canonical.layers.items()})


@pytest.mark.parametrize("sabotage", [_scaled, _shuffled], ids=["scaled B", "shuffled layers"])
def test_a_sabotaged_adapter_is_refused(
    trained: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    sabotage: Callable[[CanonicalAdapter], CanonicalAdapter],
) -> None:
    honest = gguf_adapter.canonicalize
    monkeypatch.setattr(gguf_adapter, "canonicalize", lambda *arguments: sabotage(honest(*arguments)))
    assert _export(trained) == 4
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "mean KL" in message
    assert "--accept-loss" in message
    assert not (trained / "dist" / "line-3").exists()
    assert (trained / "dist" / "line-3-refused" / "report.html").exists()


def test_another_base_of_the_same_shape_is_refused(
    trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_chat_base: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from edgekit_exporters.gguf.base import gguf_from_folder

    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_pretrained(tiny_chat_base, dtype=torch.float32)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "other")
    AutoTokenizer.from_pretrained(tiny_chat_base).save_pretrained(tmp_path / "other")
    gguf_from_folder(tmp_path / "other", tmp_path / "other.gguf", "F16")
    swapped = Weights("gguf", "F16", blocks=tmp_path / "other.gguf")
    monkeypatch.setattr(edgekit.exporting.export, "with_blocks", lambda *_: swapped)
    assert _export(trained) == 4


def test_another_chat_template_is_refused(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
    monkeypatch.setattr(edgekit_exporters.bundle, "template_facts", lambda _: TemplateFacts.of(template, {}))
    assert _export(trained) == 4
    assert "4 of 4 prompts become other tokens" in capsys.readouterr().err


def test_a_refusal_leaves_the_earlier_bundle(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _export(trained) == 0
    version = _manifest(trained)["version"]
    honest = gguf_adapter.canonicalize
    monkeypatch.setattr(gguf_adapter, "canonicalize", lambda *arguments: _scaled(honest(*arguments)))
    assert _export(trained) == 4
    assert _manifest(trained)["version"] == version


def test_an_accepted_loss_ships_with_its_reason(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = gguf_adapter.canonicalize
    monkeypatch.setattr(gguf_adapter, "canonicalize", lambda *arguments: _scaled(honest(*arguments)))
    assert _export(trained, "--accept-loss", "trial on line 3 only") == 0
    quality = _manifest(trained)["quality"]
    assert (quality["gate"], quality["accepted"]) == ("failed", "trial on line 3 only")
    assert any("mean KL" in reason for reason in quality["reasons"])


def test_a_gate_that_is_switched_off_is_told(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _with_gate(trained, rows=0)
    assert _export(trained) == 0
    assert _manifest(trained)["quality"]["gate"] == "skipped"
    assert "switched off" in capsys.readouterr().err


def test_a_merged_bundle_is_proven_too(trained: Path) -> None:
    assert _export(trained, "--mode", "merged") == 0
    manifest = _manifest(trained)
    assert manifest["quality"]["gate"] == "passed"
    assert manifest["adapters"] == []


def test_auto_takes_the_smallest_quantization_that_passes(trained: Path) -> None:
    assert _export(trained, "--quantize", "auto") == 0
    manifest = _manifest(trained)
    rungs = manifest["quality"]["ladder"]
    chosen = manifest["base"]["quantization"]
    may_ship = [rung for rung in rungs if not rung["refused"]]
    assert chosen == min(may_ship, key=lambda rung: rung["size_mb"])["quantization"]
    assert {"F16", "Q8_0", "Q4_0"} <= {rung["quantization"] for rung in rungs}
    assert "Quantizations measured" in (trained / "dist" / "line-3" / "report" / "report.html").read_text()


def test_auto_drops_the_report_of_a_smaller_type_that_was_refused(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _with_gate(trained, max_mean_kl=100, min_gain=-100)
    monkeypatch.setattr(ladder, "MEASURED", ("F16", "Q4_0"))
    honest = gate.unfaithful

    def unfaithful(proof: Any, limits: Any) -> list[str]:
        return ["it loses points"] if proof.quantization == "Q4_0" else honest(proof, limits)

    monkeypatch.setattr(gate, "unfaithful", unfaithful)
    refused = trained / "dist" / "line-3-refused"
    assert _export(trained, "--quantize", "Q4_0") == 4
    assert (refused / "report.html").exists()
    assert _export(trained, "--quantize", "auto") == 0
    assert "Q4_0 is refused: small: it loses points" in capsys.readouterr().err
    assert not refused.exists()
    manifest = _manifest(trained)
    assert manifest["base"]["quantization"] == "F16"
    rungs = {rung["quantization"]: rung["refused"] for rung in manifest["quality"]["ladder"]}
    assert rungs == {"Q4_0": ["small: it loses points"], "F16": []}


def test_auto_says_what_it_tried_when_nothing_is_good_enough(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ladder, "MEASURED", ("Q8_0", "Q4_0"))
    assert _export(trained, "--quantize", "auto", "--max-mb", "0.001") == 4
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "no quantization is good enough" in message
    assert "Q8_0: " in message


def test_a_dora_adapter_is_refused_unless_it_is_merged_or_refitted(
    tiny_project: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_project(method="dora", max_steps=2)
    assert main(["train", "--project", str(folder)]) == 0
    assert _export(folder) == 3
    assert "--mode merged, or --refit-rank" in capsys.readouterr().err
    assert _export(folder, "--refit-rank", "32") == 0
    assert "of its change is lost" in capsys.readouterr().err
    assert _export(folder, "--mode", "merged") == 0


def test_activated_adapters_are_proven_as_such_and_share_the_base_s_cells(
    tiny_project: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_project(method="alora", base_precision="gguf", learning_rate=0.05, export={"quantize": "Q4_0"})
    assert main(["train", "--project", str(folder)]) == 0
    assert _export(folder, "--mode", "merged") == 3
    assert "export it with --mode separate" in capsys.readouterr().err
    assert _export(folder) == 0
    assert _manifest(folder)["adapters"][0]["quality"]["mean_kl"] < 0.01
    with Runtime(folder / "dist" / "line-3", parallel=2) as runtime:
        question = "scratch of 7 mm, and " * 20
        whole = runtime.generate(question, adapter="base", max_tokens=4)
        own = runtime.generate(question, adapter="small", max_tokens=4)
        invocation = AdapterFacts.read(runtime.adapter_path("small")).invocation
    assert own.usage.cached_tokens == whole.usage.prompt_tokens - len(invocation)


def test_an_adapter_that_is_lost_on_the_way_is_dead_and_no_reason_ships_it(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = gguf_adapter.canonicalize
    monkeypatch.setattr(gguf_adapter, "canonicalize", lambda *arguments: _lost(honest(*arguments)))
    assert _export(trained, "--accept-loss", "never mind") == 3
    assert "small-1.0.0.gguf changes nothing: in each of its pairs A or B is all zeros" in capsys.readouterr().err
    assert not (trained / "dist" / "line-3").exists()


def test_a_merge_that_loses_the_adapter_is_dead_too(
    trained: Path, monkeypatch: pytest.MonkeyPatch, tiny_chat_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def nothing_merged(base: Any, adapters: Any, destination: Path) -> None:
        shutil.copytree(tiny_chat_base, destination)

    monkeypatch.setattr(edgekit.exporting.export, "merge_to_folder", nothing_merged)
    assert _export(trained, "--mode", "merged", "--accept-loss", "never mind") == 3
    assert "adapter small changes nothing on the device engine" in capsys.readouterr().err


def test_an_adapter_that_torch_has_lost_as_well_is_dead(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever takes adapters in: the proof sees that both sides lost the same."""
    honest = edgekit.proof.reference.trained_model

    def bare(project: Any, adapter: Any, base: Any) -> Any:
        model, trained_at = honest(project, adapter, base)
        for name, parameter in model._model.named_parameters():
            if "lora_B" in name:
                parameter.data.zero_()
        return model, trained_at

    monkeypatch.setattr(edgekit.proof.reference, "trained_model", bare)
    assert _export(trained, "--accept-loss", "never mind") == 3
    assert "adapter small changes nothing: torch gives the same logits" in capsys.readouterr().err


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_on_the_device_alone_is_refused_with_side_and_row(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bad: float
) -> None:
    honest = Runtime.logits

    def broken(self: Runtime, *arguments: Any, **options: Any) -> Any:
        logits = honest(self, *arguments, **options)
        logits[0, 7] = bad  # of the prompt
        return logits

    monkeypatch.setattr(Runtime, "logits", broken)
    assert _export(trained, "--accept-loss", "never mind") == 3
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "adapter small gives NaN or infinity instead of logits in the device engine" in message
    assert "eval.jsonl:1" in message


def test_what_is_no_number_in_an_answer_is_refused_too(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beyond the tokens that are compared one by one."""
    honest = decoding.score
    monkeypatch.setattr(decoding, "score", lambda logits, *rest: honest(logits * math.nan, *rest))
    assert _export(trained) == 3
    assert "instead of logits in the device engine" in capsys.readouterr().err


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_no_number_in_torch_is_refused_with_side_and_row(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bad: float
) -> None:
    honest = edgekit.proof.reference.trained_model

    def broken(project: Any, adapter: Any, base: Any) -> Any:
        model, trained_at = honest(project, adapter, base)
        next(each for name, each in model._model.named_parameters() if "lora_B" in name).data[0, 0] = bad
        return model, trained_at

    monkeypatch.setattr(edgekit.proof.reference, "trained_model", broken)
    assert _export(trained, "--accept-loss", "never mind") == 3
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "adapter small gives NaN or infinity instead of logits in torch" in message
    assert "eval.jsonl:1" in message


def test_evaluating_what_is_no_number_is_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = trained / "adapters" / "small" / "adapter_model.safetensors"
    tensors = load_file(weights)
    next(tensor for name, tensor in tensors.items() if "lora_B" in name)[0, 0] = math.nan
    save_file(tensors, weights)
    assert main(["evaluate", "--project", str(trained)]) == 3
    assert "error: " in capsys.readouterr().err


def test_an_adapter_no_better_than_its_base_is_refused_and_may_be_accepted(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _with_gate(trained)
    assert _export(trained) == 4
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the adapter is not good enough" in message
    assert "train longer" in message
    refused = _report(trained / "dist" / "line-3-refused" / "report.json")
    assert refused["remedy"] in message
    page = (trained / "dist" / "line-3-refused" / "report.html").read_text()
    assert "was refused: it does not score more than the bare base" in page
    assert _export(trained, "--accept-loss", "a matter of style") == 0
    assert "a matter of style" in (trained / "dist" / "line-3" / "report" / "report.html").read_text()
    quality = _manifest(trained)["quality"]
    assert (quality["gate"], quality["accepted"]) == ("failed", "a matter of style")
    asked = {question: quality[question]["passed"] for question in ("alive", "faithful", "good")}
    assert asked == {"alive": True, "faithful": True, "good": False}
    assert "gate failed (not good), 0 % of the rows exactly right" in capsys.readouterr().out


def test_a_score_that_is_asked_for_is_refused_below(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _with_gate(trained, min_gain=-100, min_score=90)
    assert _export(trained) == 4
    assert "90 are asked" in capsys.readouterr().err


def test_not_good_is_not_asked_of_every_quantization(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ladder, "MEASURED", ("F16", "Q8_0"))
    _with_gate(trained)
    assert _export(trained, "--quantize", "auto") == 4
    assert capsys.readouterr().err.count("proving small on the device engine") == 1


def test_an_adapter_that_has_learned_passes_by_default(
    tiny_project: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_project(gate={}, rank=8, max_steps=15, learning_rate=0.01, batch_size=8)
    assert main(["train", "--project", str(folder)]) == 0
    assert _export(folder) == 0
    quality = _manifest(folder)["adapters"][0]["quality"]
    assert quality["gain_interval"][0] > 0
    assert quality["device_score"] - quality["base_score"] == pytest.approx(quality["gain"], abs=1e-3)
    said = capsys.readouterr().out
    assert "gate passed (alive, faithful, good)" in said
    assert f"{quality['device_exact']:.0f} % of the rows exactly right" in said
    assert "too few to tell" in said  # four rows


def test_the_base_is_asked_once(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    honest = TorchModel.answers

    def counted(self: TorchModel, *arguments: Any, with_adapter: bool) -> list[str]:
        asked.append(with_adapter)
        return honest(self, *arguments, with_adapter=with_adapter)

    monkeypatch.setattr(TorchModel, "answers", counted)
    first, second = (
        json.dumps({"prompt": uuid.uuid4().hex, "completion": "verdict 1"}) for _ in range(2)
    )  # asked never before
    (trained / "data" / "eval.jsonl").write_text(first)
    for _ in range(2):
        assert _export(trained) == 0
    assert asked == [True, False, True]
    (trained / "data" / "eval.jsonl").write_text(second)
    assert _export(trained) == 0
    assert asked[3:] == [True, False]


def test_the_report_says_where_it_comes_from_and_names_no_path(trained: Path) -> None:
    assert _export(trained, "--device", "raspberry-pi-5") == 0
    folder = trained / "dist" / "line-3"
    manifest, report = _manifest(trained), _report(folder / "report" / "report.json")
    assert report["project"] == "line-3"
    assert report["base"]["family"] == manifest["base"]["family"]
    assert report["base"]["name"] == "tiny-chat"
    assert report["device"] == {"profile": "raspberry-pi-5", "isa": manifest["requires"]["isa"]}
    assert datetime.fromisoformat(report["date"]).utcoffset() == timedelta(0)
    assert {"edgekit", "edgekit-runtime", "engine", "torch", "transformers", "peft"} <= report["versions"].keys()
    digests = report["digests"]
    assert digests["base"] == manifest["base"]["digest"]
    assert digests["adapters"] == {"small": manifest["adapters"][0]["digest"]}
    assert digests["eval"] == {"small": data_digest([trained / "data" / "eval.jsonl"])}
    assert digests["trained"] == {"small": file_digest(trained / "adapters" / "small" / "adapter_model.safetensors")}
    for file in [folder / "manifest.json", *(folder / "report").iterdir()]:
        assert str(trained) not in file.read_text()
        assert "/tmp/" not in file.read_text()


def test_a_merged_adapter_s_figures_are_in_the_bundle_s_quality(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _export(trained, "--mode", "merged") == 0
    figures = _manifest(trained)["quality"]["merged"]["small"]
    assert figures["reach"] == pytest.approx(1, abs=0.05)
    assert "of the change arrives" in capsys.readouterr().out
