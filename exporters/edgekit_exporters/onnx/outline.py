"""What an ONNX base will take before it is made: by the shapes of the model and the rules that exports follow.

Graphs hold what :func:`~edgekit_exporters.onnx.graph.store_weights` writes: matrices of linear layers in blocks, all
else in float32.  The builder adds tables of rotary embeddings for the whole context.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from edgekit_exporters.base import Base
from edgekit_exporters.cache import cache_folder, cached
from edgekit_exporters.hf.float_model import skeleton
from edgekit_exporters.onnx.base import BITS, HEAD_BITS, source_digest, write_vocabulary
from edgekit_exporters.onnx.blocks import BLOCK, block_bytes

FLOAT_BYTES, HALF_BYTES = 4, 2
NODE_BYTES = 2_100  # of the graph for each linear layer, with adapter inputs and the nodes around it


@dataclass(frozen=True)
class OnnxOutline:
    """Of a base at one precision; bytes, and numbers of weights.

    Attributes:
        config: transformers' configuration.
        file_bytes: of the files that the engine loads for one sequence.
        read_bytes: of them read for each token.
        matmul_parameters: of layers, without embedding and output.
        embedding_parameters: of embedding and output, once where they are one matrix.
    """

    config: Any
    file_bytes: int
    read_bytes: int
    matmul_parameters: int
    embedding_parameters: int


def onnx_outline(base: Base, precision: str) -> OnnxOutline:
    """Ask for a base; no weight is read.

    Raises:
        InputError: llama.cpp's converter doesn't read its tokeniser.
    """
    model = _skeleton(base.folder)
    output, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    layers = [module for module in linear if module is not output]
    tied = bool(model.config.tie_word_embeddings)
    looked_up = 0 if tied else FLOAT_BYTES * embedding.weight.numel()
    matrices = sum(_matrix_bytes(module, precision, BITS.get(precision, 0)) for module in layers)
    matrices += _matrix_bytes(output, precision, HEAD_BITS)
    apart = {id(module.weight) for module in (*linear, embedding)}
    vectors = sum(value.numel() for value in _kept(model) if id(value) not in apart)
    read = matrices + FLOAT_BYTES * vectors
    graph = NODE_BYTES * (len(layers) + 1)
    tables = FLOAT_BYTES * sum(_rotary_tables(model.config))
    return OnnxOutline(
        config=model.config,
        file_bytes=read + looked_up + graph + tables + _vocabulary_bytes(base),
        read_bytes=read,
        matmul_parameters=sum(module.weight.numel() for module in layers),
        embedding_parameters=output.weight.numel() + (0 if tied else embedding.weight.numel()),
    )


@lru_cache(maxsize=2)
def _skeleton(folder: Path) -> Any:
    return skeleton(folder)


def _kept(model: Any) -> Iterator[torch.Tensor]:
    """Parameters, and buffers that are saved."""
    yield from model.parameters()
    saved = model.state_dict().keys()
    yield from (value for name, value in model.named_buffers() if name in saved)


def _matrix_bytes(module: Any, precision: str, bits: int) -> int:
    rows, columns = module.weight.shape
    if precision in BITS and columns % BLOCK == 0:
        return block_bytes(rows, columns, bits)
    return int(rows * columns * (HALF_BYTES if precision == "fp16" else FLOAT_BYTES))


def _rotary_tables(config: Any) -> Iterator[int]:
    """Numbers in the tables of cosines and sines; of models with long and short factors there are both."""
    rotary = getattr(config, "rope_parameters", None) or {}
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    share = rotary.get("partial_rotary_factor") or getattr(config, "partial_rotary_factor", None) or 1.0
    lengths = [config.max_position_embeddings]
    if rotary.get("rope_type") == "longrope":
        lengths.append(config.original_max_position_embeddings)
    if rotary:
        yield from (length * int(head * share) for length in lengths)


def _vocabulary_bytes(base: Base) -> int:
    """Of the tokeniser and template as GGUF."""

    def make(file: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="edgekit-vocabulary-") as scratch:
            written = Path(scratch, "vocabulary.gguf")
            write_vocabulary(base, {}, written)
            file.write_text(str(written.stat().st_size))

    target = cache_folder("bases", base.key) / f"onnx-vocabulary-bytes-{source_digest()}"
    return int(cached(target, make).read_text())
