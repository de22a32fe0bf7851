from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.bases.resolve import resolve_base
from edgekit.bases.weights import Weights
from edgekit.cli import main
from edgekit.targets.devices import device_profile
from edgekit.targets.plan import make_plan
from edgekit.targets.subject import subject_of_base, subject_of_bundle
from edgekit_exporters.base import Base
from edgekit_exporters.gguf.base import base_gguf
from edgekit_runtime.errors import UsageError


def test_a_gguf_file_and_the_folder_it_was_unpacked_to_have_the_same_facts(demo_base: Base) -> None:
    assert demo_base.gguf is not None
    packed = subject_of_bundle(demo_base.gguf)
    unpacked = subject_of_base(replace(demo_base, gguf=None), Weights("gguf", "F16"))
    assert packed.embedding_parameters == pytest.approx(unpacked.embedding_parameters)
    assert packed.model.matmul_parameters == pytest.approx(unpacked.model.matmul_parameters, rel=0.001)
    for fact in ("layers", "query_width", "kv_width", "context"):
        assert getattr(packed.model, fact) == getattr(unpacked.model, fact)


def test_a_bundle_is_planned_with_all_its_adapters(demo_bundle: Path) -> None:
    subject = subject_of_bundle(demo_bundle)
    planned = make_plan(device_profile("raspberry-pi-4"), subject, context=2048, parallel=2)
    files = (demo_bundle / "adapters").glob("*.gguf")
    assert set(subject.adapters) == {"one", "two"}
    assert planned.plan.memory.adapters == pytest.approx(sum(file.stat().st_size for file in files) / 2**20)
    assert planned.plan.memory.fits


def test_an_onnx_bundle_has_the_same_facts_as_its_base(onnx_bundle: Path, demo_base: Base) -> None:
    subject = subject_of_bundle(onnx_bundle)
    expected = subject_of_base(demo_base, Weights("onnx", "int8"))
    for fact in ("matmul_parameters", "layers", "query_width", "kv_width", "context", "kv_element"):
        assert getattr(subject.model, fact) == pytest.approx(getattr(expected.model, fact))
    assert subject.embedding_parameters == pytest.approx(expected.embedding_parameters)
    assert subject.model.file_bytes == pytest.approx(expected.model.file_bytes, rel=0.05)
    planned = make_plan(device_profile("raspberry-pi-5"), subject)
    assert planned.plan.decode_tps.basis == "estimated"
    assert planned.advice.quantization in ("int8", "int4")


def test_what_does_not_fit_ends_with_5_and_the_way_out(demo_base: Base, capsys: pytest.CaptureFixture[str]) -> None:
    device = ["plan", "--base", str(demo_base.gguf), "--device", "raspberry-pi-zero-2w"]
    assert main([*device, "--context", "8192", "--parallel", "4"]) == 5
    said = capsys.readouterr()
    assert "DOES NOT FIT" in said.out
    assert "run with --context" in said.err
    assert main([*device, "--context", "1024", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "edgekit.plan/1"
    assert document["fits"] is True
    assert document["decode_tps"]["low"] < document["decode_tps"]["value"] < document["decode_tps"]["high"]


def test_a_project_says_the_device_and_its_gguf_is_not_unpacked_for_a_plan(
    tiny_project: Callable[..., Path],
    tiny_chat_base: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = Path(shutil.copy(base_gguf(resolve_base(str(tiny_chat_base)), "Q8_0"), tmp_path / "tiny.gguf"))
    folder = tiny_project(export={"quantize": "Q8_0", "device": "raspberry-pi-4"})
    text = (folder / "edgekit.yaml").read_text()
    (folder / "edgekit.yaml").write_text(text.replace(str(tiny_chat_base), str(file)))
    monkeypatch.setattr("edgekit.bases.resolve.unpacked", None)
    assert main(["plan", "--project", str(folder), "--prompt-tokens", "64", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["device"]["name"], document["subject"]["model"]["quantization"]) == ("raspberry-pi-4", "Q8_0")
    monkeypatch.chdir(folder)
    assert main(["plan", "--base", str(file), "--prompt-tokens", "64"]) == 0
    said = capsys.readouterr().out
    assert "on Raspberry Pi 4" in said
    assert "best --quantize: " in said


def test_a_plan_says_what_adapters_cost_in_decode(
    tiny_project: Callable[..., Path], demo_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_project(targets="q/v", export={"quantize": "Q8_0", "device": "raspberry-pi-5"})
    words = ["plan", "--project", str(folder), "--prompt-tokens", "64"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert re.search(r"decode with small: 0\.\d\d of the bare base's \(estimated", said)
    assert re.search(r"adapter costs +matrices +rank 4 .*\n.*\n +all-linear +14 +0\.\d\d ", said)
    assert "0.9 or more: " in said
    assert main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    costs = {each["targets"]: each for each in document["adapter_costs"]}
    assert {name: each["matrices"] for name, each in costs.items()} == {
        "all-linear": 14,
        "feed-forward": 6,
        "attention": 8,
        "q/v": 4,
    }
    shares = [each["shares"]["16"]["value"] for each in costs.values()]
    assert 0 < costs["all-linear"]["shares"]["16"]["value"] == min(shares) < costs["q/v"]["shares"]["16"]["value"] < 1
    assert document["adapter_shares"]["small"] == costs["q/v"]["shares"]["4"]
    of_bundle = subject_of_bundle(demo_bundle).shapes
    assert {name: (len(shape.matrices), shape.rank) for name, shape in of_bundle.items()} == {
        "one": (90, 8),
        "two": (90, 8),
    }


def test_a_plan_without_a_device_says_where_it_could_stand(
    tiny_project: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_project())
    for words in (["plan"], ["plan", "--base", "smollm2-135m"]):
        assert main(words) == 2
        assert "plan needs to know the device: say --device raspberry-pi-5, or set export.device" in (
            capsys.readouterr().err
        )


def test_more_memory_than_the_smallest_model_can_be_said(demo_base: Base, capsys: pytest.CaptureFixture[str]) -> None:
    plan = ["plan", "--base", str(demo_base.gguf), "--device", "raspberry-pi-5", "--memory-mb", "8192", "--json"]
    assert main(plan) == 0
    assert json.loads(capsys.readouterr().out)["memory"]["available"] > 7000


@pytest.mark.parametrize(
    "option", ["--memory-mb=-5", "--context=0", "--prompt-tokens=0", "--parallel=0", "--min-decode-tps=nan"]
)
def test_figures_that_cannot_be_are_refused(demo_base: Base, capsys: pytest.CaptureFixture[str], option: str) -> None:
    assert main(["plan", "--base", str(demo_base.gguf), "--device", "raspberry-pi-5", option]) == 2
    assert "is not possible, use at least " in capsys.readouterr().err


def test_a_prompt_longer_than_the_context_is_refused(demo_base: Base) -> None:
    assert demo_base.gguf is not None
    with pytest.raises(UsageError, match="longer context"):
        make_plan(device_profile("raspberry-pi-5"), subject_of_bundle(demo_base.gguf), context=128, prompt_tokens=256)
