"""PEFT's targets as they are written: names of the model in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def as_named() -> Iterator[None]:
    """Keep PEFT from taking ``down_proj`` and the like for transformers 4's names of experts, where a base has experts.

    It does so for adapters of old (they are told from their tensors' names here), and with them for layers that are
    called so now: shared experts, dense layers, ``all-linear``.
    """
    from peft.utils import transformers_weight_conversion as conversion

    known = conversion._MOE_TARGET_MODULE_MAPPING
    kept = dict(known)
    known.clear()
    try:
        yield
    finally:
        known.update(kept)
