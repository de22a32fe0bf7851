"""A bundle's KV cache: proven with it, planned with it, refused where the base can't have it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import edgekit.exporting.export
from edgekit.cli import main
from edgekit.exporting.export import export
from edgekit.project import load_project
from edgekit.targets.plan import make_plan, report
from edgekit.targets.subject import subject_of_bundle
from edgekit_devices import load_profile
from edgekit_runtime.errors import InputError
from tests.adapters import save_random_lora


@pytest.fixture(scope="module")
def wide_heads(tiny_chat_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base with heads of 32."""
    folder = tmp_path_factory.mktemp("wide") / "wide-heads"
    shutil.copytree(tiny_chat_base, folder)
    config = LlamaConfig.from_pretrained(folder)
    config.num_attention_heads, config.num_key_value_heads, config.head_dim = 2, 1, 32
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.4 if "embed" in name else 0.15)
    model.save_pretrained(folder)
    return folder


def test_the_gate_asks_with_the_bundles_cache_and_the_report_says_so(
    tiny_project: Callable[..., Path], wide_heads: Path
) -> None:
    folder = tiny_project({"kv_cache": "q8_0"})
    model = AutoModelForCausalLM.from_pretrained(wide_heads, dtype=torch.float32)
    save_random_lora(model, folder / "adapters" / "small", std=0.1, r=4, lora_alpha=8, target_modules="all-linear")
    project = replace(load_project(folder), base=str(wide_heads))
    kl, memory = {}, {}
    for asked in ("f16", None):
        bundle, manifest = export(project, kv_cache=asked)
        kind = asked or "q8_0"
        assert manifest.base.kv_cache == (None if kind == "f16" else kind)
        kl[kind] = manifest.proofs()["small"]["mean_kl"]
        memory[kind] = manifest.requires.memory_mb
        said = json.loads((bundle / "report" / "report.json").read_text())
        assert said["base"]["kv_cache"] == manifest.base.kv_cache
        with_cache = "" if kind == "f16" else f" with a KV cache of {kind}"
        assert manifest.quality["artifact"] == f"llama.cpp at F16{with_cache}"
        assert f"exported for llama.cpp at F16{with_cache}, passed" in (bundle / "report" / "report.html").read_text()
    assert kl["f16"] < kl["q8_0"] < 0.05
    assert memory["q8_0"] <= memory["f16"]
    planned = {kind: subject_of_bundle(bundle, kind).model for kind in ("f16", "q8_0", "q4_0")}
    sizes = [model.kv_bytes(256) + 256 * model.score_bytes for model in planned.values()]
    assert subject_of_bundle(bundle).model == planned["q8_0"]
    assert planned["q8_0"].kv_bytes(256) == planned["f16"].kv_bytes(256) * 34 // 64
    assert sizes == sorted(sizes, reverse=True)
    text = report(make_plan(load_profile("raspberry-pi-5"), subject_of_bundle(bundle), prompt_tokens=64))
    assert "(context 256, q8_0)" in text


def test_heads_that_do_not_fit_are_refused_before_anything_is_asked(
    tiny_project: Callable[..., Path], random_lora: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_project()
    random_lora(folder / "adapters" / "small")

    def asked(*_: Any) -> None:
        raise AssertionError("the trained model was asked")

    monkeypatch.setattr(edgekit.exporting.export, "take_reference", asked)
    with pytest.raises(InputError, match=r"tiny-chat.* has attention heads of 16.*: use --kv-cache f16"):
        export(load_project(folder), kv_cache="q8_0")
    assert not (folder / "dist").exists()


@pytest.mark.parametrize(
    ("options", "code", "problem"),
    [
        (["--kv-cache", "q8_0", "--format", "onnx"], 2, "ONNX Runtime has no KV cache of the type q8_0"),
        (
            ["--kv-cache", "q8"],
            2,
            "there is no --kv-cache 'q8': use one of f16, q8_0-f16, q8_0, q4_0; did you mean q8_0?",
        ),
    ],
)
def test_what_cannot_be_had_is_wrong_usage(
    options: list[str],
    code: int,
    problem: str,
    tiny_project: Callable[..., Path],
    random_lora: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tiny_project()
    random_lora(folder / "adapters" / "small")
    assert main(["export", "--project", str(folder), *options]) == code
    assert problem in capsys.readouterr().err


def test_a_plan_takes_the_projects_cache_or_another(
    tiny_project: Callable[..., Path], wide_heads: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_project({"kv_cache": "q8_0"})
    file = folder / "edgekit.yaml"
    lines = file.read_text().splitlines()
    file.write_text("\n".join(f"base: {wide_heads}" if line.startswith("base:") else line for line in lines))
    for options, said in (([], "q8_0"), (["--kv-cache", "f16"], "f16")):
        asked = ["plan", "--project", str(folder), "--device", "raspberry-pi-5", "--prompt-tokens", "64", *options]
        assert main(asked) == 0
        assert f"(context 256, {said})" in capsys.readouterr().out
