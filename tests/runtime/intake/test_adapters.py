"""The one way in for adapter files: what is sound is taken, everything else is refused before an engine sees it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.adapter import EMBEDDING, KEY_ALPHA, KEY_INVOCATION, KEY_RANK, AdapterFacts
from edgekit_runtime.formats.gguf import GgufFile, read_gguf
from edgekit_runtime.intake.adapters import take_in
from tests.tiny_gguf import DOWN, EXPERTS, KEY, RANK, TYPES, matrices, write_base, write_lora

MANY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NAMES = sorted(matrices())
BITS = {"F32": ("<u4", 0x7F800000), "F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x7F80), "Q8_0": ("<u2", 0x7C00)}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> GgufFile:
    return read_gguf(write_base(tmp_path_factory.mktemp("base") / "base.gguf"))


def taken(path: Path, base: GgufFile) -> AdapterFacts:
    return take_in(path, base, family=None)


def refused(path: Path, base: GgufFile, why: str) -> None:
    with pytest.raises(InputError, match=why) as error:
        taken(path, base)
    assert error.value.hint
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("type_name", TYPES)
def test_a_sound_file_of_any_type_is_taken(base: GgufFile, tmp_path: Path, type_name: str) -> None:
    facts = taken(write_lora(tmp_path / "a.gguf", matrices(), type_name=type_name), base)
    assert facts.pairs == {DOWN: (96, 32, RANK), KEY: (32, 16, RANK)}
    assert (facts.rank, facts.alpha) == (RANK, 8.0)


@MANY
@given(
    type_name=st.sampled_from(TYPES),
    name=st.sampled_from(NAMES),
    place=st.integers(0, 1 << 20),
    mantissa=st.integers(0, 1 << 30),
    negative=st.booleans(),
)
def test_one_value_that_is_no_number_is_found_wherever_it_is(
    base: GgufFile, tmp_path: Path, type_name: str, name: str, place: int, mantissa: int, negative: bool
) -> None:
    """NaN with any payload, and infinity, of both signs; in Q8_0 the scale of a block."""
    path = write_lora(tmp_path / "a.gguf", matrices(), type_name=type_name)
    code, infinity = BITS[type_name]
    tensor = read_gguf(path).tensors[name]
    width = np.dtype(code).itemsize
    step = 34 if type_name == "Q8_0" else width
    at = tensor.offset + place % (tensor.size // step) * step
    sign = 1 << (8 * width - 1)
    bits = infinity | mantissa % (sign - infinity) | (sign if negative else 0)
    content = bytearray(path.read_bytes())
    content[at : at + width] = np.array(bits, code).tobytes()
    path.write_bytes(content)
    refused(path, base, f"{name} holds values that are NaN or infinite")


@pytest.mark.parametrize("type_name", TYPES)
@pytest.mark.parametrize("zeroed", [".lora_a", ".lora_b", ".lora_"])
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_an_update_of_zeros_is_refused(
    base: GgufFile, tmp_path: Path, type_name: str, zeroed: str, zero: float
) -> None:
    arrays = {name: np.full_like(each, zero) if zeroed in name else each for name, each in matrices().items()}
    refused(write_lora(tmp_path / "a.gguf", arrays, type_name=type_name), base, "changes nothing")


def test_one_pair_that_changes_something_is_enough(base: GgufFile, tmp_path: Path) -> None:
    arrays = {name: each * (name != f"{KEY}.lora_b") for name, each in matrices().items()}
    assert set(taken(write_lora(tmp_path / "a.gguf", arrays), base).pairs) == {DOWN, KEY}


def test_values_too_small_for_the_type_are_an_update_of_zeros(base: GgufFile, tmp_path: Path) -> None:
    arrays = {name: each * np.float32(1e-12 if name.endswith("b") else 1) for name, each in matrices().items()}
    assert taken(write_lora(tmp_path / "a.gguf", arrays), base)
    refused(write_lora(tmp_path / "b.gguf", arrays, type_name="F16"), base, "changes nothing")


ALPHAS: dict[str, Callable[[gguf.GGUFWriter], object]] = {
    "U8": lambda writer: writer.add_uint8(KEY_ALPHA, 8),
    "I8": lambda writer: writer.add_int8(KEY_ALPHA, 8),
    "U16": lambda writer: writer.add_uint16(KEY_ALPHA, 8),
    "I16": lambda writer: writer.add_int16(KEY_ALPHA, 8),
    "U32": lambda writer: writer.add_uint32(KEY_ALPHA, 8),
    "I32": lambda writer: writer.add_int32(KEY_ALPHA, 8),
    "U64": lambda writer: writer.add_uint64(KEY_ALPHA, 8),
    "I64": lambda writer: writer.add_int64(KEY_ALPHA, 8),
    "F64": lambda writer: writer.add_float64(KEY_ALPHA, 8.0),
    "BOOL": lambda writer: writer.add_bool(KEY_ALPHA, True),
    "STRING": lambda writer: writer.add_string(KEY_ALPHA, "8"),
    r"\[F32\]": lambda writer: writer.add_array(KEY_ALPHA, [8.0]),
}


@pytest.mark.parametrize("stored", ALPHAS)
def test_an_alpha_of_a_type_that_llama_cpp_aborts_over_is_refused(base: GgufFile, tmp_path: Path, stored: str) -> None:
    refused(write_lora(tmp_path / "a.gguf", matrices(), alpha=ALPHAS[stored]), base, f"stored as {stored}")


@pytest.mark.parametrize("alpha", [None, 0.0, -0.0, float("nan"), float("inf"), -float("inf"), 1e30])
def test_an_alpha_that_makes_no_sense_is_refused(base: GgufFile, tmp_path: Path, alpha: float | None) -> None:
    refused(write_lora(tmp_path / "a.gguf", matrices(), alpha=alpha), base, KEY_ALPHA)


@MANY
@given(swapped=st.sets(st.sampled_from(NAMES), min_size=1))
def test_swapped_sides_are_refused(base: GgufFile, tmp_path: Path, swapped: set[str]) -> None:
    arrays = {name: each.T.copy() if name in swapped else each for name, each in matrices(rank=8).items()}
    refused(write_lora(tmp_path / "a.gguf", arrays), base, "ranks of .* differ|changes blk")


@MANY
@given(gone=st.sets(st.sampled_from(NAMES), min_size=1, max_size=3))
def test_half_a_pair_is_refused(base: GgufFile, tmp_path: Path, gone: set[str]) -> None:
    arrays = {name: each for name, each in matrices().items() if name not in gone}
    halves = [target for target in (DOWN, KEY) if sum(name.startswith(target) for name in arrays) == 1]
    path = write_lora(tmp_path / "a.gguf", arrays)
    if halves:
        refused(path, base, "has no [AB] matrix")
    else:  # a whole pair was taken out
        assert len(taken(path, base).pairs) == 1


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("blk.0.attn_norm.weight", "would leave out its tensor blk.0.attn_norm"),
        ("blk.0.attn_q.weight", "no half of a LoRA pair"),
        ("blk.0.attn_q.bias", "no half of a LoRA pair"),
        (f"{DOWN}.lora_a.lora_b", "has no A matrix"),
        (f"{DOWN}.lora_b.lora_a", "has no B matrix"),
        (".lora_a", "has no B matrix"),
    ],
)
def test_a_tensor_that_nothing_uses_is_refused(base: GgufFile, tmp_path: Path, name: str, why: str) -> None:
    arrays = matrices() | {name: np.ones((4, 4), np.float32)}
    refused(write_lora(tmp_path / "a.gguf", arrays), base, why)


@pytest.mark.parametrize("target", ["blk.1.ffn_down.weight", "blk.0.ffn_down", "_orig_mod.blk.0.ffn_down.weight"])
def test_a_target_that_the_base_lacks_is_refused(base: GgufFile, tmp_path: Path, target: str) -> None:
    arrays = {name.replace(DOWN, target): each for name, each in matrices().items()}
    refused(write_lora(tmp_path / "a.gguf", arrays), base, "which the base lacks")


def test_ranks_that_contradict_each_other_are_refused(base: GgufFile, tmp_path: Path) -> None:
    assert taken(write_lora(tmp_path / "a.gguf", matrices(), facts={KEY_RANK: RANK}), base).rank == RANK
    refused(write_lora(tmp_path / "b.gguf", matrices(), facts={KEY_RANK: 16}), base, "have rank 32")
    refused(write_lora(tmp_path / "c.gguf", matrices(), facts={KEY_RANK: "32"}), base, "is no rank")
    arrays = matrices()
    arrays[f"{DOWN}.lora_a"] = arrays[f"{DOWN}.lora_a"][:16]
    refused(write_lora(tmp_path / "d.gguf", arrays), base, "A has 16, B has 32")


def test_a_file_without_pairs_is_refused(base: GgufFile, tmp_path: Path) -> None:
    refused(write_lora(tmp_path / "a.gguf", {}), base, "holds no LoRA pair")


def test_invocation_tokens_of_another_type_are_refused(base: GgufFile, tmp_path: Path) -> None:
    def add(writer: gguf.GGUFWriter) -> None:
        writer.add_float32(KEY_ALPHA, 8.0)
        writer.add_array(KEY_INVOCATION, [1, 2])  # gguf stores it as [I32]

    refused(write_lora(tmp_path / "a.gguf", matrices(), alpha=add), base, r"llama.cpp reads \[U32\]")


def test_an_embedding_is_taken_as_llama_cpps_converter_writes_it(base: GgufFile, tmp_path: Path) -> None:
    facts = taken(write_lora(tmp_path / "a.gguf", matrices(EMBEDDING, rank=4)), base)
    assert facts.pairs == {EMBEDDING: (32, 64, 4)}
    arrays = matrices(EMBEDDING, rank=4)
    arrays[f"{EMBEDDING}.lora_b"] = arrays[f"{EMBEDDING}.lora_b"][:, :2].copy()
    refused(write_lora(tmp_path / "b.gguf", arrays), base, "A has 4, B has 2")  # llama.cpp aborts over it
    arrays[f"{EMBEDDING}.lora_a"] = arrays[f"{EMBEDDING}.lora_a"].T.copy()
    refused(write_lora(tmp_path / "c.gguf", arrays), base, "ranks|changes token_embd")
    tied = read_gguf(write_base(tmp_path / "tied.gguf", tied=True))
    refused(tmp_path / "a.gguf", tied, "output matrix too")


def test_a_layer_of_experts_is_taken_when_all_have_their_matrices(tmp_path: Path) -> None:
    name = "blk.0.ffn_down_exps.weight"
    base = read_gguf(write_base(tmp_path / "experts.gguf", experts=True))
    assert taken(write_lora(tmp_path / "a.gguf", matrices(name, rank=4, many=(EXPERTS,))), base)
    few = matrices(name, rank=4, many=(EXPERTS - 1,))
    refused(write_lora(tmp_path / "b.gguf", few), base, "has the shape")
    refused(write_lora(tmp_path / "c.gguf", matrices(name, rank=4)), base, "has the shape")
    mixed = matrices(name, rank=4, many=(EXPERTS,)) | {f"{name}.lora_b": few[f"{name}.lora_b"]}
    refused(write_lora(tmp_path / "d.gguf", mixed), base, "no pair of matrices")


def test_a_large_file_is_looked_at_in_little_memory(tmp_path: Path) -> None:
    base, rows = gguf_of_one_layer(tmp_path / "base.gguf"), 4096
    arrays = {
        "blk.0.big.weight.lora_a": np.ones((512, rows), np.float32),
        "blk.0.big.weight.lora_b": np.ones((rows, 512), np.float32),
    }
    path = write_lora(tmp_path / "a.gguf", arrays)
    taken(path, base)
    tracemalloc.start()
    taken(path, base)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert path.stat().st_size > 16_000_000
    assert peak < 6_000_000


def gguf_of_one_layer(path: Path) -> GgufFile:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("blk.0.big.weight", np.ones((4096, 4096), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return read_gguf(path)


Parameters = dict[str, Any]
LAYER, FUSED = "model.layers.0.mlp.down_proj", "model.layers.0.attn.qkv_proj"


@pytest.fixture
def onnx_base(tmp_path: Path) -> GgufFile:
    writer = gguf.GGUFWriter(tmp_path / "vocabulary.gguf", "llama")
    writer.add_array("edgekit.onnx.layers", [f"{LAYER} 8 6", f"{FUSED} 6 12"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return read_gguf(tmp_path / "vocabulary.gguf")


def onnx_parameters() -> Parameters:
    chosen = np.random.default_rng(0)
    shapes = {"lora_A": ((8, 2), (6, 6)), "lora_B": ((2, 6), (6, 12))}
    return {
        f"{layer}.{half}": chosen.normal(size=shape).astype(np.float32)
        for half, sizes in shapes.items()
        for layer, shape in zip((LAYER, FUSED), sizes, strict=True)
    }


def write_onnx(path: Path, parameters: Parameters, **facts: Any) -> Path:
    onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'edgekit-runtime[onnx]'")
    from edgekit_runtime.formats.onnx_adapter import trailer

    file = onnxruntime.AdapterFormat()
    file.set_adapter_version(1)
    file.set_model_version(1)
    file.set_parameters({name: onnxruntime.OrtValue.ortvalue_from_numpy(each) for name, each in parameters.items()})
    file.export_adapter(str(path))
    with path.open("ab") as stream:
        stream.write(trailer({"edgekit.name": "a"} | facts))
    return path


def test_a_sound_onnx_adapter_is_taken(onnx_base: GgufFile, tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "a.onnx_adapter", onnx_parameters(), **{KEY_RANK: 2})
    facts = taken(path, onnx_base)
    assert facts.rank == 2  # of the trained adapter: the fused layer has three of its ranks in a row
    assert facts.pairs[FUSED] == (6, 12, 6)


@MANY
@given(
    name=st.sampled_from(sorted(onnx_parameters())),
    place=st.integers(0, 1 << 10),
    value=st.sampled_from([float("nan"), float("inf"), -float("inf")]),
)
def test_one_value_of_an_onnx_adapter_that_is_no_number_is_found(
    onnx_base: GgufFile, tmp_path: Path, name: str, place: int, value: float
) -> None:
    parameters = onnx_parameters()
    parameters[name].flat[place % parameters[name].size] = value
    refused(write_onnx(tmp_path / "a.onnx_adapter", parameters), onnx_base, f"{name} holds values")


@pytest.mark.parametrize("half", ["lora_A", "lora_B"])
def test_an_onnx_adapter_of_zeros_is_refused(onnx_base: GgufFile, tmp_path: Path, half: str) -> None:
    parameters = {name: each * np.float32(half not in name) for name, each in onnx_parameters().items()}
    refused(write_onnx(tmp_path / "a.onnx_adapter", parameters), onnx_base, "changes nothing")


def test_an_onnx_adapter_that_contradicts_itself_is_refused(onnx_base: GgufFile, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx_adapter"
    sound = onnx_parameters()
    refused(write_onnx(path, sound, **{KEY_RANK: 4}), onnx_base, "have rank 6")
    refused(write_onnx(path, sound, **{KEY_RANK: "2"}), onnx_base, "is no rank")
    refused(write_onnx(path, {n: e for n, e in sound.items() if n != f"{LAYER}.lora_B"}), onnx_base, "has no B matrix")
    refused(write_onnx(path, sound | {"more": np.ones((2, 2), np.float32)}), onnx_base, "no half of a LoRA pair")
    empty = {f"{LAYER}.lora_A": np.ones((8, 0), np.float32), f"{LAYER}.lora_B": np.ones((0, 6), np.float32)}
    refused(write_onnx(path, sound | empty), onnx_base, "is empty")
    swapped = sound | {f"{LAYER}.lora_A": sound[f"{LAYER}.lora_A"].T.copy()}
    refused(write_onnx(path, swapped), onnx_base, "ranks of .* differ")
