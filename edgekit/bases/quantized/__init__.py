"""A torch base made of the blocks that devices run."""

from edgekit.bases.quantized.blocks import PackedBlocks
from edgekit.bases.quantized.linear import PackedEmbedding, PackedLinear
from edgekit.bases.quantized.model import dequantised_state, load_packed

__all__ = ["PackedBlocks", "PackedEmbedding", "PackedLinear", "dequantised_state", "load_packed"]
