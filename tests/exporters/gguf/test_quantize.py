"""The list of quantisations, which is written down so that asking for it loads no engine."""

from __future__ import annotations

import pytest
from gguf import GGMLQuantizationType
from llama_cpp import llama_cpp

from edgekit_exporters.gguf.quantize import (
    QUANTIZATIONS,
    TENSOR_TYPE_NUMBERS,
    canonical_quantization,
    check_tensor_types,
)
from edgekit_runtime.errors import UsageError

PREFIX = "LLAMA_FTYPE_MOSTLY_"
NOT_OFFERED = ("MXFP4_MOE", "NVFP4")


def test_the_list_is_what_the_installed_engine_has() -> None:
    there = {name.removeprefix(PREFIX): value for name, value in vars(llama_cpp).items() if name.startswith(PREFIX)}
    there["F32"] = llama_cpp.LLAMA_FTYPE_ALL_F32
    assert {name: value for name, value in there.items() if name not in NOT_OFFERED} == QUANTIZATIONS


def test_types_of_tensors_have_ggmls_numbers() -> None:
    known = {name: int(member) for name, member in GGMLQuantizationType.__members__.items()}
    known.setdefault("Q2_0", 42)  # younger than the gguf package
    assert all(known[name] == value for name, value in TENSOR_TYPE_NUMBERS.items())
    assert {"F16", "Q8_0", "Q6_K", "Q4_0", "IQ4_NL"} <= set(TENSOR_TYPE_NUMBERS)


@pytest.mark.parametrize(("name", "meant"), [("q4_0", "Q4_0"), ("Q4_K", "Q4_K_M"), ("bf16", "BF16")])
def test_names_as_people_write_them(name: str, meant: str) -> None:
    assert canonical_quantization(name) == meant


@pytest.mark.parametrize(
    ("name", "words"), [("Q4_O", "did you mean Q4_0"), ("", "use one of"), ("int4", "no quantization is called")]
)
def test_a_quantization_that_is_none(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        canonical_quantization(name)


@pytest.mark.parametrize(
    ("types", "words"),
    [
        ({"ffn": "Q6K"}, "did you mean Q6_K"),
        ({"(": "Q6_K"}, "no regular expression"),
        ({"a": "Q8_1"}, "no tensor type"),
    ],
)
def test_types_of_tensors_that_are_none(types: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_tensor_types(types)
