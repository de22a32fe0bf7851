"""Names of KV cells that come from embeddings: an image's, a prompt adapter's."""

from __future__ import annotations

import hashlib

MOST_CELLS = 1 << 16  # of one frame; larger than any context


def cell_ids(name: str, count: int) -> range:
    """Negative ids in place of token ids, one for each embedding: the same for the same name, and for no other."""
    first = (int.from_bytes(hashlib.sha256(name.encode()).digest()[:6]) >> 1) * MOST_CELLS  # fits 64 bits
    return range(-first - 1, -first - 1 - count, -1)
