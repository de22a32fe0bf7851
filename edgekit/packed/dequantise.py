"""GGUF blocks to numbers, in torch.

Float32 results equal gguf-py's reference (``gguf.quants``) bit for bit; layouts are those of ``ggml-common.h``.  Each
function takes blocks [n, bytes of a block] (uint8) and returns [n, elements of a block] (float32).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from edgekit_runtime.errors import InputError
from edgekit_runtime.gguf import TENSOR_TYPES

GEOMETRY = {name: (elements, size) for name, elements, size in TENSOR_TYPES.values()}
IQ4_NL_VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)  # kvalues_iq4nl


def dequantise(blocks: torch.Tensor, type_name: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Rows of blocks [rows, bytes of a row] (uint8) to [rows, columns].

    Raises:
        InputError: a type that isn't supported.

    """
    if type_name not in KERNELS:
        raise InputError(
            f"training on {type_name} blocks is not supported",
            f"use one of {', '.join(KERNELS)}, or base_precision nf4",
        )
    elements, size = GEOMETRY[type_name]
    rows, width = blocks.shape
    values = KERNELS[type_name](blocks.reshape(-1, size))
    return values.to(dtype).reshape(rows, width // size * elements)


def _half(blocks: torch.Tensor, start: int) -> torch.Tensor:
    """The float16 at byte ``start`` of each block, as float32 [n, 1]."""
    return blocks[:, start : start + 2].contiguous().view(torch.float16).float()


def _nibbles(packed: torch.Tensor) -> torch.Tensor:
    """[n, k] bytes to [n, 2k]: all low halves, then all high ones."""
    return torch.cat((packed & 15, packed >> 4), dim=1)


def _fifth_bits(packed: torch.Tensor) -> torch.Tensor:
    """Four bytes [n, 4] to their 32 bits [n, 32], the lowest first."""
    shifts = torch.arange(8, dtype=torch.uint8, device=packed.device)
    return ((packed.unsqueeze(-1) >> shifts) & 1).reshape(len(packed), 32)


def _q4_0(blocks: torch.Tensor) -> torch.Tensor:
    return (_nibbles(blocks[:, 2:]).view(torch.int8) - 8) * _half(blocks, 0)


def _q4_1(blocks: torch.Tensor) -> torch.Tensor:
    return _nibbles(blocks[:, 4:]) * _half(blocks, 0) + _half(blocks, 2)


def _q5_0(blocks: torch.Tensor) -> torch.Tensor:
    quants = _nibbles(blocks[:, 6:]) | (_fifth_bits(blocks[:, 2:6]) << 4)
    return (quants.view(torch.int8) - 16) * _half(blocks, 0)


def _q5_1(blocks: torch.Tensor) -> torch.Tensor:
    quants = _nibbles(blocks[:, 8:]) | (_fifth_bits(blocks[:, 4:8]) << 4)
    return quants * _half(blocks, 0) + _half(blocks, 2)


def _q8_0(blocks: torch.Tensor) -> torch.Tensor:
    return blocks[:, 2:].view(torch.int8) * _half(blocks, 0)


def _iq4_nl(blocks: torch.Tensor) -> torch.Tensor:
    values = torch.tensor(IQ4_NL_VALUES, dtype=torch.float32, device=blocks.device)
    return _half(blocks, 0) * values[_nibbles(blocks[:, 2:]).int()]


def _k_scales(packed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Q4_K's and Q5_K's 12 bytes to 8 six-bit scales and 8 six-bit minima, float32 [n, 8, 1]."""
    low, middle, high = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = torch.cat((low & 63, (high & 15) | ((low >> 2) & 48)), dim=1)
    minima = torch.cat((middle & 63, (high >> 4) | ((middle >> 2) & 48)), dim=1)
    return scales.float().unsqueeze(-1), minima.float().unsqueeze(-1)


def _k_blocks(blocks: torch.Tensor, quants: torch.Tensor) -> torch.Tensor:
    scales, minima = _k_scales(blocks[:, 4:16])
    d = _half(blocks, 0).unsqueeze(-1) * scales
    m = _half(blocks, 2).unsqueeze(-1) * minima
    return (d * quants - m).reshape(len(blocks), 256)


def _halves_of_32(packed: torch.Tensor) -> torch.Tensor:
    """[n, 128] bytes to [n, 8, 32]: each 32 bytes hold one group in their low and the next in their high halves."""
    groups = packed.reshape(len(packed), 4, 32)
    return torch.stack((groups & 15, groups >> 4), dim=2).reshape(len(packed), 8, 32)


def _q4_k(blocks: torch.Tensor) -> torch.Tensor:
    return _k_blocks(blocks, _halves_of_32(blocks[:, 16:]))


def _q5_k(blocks: torch.Tensor) -> torch.Tensor:
    shifts = torch.arange(8, dtype=torch.uint8, device=blocks.device).reshape(1, 8, 1)
    fifth = (blocks[:, 16:48].unsqueeze(1) >> shifts) & 1
    return _k_blocks(blocks, _halves_of_32(blocks[:, 48:]) | (fifth << 4))


def _q6_k(blocks: torch.Tensor) -> torch.Tensor:
    n = len(blocks)
    low = blocks[:, :128].reshape(n, 2, 1, 64) >> _shifts(blocks, 2, 4)
    high = blocks[:, 128:192].reshape(n, 2, 1, 32) >> _shifts(blocks, 4, 2)
    quants = (low & 15).reshape(n, 8, 32) | ((high & 3) << 4).reshape(n, 8, 32)
    scales = blocks[:, 192:208].view(torch.int8).float() * _half(blocks, 208)
    return ((quants.view(torch.int8) - 32).reshape(n, 16, 16) * scales.unsqueeze(-1)).reshape(n, 256)


def _shifts(blocks: torch.Tensor, count: int, step: int) -> torch.Tensor:
    return torch.arange(0, count * step, step, dtype=torch.uint8, device=blocks.device).reshape(1, 1, count, 1)


def _view(dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda blocks: blocks.contiguous().view(dtype).float()


KERNELS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "F32": _view(torch.float32),
    "F16": _view(torch.float16),
    "BF16": _view(torch.bfloat16),
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "IQ4_NL": _iq4_nl,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
