"""Adapters of the embedding and the output matrix, and numbers at the edge of F16, on the devices' engines."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from edgekit.bases.resolve import resolve_base
from edgekit_exporters.base import Base
from edgekit_exporters.gguf.adapter import AdapterSource, write_adapter_gguf
from edgekit_exporters.gguf.base import base_gguf, gguf_from_folder
from edgekit_exporters.onnx.base import onnx_from_folder
from edgekit_exporters.peft.canonical import F16_MAX, canonicalize, folded
from edgekit_exporters.peft.files import WEIGHTS_FILE
from edgekit_exporters.peft.intake import is_dead, take_in
from edgekit_exporters.peft.merge import merge_to_folder
from edgekit_runtime.engines.llama.engine import LlamaEngine
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.gguf import read_gguf
from tests.exporters.peft.intake import edit_weights, save_adapter
from tests.exporters.peft.test_exactness import _adapter, _check, open_engine

__all__ = ["open_engine"]

ENDS: dict[str, dict[str, Any]] = {
    "output": {"target_modules": ["q_proj", "lm_head"]},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "both": {"target_modules": ["lm_head", "embed_tokens"]},
}


@pytest.fixture(scope="module")
def base(tiny_chat_base: Path) -> Base:
    """Its output matrix is its embedding."""
    return resolve_base(str(tiny_chat_base))


@pytest.mark.parametrize("options", ENDS.values(), ids=ENDS.keys())
def test_a_tied_base_is_untied_where_the_merged_answer_needs_it(
    options: dict[str, Any], base: Base, open_engine: Callable[[Path], LlamaEngine], tmp_path: Path
) -> None:
    folder = _adapter(base, tmp_path / "adapter", options, std=0.05)
    merge_to_folder(base, [folder], tmp_path / "merged")
    gguf_from_folder(tmp_path / "merged", tmp_path / "merged.gguf", "F32")
    assert "output.weight" in read_gguf(tmp_path / "merged.gguf").tensors
    _check(open_engine(tmp_path / "merged.gguf"), base, folder)


def test_an_untied_base_takes_separate_adapters_of_both_ends(
    base: Base, open_engine: Callable[[Path], LlamaEngine], tmp_path: Path
) -> None:
    merge_to_folder(base, [_adapter(base, tmp_path / "adapter", ENDS["output"], std=0.05)], tmp_path / "untied")
    untied = resolve_base(str(tmp_path / "untied"))
    options = {"target_modules": ["q_proj", "lm_head", "embed_tokens"], "use_rslora": True}
    folder = _adapter(untied, tmp_path / "ends", options, std=0.05)
    write_adapter_gguf(AdapterSource("a", "1", folder), untied, tmp_path / "a.gguf", float_type="F32")
    engine = open_engine(base_gguf(untied, "F32"))
    engine.load_adapter("a", tmp_path / "a.gguf")
    _check(engine, untied, folder, (("a", 1.0),))


def test_a_tied_base_stays_tied_where_nothing_needs_otherwise(base: Base, tmp_path: Path) -> None:
    merge_to_folder(base, [_adapter(base, tmp_path / "adapter", {}, std=0.05)], tmp_path / "merged")
    assert "lm_head.weight" not in load_file(tmp_path / "merged" / "model.safetensors")


def test_the_untied_base_is_exact_on_onnx_too(base: Base, tmp_path: Path) -> None:
    pytest.importorskip("onnx_ir", reason="the extra is not installed: pip install 'edgekit[onnx]'")
    from edgekit_runtime.engines.onnx.engine import OnnxEngine
    from tests.exporters.onnx.test_onnx import files

    folder = _adapter(base, tmp_path / "adapter", ENDS["both"], std=0.05)
    merge_to_folder(base, [folder], tmp_path / "merged")
    onnx_from_folder(tmp_path / "merged", base, "fp32", tmp_path / "onnx")
    engine = OnnxEngine(files(tmp_path / "onnx"), context=64, threads=1)
    _check(engine, base, folder)  # type: ignore[arg-type]
    engine.close()


@pytest.mark.parametrize("power", [24, -24])
def test_a_pair_that_is_far_off_balance_is_exact_at_f16(
    power: int, base: Base, open_engine: Callable[[Path], LlamaEngine], tmp_path: Path
) -> None:
    """As rounded to F16 one half would be infinite or zero; the product is that of any other adapter."""
    folder = _adapter(base, tmp_path / "adapter", {}, std=0.05)
    edit_weights(folder, lambda weights: _shift(weights, 2.0**power))
    write_adapter_gguf(AdapterSource("a", "1", folder), base, tmp_path / "a.gguf")
    assert {tensor.type_name for tensor in read_gguf(tmp_path / "a.gguf").tensors.values()} == {"F16"}
    engine = open_engine(base_gguf(base, "F32"))
    engine.load_adapter("a", tmp_path / "a.gguf")
    _check(engine, base, folder, (("a", 1.0),))


def _shift(weights: dict[str, torch.Tensor], factor: float) -> None:
    for name in weights:
        weights[name] *= factor if "lora_B" in name else 1 / factor


@pytest.mark.parametrize("factor", [2.0**20, 2.0**-26])
def test_what_f16_can_not_hold_is_written_at_f32(factor: float, base: Base, tmp_path: Path) -> None:
    folder = _adapter(base, tmp_path / "adapter", {}, std=0.05)

    def scale(weights: dict[str, torch.Tensor]) -> None:
        for name in weights:
            weights[name] *= factor

    edit_weights(folder, scale)
    write_adapter_gguf(AdapterSource("a", "1", folder), base, tmp_path / "a.gguf")
    assert {tensor.type_name for tensor in read_gguf(tmp_path / "a.gguf").tensors.values()} == {"F32"}


def test_what_float32_can_not_hold_is_refused(base: Base, tmp_path: Path) -> None:
    folder = save_adapter(base, tmp_path / "adapter", r=1, lora_alpha=1000)

    def scale(weights: dict[str, torch.Tensor]) -> None:
        for value in weights.values():
            value.fill_(3e38)

    edit_weights(folder, scale)
    with pytest.raises(InputError, match="too large for any float type"):
        canonicalize(folder, base)
    with pytest.raises(InputError, match="answer with numbers that are not finite"):
        merge_to_folder(base, [folder], tmp_path / "merged")


@given(
    power_a=st.integers(-60, 60),
    power_b=st.integers(-60, 60),
    scale=st.sampled_from([1.0, 2.0, 0.25, 1e-6, 1e6, 1 / 3]),
)
@settings(deadline=None)
def test_moving_powers_of_two_changes_no_product(power_a: int, power_b: int, scale: float) -> None:
    torch.manual_seed(power_a * 100 + power_b)
    a, b = torch.randn(3, 8) * 2.0**power_a, torch.randn(6, 3) * 2.0**power_b
    a[1] *= 2.0**20  # each rank has factors of its own
    pair = folded(a, b, scale)
    plain = (b.double() * scale).float() if abs(power_b) < 100 else b
    assert torch.equal(pair.b.double()[:, :, None] * pair.a.double(), plain.double()[:, :, None] * a.double())
    for each, half in ((0, pair.a), (1, pair.b)):
        assert torch.isfinite(half).all(), each
    size = math.sqrt(float((pair.a.abs().amax(1) * pair.b.abs().amax(0)).max()))
    if size > 2 * F16_MAX:
        assert not pair.fits_f16
    assert pair.fits_f16 == bool(
        all(2.0**-14 <= float(x) <= F16_MAX for x in (*pair.a.abs().amax(1), *pair.b.abs().amax(0)))
    )


def _no(part: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def edit(weights: dict[str, torch.Tensor]) -> None:
        for name, value in weights.items():
            if part in name:
                value.zero_()

    return edit


@pytest.mark.parametrize("edit", [_no("lora_A"), _no("lora_B"), _no("")])
def test_a_dead_adapter_is_known_and_not_merged(
    edit: Callable[[dict[str, torch.Tensor]], None], base: Base, tmp_path: Path
) -> None:
    folder = save_adapter(base, tmp_path / "adapter")
    assert not is_dead(take_in(folder, base))
    edit_weights(folder, edit)
    assert is_dead(take_in(folder, base))
    with pytest.raises(InputError, match="changes nothing in"):
        merge_to_folder(base, [folder], tmp_path / "merged")


def test_halves_that_never_meet_are_dead_too(base: Base, tmp_path: Path) -> None:
    folder = save_adapter(base, tmp_path / "adapter")
    weights = load_file(folder / WEIGHTS_FILE)
    for name, value in weights.items():
        if "lora_A" in name:
            value[2:] = 0
        else:
            value[:, :2] = 0
    save_file(weights, folder / WEIGHTS_FILE)
    assert is_dead(take_in(folder, base))


def test_a_merge_that_goes_wrong_is_noticed(base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekit_exporters.peft import merge

    folder = save_adapter(base, tmp_path / "adapter", target_modules=["q_proj", "lm_head"])
    monkeypatch.setattr(merge, "_untie", lambda wrapped: None)
    with pytest.raises(InputError, match="can't be merged exactly: logits are off by"):
        merge_to_folder(base, [folder], tmp_path / "merged")
