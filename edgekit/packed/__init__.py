"""A torch base made of the GGUF blocks that devices run."""

from edgekit.packed.dequantise import dequantise
from edgekit.packed.layers import PackedEmbedding, PackedLinear, PackedWeight
from edgekit.packed.load import dequantised_state, load_packed

__all__ = ["PackedEmbedding", "PackedLinear", "PackedWeight", "dequantise", "dequantised_state", "load_packed"]
