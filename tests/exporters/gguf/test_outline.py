"""What is said of a base's files before they are made is what the converter and the quantiser make."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from edgekit_exporters.base import Base
from edgekit_exporters.gguf.base import Recipe, base_gguf
from edgekit_exporters.gguf.outline import file_bytes, quantized_header, source_gguf
from edgekit_exporters.gguf.quantize import QUANTIZATIONS, quantize
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.adapter import KEY_FAMILY
from edgekit_runtime.formats.gguf import read_gguf

VOCABULARY = 32
# The quantiser refuses these at one shape or another: most want an importance matrix, Q1_0 has no fall-back.
NOT_ALWAYS = {"Q1_0", "IQ3_XXS", "IQ3_XS", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S", "Q2_K_S"}
SHAPES = {"rows-64": (64, 1, 0), "rows-96": (96, 3, 0), "rows-256": (256, 8, 0), "rows-640": (640, 2, 0)}


def write_base(path: Path, width: int, kv_heads: int, experts: int, *, tied: bool, layers: int = 9) -> Path:
    """A llama in F32 with eight heads or six."""
    heads = 6 if kv_heads % 3 == 0 else 8
    hidden, kv_width = 2 * width, width // heads * kv_heads
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(2)
    generator = np.random.default_rng(0)

    def add(name: str, *shape: int) -> None:
        writer.add_tensor(name, generator.standard_normal(shape, dtype=np.float32))

    add("token_embd.weight", VOCABULARY, width)
    add("output_norm.weight", width)
    if not tied:
        add("output.weight", VOCABULARY, width)
    for layer in range(layers):
        block = f"blk.{layer}"
        for name, rows in (("q", width), ("k", kv_width), ("v", kv_width), ("output", width)):
            add(f"{block}.attn_{name}.weight", rows, width)
        for name in ("attn_norm", "ffn_norm"):
            add(f"{block}.{name}.weight", width)
        several, of_them = ("_exps", (experts,)) if experts else ("", ())
        add(f"{block}.ffn_gate{several}.weight", *of_them, hidden, width)
        add(f"{block}.ffn_up{several}.weight", *of_them, hidden, width)
        add(f"{block}.ffn_down{several}.weight", *of_them, width, hidden)
        if experts:
            add(f"{block}.ffn_gate_inp.weight", experts, width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def hollow(path: Path) -> Path:
    """The same file with a hole instead of its weights."""
    header, copy = read_gguf(path), path.with_name("hollow.gguf")
    with copy.open("wb") as stream:
        stream.write(path.read_bytes()[: header.data_offset])
        stream.truncate(path.stat().st_size)
    return copy


def assert_as_said(source: Path, quantization: str, recipe: Recipe | None = None) -> None:
    recipe = recipe or Recipe(quantization)
    said = quantized_header(hollow(source), recipe)
    made = source.with_name("made.gguf")
    quantize(source, made, quantization, tensor_types=recipe.tensor_types, threads=1)
    header = read_gguf(made)
    tensors = {name: (tensor.type_name, tensor.shape, tensor.size) for name, tensor in said.tensors.items()}
    assert tensors == {name: (each.type_name, each.shape, each.size) for name, each in header.tensors.items()}
    assert file_bytes(said) == pytest.approx(made.stat().st_size, abs=256)  # two keys of metadata


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tied", [False, True])
def test_each_tensor_has_the_type_that_the_quantiser_gives_it(tmp_path: Path, shape: str, tied: bool) -> None:
    is_wide = SHAPES[shape][0] > 128
    source = write_base(tmp_path / "base.gguf", *SHAPES[shape], tied=tied, layers=2 if is_wide else 9)
    types = ("Q8_0", "Q5_K_M", "Q4_K_M", "Q2_K", "IQ4_XS") if is_wide else sorted(set(QUANTIZATIONS) - NOT_ALWAYS)
    for quantization in types:
        assert_as_said(source, quantization)


def test_experts_are_counted_as_the_quantiser_counts_them(tmp_path: Path) -> None:
    source = write_base(tmp_path / "base.gguf", 64, 2, 8, tied=False)
    for quantization in ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "Q3_K_M"):
        assert_as_said(source, quantization)


def test_types_of_single_tensors_are_in_it(tmp_path: Path) -> None:
    source = write_base(tmp_path / "base.gguf", 64, 2, 0, tied=True)
    assert_as_said(source, "Q4_0", Recipe("Q4_0", tensor_types={"ffn_down": "Q8_0"}))


def test_a_mix_that_an_importance_matrix_changes_is_said_with_one(tmp_path: Path) -> None:
    source = write_base(tmp_path / "base.gguf", 64, 2, 0, tied=True)
    without, given = (quantized_header(source, Recipe("Q4_0", imatrix)) for imatrix in (None, Path()))
    first = "blk.0.ffn_down.weight"
    assert (without.tensors[first].type_name, given.tensors[first].type_name) == ("Q4_0", "Q4_1")


def test_a_folder_is_outlined_as_it_is_converted(tiny_chat_base: Path) -> None:
    base = Base("tiny-chat", "tiny-chat-outlined", tiny_chat_base)
    made = read_gguf(base_gguf(base, "F32"))
    with source_gguf(base) as source:
        said = read_gguf(source)
        assert source.stat().st_size == pytest.approx(made.path.stat().st_size, abs=256)
    tensors = {name: (tensor.type_name, tensor.shape, tensor.size) for name, tensor in said.tensors.items()}
    assert tensors == {name: (each.type_name, each.shape, each.size) for name, each in made.tensors.items()}
    assert said.metadata == {key: value for key, value in made.metadata.items() if key != KEY_FAMILY}


def test_a_folder_that_cannot_be_converted_is_refused_in_the_converters_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["NoSuchModel"], "model_type": "none"}')
    with (
        pytest.raises(InputError, match=r"llama\.cpp's converter can't convert .*NoSuchModel"),
        source_gguf(Base("none", "none", tmp_path)),
    ):
        pass
