"""A torch base made of the blocks that devices run."""

from edgekit.bases.quantized.blocks import QuantizedBlocks
from edgekit.bases.quantized.linear import QuantizedEmbedding, QuantizedLinear
from edgekit.bases.quantized.model import dequantized_state, load_quantized

__all__ = ["QuantizedBlocks", "QuantizedEmbedding", "QuantizedLinear", "dequantized_state", "load_quantized"]
