"""A torch base made of the blocks that devices run."""

from edgekit.packed.blocks import PackedBlocks
from edgekit.packed.linear import PackedEmbedding, PackedLinear
from edgekit.packed.model import dequantised_state, load_packed

__all__ = ["PackedBlocks", "PackedEmbedding", "PackedLinear", "dequantised_state", "load_packed"]
