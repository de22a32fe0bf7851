"""Adapters for ONNX Runtime that come while the service runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import torch
from transformers import AutoModelForCausalLM

from edgekit.bases.resolve import resolve_base
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.bundle import file_digest, open_bundle
from edgekit_runtime.intake.canary import try_adapters
from tests.adapters import save_random_lora
from tests.deadly import WORKER, Deadly
from tests.runtime.server.test_watch import drop, names
from tests.service import serving

pytest.importorskip("onnx_ir", reason="the extra is not installed: pip install 'edgekit[onnx]'")

from edgekit_exporters.gguf.adapter import AdapterSource
from edgekit_exporters.onnx.adapter import write_adapter_onnx
from edgekit_exporters.onnx.base import base_onnx

Write = Callable[..., Path]


@pytest.fixture
def bundle(tiny_onnx_bundle: Path) -> Path:
    return tiny_onnx_bundle


@pytest.fixture
def write(tiny_chat_base: Path, tmp_path: Path) -> Write:
    """Write an adapter file; ``value`` takes the place of one weight, ``family`` of the base's."""

    def write(name: str, *, value: float | None = None, family: str | None = None) -> Path:
        base = resolve_base(str(tiny_chat_base))
        source = _peft(tiny_chat_base, tmp_path / f"{name}-peft", seed=2, value=value)
        file = tmp_path / f"{name}.onnx_adapter"
        named = base if family is None else replace(base, family=family)
        write_adapter_onnx(AdapterSource(name, "1.0.0", source), named, file, base_onnx(base, "int8"))
        return file

    return write


def test_a_dropped_adapter_is_live_and_bad_ones_are_put_aside(bundle: Path, write: Write, tmp_path: Path) -> None:
    watch = tmp_path / "drop"
    with serving(bundle, "--watch", str(watch)) as service:
        drop(write("two"), watch)
        service.wait_for(lambda: "two" in names(service))
        assert service.text(model="two") != service.text(model="one")
        other, half = write("other", family="another-base-0123456789ab"), _half(write("cut"), tmp_path)
        for bad, said in ((other, "base"), (half, "adapter file")):
            drop(bad, watch)
            reason = watch / "rejected" / f"{bad.name}.txt"
            service.wait_for(reason.exists)
            assert said in reason.read_text()
        assert service.text(model="two")


def test_of_adapters_that_are_decoded_together_the_one_that_kills_is_set_aside(
    bundle: Path, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadly, two = Deadly(tmp_path / "hook", WORKER, monkeypatch), write("two")
    with serving(bundle) as service:
        load = {"lora_name": "two", "lora_path": str(two)}
        assert service.http.post("/v1/load_lora_adapter", json=load).status_code == 200
        expected = service.text(model="one", max_tokens=100)
        deadly.over(file_digest(two))
        answers: list[httpx.Response] = []

        def ask() -> None:
            with httpx.Client(base_url=service.url, timeout=120) as client:
                body = {"model": "one", "messages": [{"role": "user", "content": "scratch"}], "max_tokens": 100}
                answers.extend(client.post("/v1/chat/completions", json=body) for _ in range(4))

        neighbours = [threading.Thread(target=ask) for _ in range(2)]
        for each in neighbours:
            each.start()
        killer = service.chat(model="two", max_tokens=100)
        for each in neighbours:
            each.join()
        assert (killer.status_code, killer.json()["error"]["code"]) == (409, "adapter_set_aside")
        assert {answer.status_code for answer in answers} == {200}
        assert {answer.json()["choices"][0]["message"]["content"] for answer in answers} == {expected}
        assert service.status()["restarts"] == 2


def test_the_canary_refuses_an_adapter_that_makes_no_numbers(bundle: Path, write: Write) -> None:
    with open_bundle(bundle) as opened:
        assert try_adapters(opened.base_files, [write("sound")]) == [True]
        with pytest.raises(InputError, match="no number"):
            try_adapters(opened.base_files, [write("mad", value=1e38)])


def _peft(base: Path, folder: Path, *, seed: int, value: float | None = None) -> Path:
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    save_random_lora(model, folder, std=0.3, r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
    if value is not None:
        from safetensors.torch import load_file, save_file

        weights = load_file(folder / "adapter_model.safetensors")
        next(iter(weights.values()))[:] = value  # too much for a sum
        save_file(weights, folder / "adapter_model.safetensors")
    return folder


def _half(file: Path, folder: Path) -> Path:
    half = folder / f"half-{file.name}"
    half.write_bytes(file.read_bytes()[:4000])
    return half
