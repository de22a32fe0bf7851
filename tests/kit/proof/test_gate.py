"""The gate has teeth: a faithful export passes, each kind of sabotage is refused, and nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import edgekit.exporting
from edgekit.cli import main
from edgekit.proof import ladder
from edgekit_exporters import gguf_adapter
from edgekit_exporters.canonical import CanonicalAdapter, LowRank
from edgekit_exporters.gguf_metadata import rewrite_metadata
from edgekit_runtime.adapter import AdapterFacts
from edgekit_runtime.runtime import Runtime


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
    report = json.loads((trained / "dist" / "line-3" / "report" / "report.json").read_text())
    assert [row["where"].rpartition("/")[2] for row in report["adapters"][0]["rows"]] == [
        f"eval.jsonl:{number}" for number in range(1, 5)
    ]
    page = (trained / "dist" / "line-3" / "report" / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert "http" not in page  # it opens without a network


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


@pytest.mark.parametrize("sabotage", [_scaled, _shuffled, _lost], ids=["scaled B", "shuffled layers", "zero B"])
def test_a_sabotaged_adapter_is_refused(
    trained: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    sabotage: Callable[[CanonicalAdapter], CanonicalAdapter],
) -> None:
    honest = gguf_adapter.canonicalise
    monkeypatch.setattr(gguf_adapter, "canonicalise", lambda *arguments: sabotage(honest(*arguments)))
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

    from edgekit_exporters.gguf_base import gguf_from_folder

    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_pretrained(tiny_chat_base, dtype=torch.float32)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "other")
    AutoTokenizer.from_pretrained(tiny_chat_base).save_pretrained(tmp_path / "other")
    gguf_from_folder(tmp_path / "other", tmp_path / "other.gguf", "F16")
    monkeypatch.setattr(edgekit.exporting, "deployed_base", lambda *_: tmp_path / "other.gguf")
    assert _export(trained) == 4


def test_another_chat_template_is_refused(
    trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = edgekit.exporting.deployed_base

    def sabotaged(*arguments: Any) -> Path:
        template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
        file = tmp_path / "template.gguf"
        rewrite_metadata(honest(*arguments), file, {"tokenizer.chat_template": template})
        return file

    monkeypatch.setattr(edgekit.exporting, "deployed_base", sabotaged)
    assert _export(trained) == 4
    assert "4 of 4 prompts become other tokens" in capsys.readouterr().err


def test_a_refusal_leaves_the_earlier_bundle(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _export(trained) == 0
    version = _manifest(trained)["version"]
    honest = gguf_adapter.canonicalise
    monkeypatch.setattr(gguf_adapter, "canonicalise", lambda *arguments: _scaled(honest(*arguments)))
    assert _export(trained) == 4
    assert _manifest(trained)["version"] == version


def test_an_accepted_loss_ships_with_its_reason(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = gguf_adapter.canonicalise
    monkeypatch.setattr(gguf_adapter, "canonicalise", lambda *arguments: _scaled(honest(*arguments)))
    assert _export(trained, "--accept-loss", "trial on line 3 only") == 0
    quality = _manifest(trained)["quality"]
    assert (quality["gate"], quality["accepted"]) == ("failed", "trial on line 3 only")
    assert any("mean KL" in reason for reason in quality["reasons"])


def test_a_gate_that_is_switched_off_is_told(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (trained / "edgekit.yaml").open("a") as stream:
        stream.write("gate: {rows: 0}\n")
    assert _export(trained) == 0
    assert _manifest(trained)["quality"]["gate"] == "skipped"
    assert "switched off" in capsys.readouterr().err


def test_a_merged_bundle_is_proven_too(trained: Path) -> None:
    assert _export(trained, "--mode", "merged") == 0
    manifest = _manifest(trained)
    assert manifest["quality"]["gate"] == "passed"
    assert manifest["adapters"] == []


def test_auto_takes_the_smallest_quantisation_that_passes(trained: Path) -> None:
    assert _export(trained, "--quantize", "auto") == 0
    manifest = _manifest(trained)
    rungs = manifest["quality"]["ladder"]
    chosen = manifest["base"]["quantization"]
    may_ship = [rung for rung in rungs if not rung["refused"]]
    assert chosen == min(may_ship, key=lambda rung: rung["size_mb"])["quantization"]
    assert {"F16", "Q8_0", "Q4_0"} <= {rung["quantization"] for rung in rungs}
    assert "Quantisations measured" in (trained / "dist" / "line-3" / "report" / "report.html").read_text()


def test_auto_says_what_it_tried_when_nothing_is_good_enough(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ladder, "LADDER", ("Q8_0", "Q4_0"))
    assert _export(trained, "--quantize", "auto", "--max-mb", "0.001") == 4
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "no quantisation is good enough" in message
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
