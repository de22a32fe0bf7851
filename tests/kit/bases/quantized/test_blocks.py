"""Packed blocks stand for the very numbers that gguf's reference makes of them, and take the file's bytes."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgekit.bases.quantized.block_formats import SUPPORTED
from edgekit.bases.quantized.blocks import QuantizedBlocks, dequantize
from edgekit_runtime.errors import InputError

from .conftest import BLOCK, random_blocks


@pytest.mark.parametrize("type_name", SUPPORTED)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_type_is_dequantized_bit_for_bit_as_the_reference(type_name: str, data: st.DataObject) -> None:
    elements, size = BLOCK[type_name]
    number = data.draw(st.integers(1, 3)) * max(1, 8 // elements)
    blocks = data.draw(arrays.arrays(np.uint8, (data.draw(st.integers(1, 3)), number * size)))
    with np.errstate(all="ignore"):
        expected = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[type_name])
    values = dequantize(torch.from_numpy(blocks), type_name).numpy()
    assert values.shape == expected.shape
    same = (values.view(np.uint32) == expected.view(np.uint32)) | (np.isnan(values) & np.isnan(expected))
    assert same.all()


@pytest.mark.parametrize("type_name", SUPPORTED)
def test_pieces_rows_and_low_precision_are_those_of_the_whole(type_name: str) -> None:
    blocks = torch.from_numpy(random_blocks(type_name, 7, 512).copy())
    packed = QuantizedBlocks(blocks, type_name)
    whole = packed.dequantize(torch.float32)
    assert packed.nbytes() == blocks.nbytes
    assert torch.equal(packed.dequantize(torch.float32, 2, 5), whole[2:5])
    rows = torch.tensor([6, 0, 6])
    assert torch.equal(packed.select(rows, torch.float32), whole[rows])
    assert torch.equal(packed.dequantize(torch.bfloat16), whole.bfloat16())


@pytest.mark.parametrize("type_name", SUPPORTED)
def test_packing_keeps_a_copy_and_leaves_its_source_alone(type_name: str) -> None:
    blocks = torch.from_numpy(random_blocks(type_name, 2, 256).copy())
    before = blocks.clone()
    packed = QuantizedBlocks(blocks, type_name)
    assert torch.equal(blocks, before)
    kept = packed.dequantize(torch.float32).clone()
    blocks.zero_()
    assert torch.equal(packed.dequantize(torch.float32), kept)


def test_an_unsupported_type_is_refused_with_the_way_out() -> None:
    with pytest.raises(InputError, match=r"IQ1_S.*base_precision nf4"):
        dequantize(torch.zeros((1, 50), dtype=torch.uint8), "IQ1_S")


def test_a_row_that_is_no_whole_number_of_blocks_is_refused() -> None:
    with pytest.raises(InputError, match="rows of 19 bytes are no whole Q4_0 blocks of 18"):
        dequantize(torch.zeros((1, 19), dtype=torch.uint8), "Q4_0")
