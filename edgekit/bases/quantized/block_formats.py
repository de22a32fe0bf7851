"""How each quantisation lays out a block: which bits are an element's code, which bytes are scales.

The formats are defined by ``ggml-common.h`` and ``ggml-quants.c`` of ggml; ``gguf.quants`` of the gguf package is the
reference that the tests compare with, bit for bit.  In all of them an element is ``scale * code + offset`` with one
scale (and offset) for a group of neighbouring elements.

Blocks of ONNX graphs stand apart from their scales in the file.  :mod:`~edgekit.bases.quantized.onnx_mapping` puts them
together as one, scale (float16), zero (a byte) and codes, so that they are a type like the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Scales = tuple[Tensor, Tensor | None]

# Codes of the IQ4 types stand for these values (kvalues_iq4nl of ggml-common.h).
IQ4_VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class Layout:
    """One quantisation.

    Attributes:
        block: elements in a block.
        size: bytes of a block.
        group: elements that share one scale.
        code: bytes [n, size] -> codes [n, block], uint8, in the order of the elements.
        scale_bytes: the bytes of a block that aren't codes, as (start, end) ranges.
        scales: those bytes [n, s] -> scales and offsets, float32 [n, block / group] each.
        planes: how a code's bits are split for keeping: (number of bits, position in the code).
        bias: subtracted from the code.
        table: what codes stand for, when it isn't themselves.

    """

    block: int
    size: int
    group: int
    code: Callable[[Tensor], Tensor]
    scale_bytes: tuple[tuple[int, int], ...]
    scales: Callable[[Tensor], Scales]
    planes: tuple[tuple[int, int], ...]
    bias: int = 0
    table: tuple[int, ...] | None = None


def fields(packed: Tensor, bits: int, run: int) -> Tensor:
    """Bit fields of bytes [n, b] as [n, b * 8 / bits]: of ``run`` bytes first all lowest fields, then the next."""
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=packed.device).view(1, 1, -1, 1)
    runs = packed.reshape(packed.shape[0], -1, 1, run)
    return torch.bitwise_right_shift(runs, shifts).bitwise_and_((1 << bits) - 1).flatten(1)


def _halves(raw: Tensor) -> Tensor:
    return raw.contiguous().view(torch.float16).float()


def _scale(raw: Tensor) -> Scales:
    return _halves(raw), None


def _scale_and_offset(raw: Tensor) -> Scales:
    both = _halves(raw)
    return both[:, :1], both[:, 1:]


def _scales_q2_k(raw: Tensor) -> Scales:
    d = _halves(raw[:, 16:])
    return d[:, :1] * (raw[:, :16] & 15).float(), -(d[:, 1:] * (raw[:, :16] >> 4).float())


def _scales_q3_k(raw: Tensor) -> Scales:
    six_bits = fields(raw[:, :8], 4, 8) | (fields(raw[:, 8:12], 2, 4) << 4)
    return _halves(raw[:, 12:]) * (six_bits.float() - 32), None


def _scales_q4_k(raw: Tensor) -> Scales:
    """Eight 6-bit scales and minima in 12 bytes; also those of Q5_K."""
    d = _halves(raw[:, :4])
    low, high, mixed = raw[:, 4:8], raw[:, 8:12], raw[:, 12:16]
    scale = torch.cat([low & 63, (mixed & 15) | ((low >> 2) & 48)], dim=1)
    minimum = torch.cat([high & 63, (mixed >> 4) | ((high >> 2) & 48)], dim=1)
    return d[:, :1] * scale.float(), -(d[:, 1:] * minimum.float())


def _scales_q6_k(raw: Tensor) -> Scales:
    return _halves(raw[:, 16:]) * raw[:, :16].view(torch.int8).float(), None


def _scales_iq4_xs(raw: Tensor) -> Scales:
    six_bits = fields(raw[:, 4:8], 4, 1) | (fields(raw[:, 2:4], 2, 1) << 4)
    return _halves(raw[:, :2]) * (six_bits.float() - 32), None


def _scale_and_zero(middle: int) -> Callable[[Tensor], Scales]:
    """For ``scale * (code - zero)`` with codes that are kept less ``middle``; exact, as these numbers are short."""

    def scales(raw: Tensor) -> Scales:
        scale = _halves(raw[:, :2])
        return scale, scale * (middle - raw[:, 2:].float())

    return scales


def _simple(size: int, scales: int, planes: tuple[tuple[int, int], ...], bias: int = 0) -> Layout:
    """A type of 32 elements: half-precision scale (and offset), fifth bits if any, nibbles."""
    nibbles = size - 16

    def code(raw: Tensor) -> Tensor:
        low = fields(raw[:, nibbles:], 4, 16)
        return low if len(planes) == 1 else low | (fields(raw[:, scales:nibbles], 1, 1) << 4)

    return Layout(32, size, 32, code, ((0, scales),), _scale if scales == 2 else _scale_and_offset, planes, bias)


_NIBBLE, _FIFTH_BIT = (4, 0), (1, 4)

LAYOUTS = {
    "Q4_0": _simple(18, 2, (_NIBBLE,), bias=8),
    "Q4_1": _simple(20, 4, (_NIBBLE,)),
    "Q5_0": _simple(22, 2, (_NIBBLE, _FIFTH_BIT), bias=16),
    "Q5_1": _simple(24, 4, (_NIBBLE, _FIFTH_BIT)),
    "Q8_0": Layout(32, 34, 32, lambda raw: raw[:, 2:], ((0, 2),), _scale, ((8, 0),)),
    "Q2_K": Layout(256, 84, 16, lambda raw: fields(raw[:, 16:80], 2, 32), ((0, 16), (80, 84)), _scales_q2_k, ((2, 0),)),
    "Q3_K": Layout(
        256,
        110,
        16,
        lambda raw: fields(raw[:, 32:96], 2, 32) | (fields(raw[:, :32], 1, 32) << 2),
        ((96, 110),),
        _scales_q3_k,
        ((2, 0), (1, 2)),
        bias=4,
    ),
    "Q4_K": Layout(256, 144, 32, lambda raw: fields(raw[:, 16:], 4, 32), ((0, 16),), _scales_q4_k, (_NIBBLE,)),
    "Q5_K": Layout(
        256,
        176,
        32,
        lambda raw: fields(raw[:, 48:], 4, 32) | (fields(raw[:, 16:48], 1, 32) << 4),
        ((0, 16),),
        _scales_q4_k,
        (_NIBBLE, _FIFTH_BIT),
    ),
    "Q6_K": Layout(
        256,
        210,
        16,
        lambda raw: fields(raw[:, :128], 4, 64) | (fields(raw[:, 128:192], 2, 32) << 4),
        ((192, 210),),
        _scales_q6_k,
        (_NIBBLE, (2, 4)),
        bias=32,
    ),
    "IQ4_NL": Layout(
        32, 18, 32, lambda raw: fields(raw[:, 2:], 4, 16), ((0, 2),), _scale, (_NIBBLE,), table=IQ4_VALUES
    ),
    "IQ4_XS": Layout(
        256, 136, 32, lambda raw: fields(raw[:, 8:], 4, 16), ((0, 8),), _scales_iq4_xs, (_NIBBLE,), table=IQ4_VALUES
    ),
}

SUPPORTED = (*FLOATS, *LAYOUTS)  # of GGUF

ONNX_TYPES = {4: "MatMulNBits, 4 bits", 8: "MatMulNBits, 8 bits"}
LAYOUTS[ONNX_TYPES[4]] = Layout(
    32, 19, 32, lambda raw: fields(raw[:, 3:], 4, 1), ((0, 3),), _scale_and_zero(0), (_NIBBLE,)
)
LAYOUTS[ONNX_TYPES[8]] = Layout(32, 35, 32, lambda raw: raw[:, 3:] ^ 128, ((0, 3),), _scale_and_zero(128), ((8, 0),))
