"""Rows quantized one tensor at a time have the blocks that llama.cpp's quantizer writes into files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit_exporters.gguf.blocks import (
    blocks_digest,
    file_blocks_digest,
    quantized_rows,
    tensor_blocks,
    write_with_blocks,
)
from edgekit_exporters.gguf.quantize import quantize
from edgekit_runtime.errors import EdgekitError
from edgekit_runtime.formats.gguf import read_gguf
from tests.tiny_gguf import write_base

NAME = "blk.0.ffn_down.weight"
ROWS, COLUMNS = 48, 512


@pytest.fixture(scope="module")
def weights() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(0, 0.3, (ROWS, COLUMNS)).astype(np.float32)


@pytest.fixture(scope="module")
def source(weights: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF whose one matrix has whole blocks of every type."""
    path = tmp_path_factory.mktemp("blocks") / "source.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for add in (
        writer.add_block_count,
        writer.add_context_length,
        writer.add_embedding_length,
        writer.add_feed_forward_length,
        writer.add_head_count,
    ):
        add(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(1)
    writer.add_tensor(NAME, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("by_importance", [False, True])
@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0", "Q5_1", "Q4_K", "Q6_K", "IQ4_NL", "BF16"])
def test_rows_have_the_blocks_that_the_quantizer_writes(
    kind: str, by_importance: bool, weights: NDArray[np.float32], source: Path, tmp_path: Path
) -> None:
    importance: NDArray[Any] | None = None
    if by_importance:
        importance = np.random.default_rng(1).uniform(0.01, 9, COLUMNS).astype(np.float32)
    file = tmp_path / "quantized.gguf"
    imatrix = None if importance is None else {NAME: importance}
    quantize(source, file, "Q8_0", imatrix=imatrix, tensor_types={"ffn_down": kind})
    info = read_gguf(file).tensors[NAME]
    assert info.type_name == kind
    written = tensor_blocks(file, info)
    assert written.any()
    for threads in (1, 3):
        assert np.array_equal(quantized_rows(weights, kind, importance, threads=threads), written)
    assert np.array_equal(quantized_rows(weights[7:9], kind, importance), written[7:9])


def test_a_file_gets_other_blocks_in_some_tensors_and_keeps_the_rest(tmp_path: Path) -> None:
    source, file = write_base(tmp_path / "base.gguf"), tmp_path / "changed.gguf"
    tensors = read_gguf(source).tensors
    blocks = np.random.default_rng(2).integers(0, 256, tensor_blocks(source, tensors[NAME]).shape).astype(np.uint8)
    write_with_blocks(source, file, [(NAME, blocks)])
    changed = read_gguf(file).tensors
    assert np.array_equal(tensor_blocks(file, changed[NAME]), blocks)
    for name in tensors.keys() - {NAME}:
        assert np.array_equal(tensor_blocks(file, changed[name]), tensor_blocks(source, tensors[name]))
    assert file_blocks_digest(file, [NAME]) == blocks_digest([(NAME, blocks)])
    assert file_blocks_digest(source, [NAME]) != blocks_digest([(NAME, blocks)])
    with pytest.raises(EdgekitError, match="is to get"):
        write_with_blocks(source, file, [(NAME, blocks[1:])])
