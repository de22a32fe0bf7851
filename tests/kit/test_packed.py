"""Blocks in torch stand for the very numbers that gguf's reference makes of them."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from edgekit_runtime.errors import InputError
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgekit.packed import dequantise
from edgekit.packed.dequantise import GEOMETRY, KERNELS


@pytest.mark.parametrize("type_name", KERNELS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_type_is_dequantised_bit_for_bit_as_the_reference(type_name: str, data: st.DataObject) -> None:
    size = GEOMETRY[type_name][1]
    shape = (data.draw(st.integers(1, 3)), size * data.draw(st.integers(1, 3)))
    blocks = data.draw(arrays.arrays(np.uint8, shape))
    kind = gguf.GGMLQuantizationType[type_name]
    with np.errstate(all="ignore"):
        expected = gguf.quants.dequantize(blocks, kind)
    got = dequantise(torch.from_numpy(blocks), type_name).numpy()
    assert got.shape == expected.shape
    same = (got.view(np.uint32) == expected.view(np.uint32)) | (np.isnan(got) & np.isnan(expected))
    assert same.all()


def test_an_unsupported_type_is_refused_with_the_way_out() -> None:
    with pytest.raises(InputError, match=r"IQ1_S.*base_precision nf4"):
        dequantise(torch.zeros((1, 50), dtype=torch.uint8), "IQ1_S")
