"""A packed model computes what llama.cpp computes from the same file, architecture by architecture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from edgekit.bases.quantized.model import load_quantized

from .conftest import CONFIGS
from .engine import engine_logits

TOKENS = [5, 17, 3, 80, 41, 9, 66, 2, 30]


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_those_of_the_float_model_and_of_the_engine(name: str, write_model: Callable[..., Any]) -> None:
    path, folder, floats = write_model(name)
    model = load_quantized(path, folder, dtype=torch.float32)
    with torch.no_grad():
        packed = model(torch.tensor([TOKENS])).logits[0]
        expected = floats(torch.tensor([TOKENS])).logits[0]
    torch.testing.assert_close(packed, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(packed.numpy(), engine_logits(path, TOKENS), rtol=2e-3, atol=2e-3)
