"""Adapters that come and go in one context: the next one may lie where a freed one lay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekit_runtime.engines import BARE, Part
from edgekit_runtime.engines.llama.engine import LlamaEngine
from edgekit_runtime.formats.bundle import read_manifest
from tests.goods import Goods

ADAPTERS = 6
TOKENS = [3, 500, 7, 44, 9]


@pytest.fixture
def files(goods: Goods) -> list[Path]:
    return [goods.bundle / read_manifest(goods.bundle).adapters[0].file, goods.two]


def _engine(goods: Goods) -> LlamaEngine:
    return LlamaEngine(goods.bundle / read_manifest(goods.bundle).base.file, context=32, threads=1)


def _logits(engine: LlamaEngine) -> np.ndarray:
    """Token by token: each step has the form of the one before, so that llama.cpp may take its graph again."""
    engine.forget(0)
    for at, token in enumerate(TOKENS):
        engine.decode([Part(0, at, [token])])
    return engine.row(0).copy()


@pytest.mark.parametrize("after_a_failed_switch", [False, True], ids=["usual", "after a failed switch"])
def test_an_adapter_that_lies_where_a_freed_one_lay_computes_its_own(
    goods: Goods, files: list[Path], after_a_failed_switch: bool
) -> None:
    expected = []
    for file in files:
        alone = _engine(goods)
        alone.load_adapter("it", file)
        alone.select((("it", 1.0),))
        expected.append(_logits(alone))
        alone.close()
    assert np.abs(expected[0] - expected[1]).max() > 0.1
    engine = _engine(goods)
    bare = _logits(engine)
    for number in range(ADAPTERS):
        engine.load_adapter("it", files[number % 2])
        engine.select((("it", 1.0),))
        np.testing.assert_array_equal(_logits(engine), expected[number % 2])
        if after_a_failed_switch:
            with pytest.raises(KeyError):
                engine.select((("nobody", 1.0),))
        engine.unload_adapter("it")
    engine.select(BARE)
    np.testing.assert_array_equal(_logits(engine), bare)
    engine.close()
