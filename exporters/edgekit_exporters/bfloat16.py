"""Whether this machine's processor is made for bfloat16."""

from __future__ import annotations


def fast_on_processor() -> bool:
    """Whether it multiplies matrices faster in bfloat16 than in float32: with AVX512-BF16 or AMX."""
    import torch

    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
