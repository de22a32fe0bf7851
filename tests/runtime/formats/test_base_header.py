"""Bases whose headers llama.cpp ends the process over, or would: each is refused before an engine sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.base_files import BaseFiles
from edgekit_runtime.formats.base_header import _expected, check_base_header, check_projector
from edgekit_runtime.formats.gguf import VALUE_NAMES, read_gguf
from edgekit_runtime.intake.canary import try_adapters
from tests.raw_gguf import HEADS, LAYERS, PIECES, WIDTH, Tensor, Value, metadata_of_base, tensors_of_base, write_raw

Changes = dict[str, Value | None]


def changed(path: Path, changes: Changes, *, kind: str = "llama", tensors: dict[str, Tensor] | None = None) -> Path:
    """A base with other metadata; None takes a key out."""
    metadata = metadata_of_base(kind) | {key: value for key, value in changes.items() if value is not None}
    kept = {key: value for key, value in metadata.items() if changes.get(key, value) is not None}
    return write_raw(path, kept, tensors_of_base() | (tensors or {}))


def refused(path: Path, why: str) -> None:
    with pytest.raises(InputError, match=why) as caught:
        check_base_header(read_gguf(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_what_the_engine_can_run_is_taken(tmp_path: Path, kind: str) -> None:
    path = changed(tmp_path / "base.gguf", {}, kind=kind)
    check_base_header(read_gguf(path))
    assert try_adapters(BaseFiles("llama.cpp", path), []) == []


MAX = (1 << 32) - 1
L = "llama."
T = "tokenizer.ggml."
NUMBERS: list[tuple[Changes, str]] = [
    *(({L + "block_count": ("U32", count)}, "block_count") for count in (0, 513, MAX)),
    ({L + "block_count": None}, "no llama.block_count"),
    ({L + "nextn_predict_layers": ("U32", LAYERS)}, "nextn_predict_layers"),
    ({L + "nextn_predict_layers": ("U32", MAX)}, "nextn_predict_layers"),
    *(({L + "context_length": ("U32", count)}, "context_length") for count in (0, MAX)),
    *(({L + "embedding_length": ("U32", count)}, "embedding_length") for count in (0, MAX)),
    ({L + "expert_used_count": ("U32", 2)}, "expert_used_count"),
    ({L + "expert_count": ("U32", 8)}, "0 of 8 experts"),
    ({L + "expert_count": ("U32", 1025), L + "expert_used_count": ("U32", 2)}, "expert_count"),
    ({L + "expert_count": ("U32", 4), L + "expert_used_count": ("U32", 5)}, "5 of 4"),
    ({L + "expert_count": ("U32", 4), L + "expert_used_count": ("[U32]", [1])}, "of 1 layers"),
    ({L + "expert_count": ("U32", 4), L + "expert_used_count": ("[I32]", [1, 9])}, "9 of 4"),
    ({L + "expert_group_count": ("U32", 2)}, "expert_group_count"),
    (
        {L + "expert_count": ("U32", 4), L + "expert_used_count": ("U32", 1), L + "expert_group_count": ("U32", 3)},
        "expert_group_count",
    ),
    ({L + "attention.head_count": ("U32", MAX)}, "head_count"),
    ({L + "attention.head_count": ("U32", WIDTH * 2), L + "attention.head_count_kv": ("U32", 2)}, "key_length"),
    ({L + "attention.head_count": ("[U32]", [HEADS] * 3)}, "of 3 layers"),
    ({L + "attention.head_count_kv": ("U32", 3)}, "head_count_kv"),
    ({L + "attention.head_count_kv": ("U32", HEADS * 2)}, "head_count_kv"),
    ({L + "attention.head_count_kv": ("[I32]", [2, 3])}, "head_count_kv"),
    ({L + "attention.key_length": ("U32", 16)}, "key_length"),
    ({L + "attention.value_length": ("U32", 16)}, "values have 16"),
    ({L + "attention.value_length": ("U32", 0)}, "value_length"),
    ({L + "rope.dimension_count": ("U32", 3)}, "dimension_count"),
    ({L + "attention.layer_norm_rms_epsilon": ("F32", -1.0)}, "negative"),
    ({L + "attention.layer_norm_rms_epsilon": ("F32", float("nan"))}, "is no number"),
    ({L + "rope.freq_base": ("F32", 0.0)}, "freq_base"),
    ({L + "rope.freq_base": ("F32", float("inf"))}, "is no number"),
    ({L + "rope.scaling.type": ("STRING", "spiral")}, "none of none, linear"),
    ({L + "attention.causal": ("BOOL", False)}, "doesn't write text"),
    ({"split.count": ("U16", 2)}, "one of several files"),
]


@pytest.mark.parametrize(("changes", "why"), NUMBERS)
def test_a_number_that_an_assertion_is_about_is_refused(tmp_path: Path, changes: Changes, why: str) -> None:
    refused(changed(tmp_path / "base.gguf", changes), why)


VOCABULARIES: list[tuple[str, Changes, str]] = [
    ("llama", {T + "model": None}, "no tokenizer"),
    *(("llama", {T + "model": ("STRING", kind)}, "writes no text") for kind in ("none", "no_vocab", "t5", "bert", "x")),
    ("llama", {T + "tokens": None}, "empty"),
    ("llama", {T + "tokens": ("[STRING]", [])}, "empty"),
    ("llama", {T + "tokens": ("[STRING]", [*PIECES[:-1], "a"])}, "'a' stands twice"),
    ("llama", {T + "tokens": ("[STRING]", [*PIECES[:-1], "a\0b"])}, "'a' stands twice"),
    ("llama", {T + "tokens": ("[STRING]", [*PIECES[:-2], "", f"[EMPTY_{len(PIECES) - 2}]"])}, "stands twice"),
    ("llama", {T + "tokens": ("[STRING]", [*PIECES[:20], "c" * 70_000, *PIECES[21:]])}, "longer than"),
    ("llama", {T + "tokens": ("[STRING]", [f"t{each}" for each in range(len(PIECES))])}, "no token for the byte 0x00"),
    ("llama", {T + "scores": ("[F32]", [0.0] * 3)}, "3 tokenizer.ggml.scores"),
    ("llama", {T + "scores": ("[F32]", [float("nan")] * len(PIECES))}, "is no number"),
    ("llama", {T + "token_type": ("[I32]", [1])}, "1 tokenizer.ggml.token_type"),
    ("gpt2", {T + "token_type": ("[I32]", [6] * len(PIECES))}, "'t0' is said to be a byte"),
    ("gpt2", {T + "merges": None}, "no tokenizer.ggml.merges"),
    *(
        (kind, {T + name + "_token_id": ("U32", number)}, f"{name}_token_id is {number}")
        for kind in ("llama", "gpt2")
        for name in ("bos", "eos", "eot", "eom", "unknown")
        for number in (len(PIECES), MAX)
    ),
    ("gemma4", {T + "bos_token_id": None, T + "merges": ("[STRING]", ["t 0"])}, "asks for a token"),
    (
        "gemma4",
        {T + "eos_token_id": None, T + "add_eos_token": ("BOOL", True), T + "merges": ("[STRING]", ["t 0"])},
        "asks for a token",
    ),
]


@pytest.mark.parametrize(("kind", "changes", "why"), VOCABULARIES)
def test_a_vocabulary_without_what_its_tokenizer_looks_up_is_refused(
    tmp_path: Path, kind: str, changes: Changes, why: str
) -> None:
    refused(changed(tmp_path / "base.gguf", changes, kind=kind), why)


@pytest.mark.parametrize("type_name", ["I8", "I16", "I32", "I64", "F64", "Q8_1"])
def test_weights_of_a_type_that_nothing_multiplies_are_refused(tmp_path: Path, type_name: str) -> None:
    size = {"I8": 1, "I16": 2, "I32": 4, "I64": 8, "F64": 8, "Q8_1": 36 / 32}[type_name]
    weights: Tensor = (type_name, (WIDTH, WIDTH), bytes(int(WIDTH * WIDTH * size)))
    refused(changed(tmp_path / "base.gguf", {}, tensors={"blk.0.attn_q.weight": weights}), f"stored as {type_name}")


@pytest.mark.parametrize("type_name", ["F16", "BF16"])
def test_a_vector_that_is_not_f32_is_refused(tmp_path: Path, type_name: str) -> None:
    norm: Tensor = (type_name, (WIDTH,), bytes(WIDTH * 2))
    refused(changed(tmp_path / "base.gguf", {}, tensors={"output_norm.weight": norm}), "is a vector")


def _as(stored: str) -> Value:
    """A value of a type."""
    inner = stored.strip("[]")
    plain: Any = "x" if inner == "STRING" else True if inner == "BOOL" else 1.0 if inner[0] == "F" else 1
    return stored, [plain] if stored.startswith("[") else plain


SCALARS = [name for name in VALUE_NAMES if name != "ARRAY"]
STORED = [*SCALARS, *(f"[{name}]" for name in SCALARS)]


@pytest.mark.parametrize("key", sorted(_expected("llama")))
def test_each_key_is_taken_as_llama_cpp_reads_it_alone(tmp_path: Path, key: str) -> None:
    """Whatever else is wrong with the value: its type is told first."""
    taken = _expected("llama")[key]
    for stored in STORED:
        changes: Changes = {key: _as(stored)}
        if key in ("general.architecture", "general.alignment"):
            changes[key] = (stored, changes[key][1]) if stored != taken[0] else metadata_of_base().get(key)  # type: ignore[index]
        try:
            check_base_header(read_gguf(changed(tmp_path / "base.gguf", changes)))
            said = ""
        except InputError as error:
            said = str(error)
        if stored in taken:
            assert "is stored as" not in said
        else:
            assert "is stored as" in said or "alignment" in said


PROJECTOR: dict[str, Value] = {
    "general.architecture": ("STRING", "clip"),
    "clip.has_vision_encoder": ("BOOL", True),
    "clip.projector_type": ("STRING", "idefics3"),
    "clip.vision.embedding_length": ("U32", 32),
    "clip.vision.attention.head_count": ("U32", 4),
    "clip.vision.block_count": ("U32", 1),
    "clip.vision.projection_dim": ("U32", 32),
    "clip.vision.image_size": ("U32", 64),
    "clip.vision.patch_size": ("U32", 16),
}


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("clip.has_vision_encoder", ("U32", 1), "stored as U32"),
        ("clip.projector_type", ("U32", 1), "stored as U32"),
        ("clip.vision.projection_dim", ("I32", 32), "stored as I32"),
        ("clip.vision.projection_dim", ("U32", 0), "projection_dim is 0"),
        ("clip.vision.projection_dim", ("U32", MAX), "projection_dim is"),
        ("clip.vision.patch_size", ("U32", 0), "patch_size is 0"),
        ("clip.vision.image_mean", ("[F64]", [1.0]), "stored as"),
        ("clip.vision.attention.layer_norm_epsilon", ("F64", 1e-5), "stored as F64"),
        ("clip.audio.block_count", ("U8", 1), "stored as U8"),
    ],
)
def test_a_projector_is_looked_at_in_the_same_way(tmp_path: Path, key: str, value: Value, why: str) -> None:
    check_projector(read_gguf(write_raw(tmp_path / "sound.gguf", PROJECTOR, {})))
    path = write_raw(tmp_path / "projector.gguf", PROJECTOR | {key: value}, {})
    with pytest.raises(InputError, match=why):
        check_projector(read_gguf(path))
