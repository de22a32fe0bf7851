"""GGUF blocks kept in memory at their size in the file, and turned into floats a piece at a time."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from edgekit.bases.quantized.block_formats import FLOATS, LAYOUTS, SUPPORTED, Layout
from edgekit_runtime.errors import InputError

PLANE = "plane"


class QuantizedBlocks(nn.Module):
    """The blocks of one matrix.

    The bits are those of the file in another order: the bytes of a block interleave scales and codes, which keeps a
    vector unit from working on more than one block at a time.  Here codes lie apart from scales, and a byte holds
    codes that are far apart in the row, so that whole rows are unpacked with a mask and a shift.

    Attributes:
        rows, cols: shape of the matrix that the blocks stand for.
        order: where each of its columns stands in the blocks; None where they stand in order.
        factors: what the blocks are divided by, [rows, 1]; None where they are the matrix's own values.
        type_name: GGUF's name of the type, ``Q4_0`` say.

    """

    order: Tensor | None
    factors: Tensor | None

    def __init__(
        self, blocks: Tensor, type_name: str, columns: Tensor | None = None, factors: Tensor | None = None
    ) -> None:
        """Take the blocks as they stand in a GGUF file.

        Args:
            blocks: uint8 [rows, bytes of a row].
            type_name: one of ``SUPPORTED``.
            columns: the matrix's column that each column of the blocks is; None where they stand in order.
            factors: what the conversion multiplied each row with, [rows, 1], if anything.

        Raises:
            InputError: an unsupported type, or a row that is no whole number of blocks.

        """
        super().__init__()
        self.type_name = type_name
        self.rows = blocks.shape[0]
        self.cols = columns_in(blocks.shape[1], type_name)
        kept = _split(blocks, LAYOUTS[type_name]) if type_name in LAYOUTS else [blocks.clone()]
        for index, piece in enumerate(kept):
            self.register_buffer(f"{PLANE}{index}", piece, persistent=False)
        self.register_buffer("order", None if columns is None else torch.argsort(columns), persistent=False)
        self.register_buffer("factors", factors, persistent=False)
        self._kept: Tensor | None = None

    @property
    def planes(self) -> list[Tensor]:
        """What is kept: code bits, then scales; uint8, one row for each row of the matrix."""
        return [value for name, value in self.named_buffers(recurse=False) if name.startswith(PLANE)]

    @property
    def device(self) -> torch.device:
        """Where the blocks are."""
        return self.planes[0].device

    def nbytes(self) -> int:
        """Bytes in memory: as many as in the file."""
        return sum(plane.nbytes for plane in self.planes)

    def dequantize(self, dtype: torch.dtype, start: int = 0, stop: int | None = None) -> Tensor:
        """Return the rows from ``start`` to ``stop`` as floats [stop - start, cols], not to be changed."""
        if self._kept is not None and self.keeps(dtype):
            return self._kept[start:stop]
        return self._floats(slice(start, stop), dtype)

    def keep(self, dtype: torch.dtype) -> None:
        """Keep the floats of ``dtype``, which :meth:`dequantize` returns from now on: memory for time."""
        self._kept = None
        self._kept = self.dequantize(dtype)

    def keeps(self, dtype: torch.dtype) -> bool:
        """Whether floats of ``dtype`` are at hand."""
        return self._kept is not None and self._kept.dtype == dtype

    def select(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the rows with the given numbers [n] as floats [n, cols]."""
        return self._floats(rows, dtype)

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return f"{self.rows}, {self.cols}, {self.type_name}"

    def _floats(self, rows: Tensor | slice, dtype: torch.dtype) -> Tensor:
        pieces = [plane[rows] for plane in self.planes]
        if self.factors is None:
            values = self._in_file_order(pieces, dtype)
        else:
            values = (self._in_file_order(pieces, torch.float32) / self.factors[rows]).to(dtype)
        return values if self.order is None else values[:, self.order]

    def _in_file_order(self, pieces: list[Tensor], dtype: torch.dtype) -> Tensor:
        if self.type_name in FLOATS:
            return pieces[0].view(FLOATS[self.type_name]).to(dtype)
        layout = LAYOUTS[self.type_name]
        *planes, scale_bytes = pieces
        values = _codes(planes, self.cols, layout).float()
        scale, offset = layout.scales(scale_bytes.reshape(-1, scale_bytes.shape[1] * layout.block // self.cols))
        groups = values.view(-1, layout.group).mul_(scale.reshape(-1, 1))
        if offset is not None:
            groups.add_(offset.reshape(-1, 1))
        return values.to(dtype)


def dequantize(blocks: Tensor, type_name: str, dtype: torch.dtype = torch.float32) -> Tensor:
    """Floats that GGUF blocks stand for.

    Args:
        blocks: uint8 [rows, bytes of a row], as in the file.
        type_name: one of ``SUPPORTED``.
        dtype: of the result; float32 equals gguf-py's reference bit for bit, others are rounded from it.

    Returns:
        [rows, cols]

    Raises:
        InputError: an unsupported type, or a row that is no whole number of blocks.

    """
    return QuantizedBlocks(blocks, type_name).dequantize(dtype)


def columns_in(row_bytes: int, type_name: str) -> int:
    """Elements in a row of ``row_bytes``.

    Raises:
        InputError: an unsupported type, or no whole number of blocks.

    """
    if type_name in FLOATS:
        block, size = 1, FLOATS[type_name].itemsize
    elif type_name in LAYOUTS:
        block, size = LAYOUTS[type_name].block, LAYOUTS[type_name].size
    else:
        raise InputError(
            f"training on {type_name} blocks isn't supported",
            f"use one of {', '.join(SUPPORTED)}, or base_precision nf4",
        )
    if row_bytes % size:
        raise InputError(
            f"rows of {row_bytes} bytes are no whole {type_name} blocks of {size}", "check the tensor's type"
        )
    return row_bytes // size * block


def _split(blocks: Tensor, layout: Layout) -> list[Tensor]:
    """Blocks as in the file -> planes of code bits, and the scale bytes; each [rows, …]."""
    rows = blocks.shape[0]
    raw = blocks.reshape(-1, layout.size)
    codes = layout.code(raw).reshape(rows, -1)
    scale_bytes = torch.cat([raw[:, start:end] for start, end in layout.scale_bytes], dim=1)
    if layout.table is not None:
        planes = [codes[:, 0::2] | (codes[:, 1::2] << 4)]
    else:
        planes = [_pack(codes, bits, position) for bits, position in layout.planes]
    return [plane.contiguous() for plane in (*planes, scale_bytes.reshape(rows, -1))]


def _pack(codes: Tensor, bits: int, position: int) -> Tensor:
    """Keep ``bits`` bits from ``position`` on: a byte holds those of columns c, c + cols * bits / 8, …"""
    parts = ((codes >> position) & ((1 << bits) - 1)).chunk(8 // bits, dim=1)
    packed = parts[0].clone()
    for number, part in enumerate(parts[1:], start=1):
        packed |= part << (bits * number)
    return packed


def _codes(planes: list[Tensor], cols: int, layout: Layout) -> Tensor:
    """The integers that are multiplied with the scales, int8 [rows, cols]."""
    if layout.table is not None:
        pairs = _table_pairs(layout.table, planes[0].device)
        return pairs.index_select(0, planes[0].flatten().int()).view(torch.int8).view(-1, cols)
    if layout.planes[0][0] == 8:
        return planes[0].view(torch.int8)
    codes = torch.empty(planes[0].shape[0], cols, dtype=torch.uint8, device=planes[0].device)
    for plane, (bits, position) in zip(planes, layout.planes, strict=True):
        _unpack(plane, bits, position, codes)
    signed = codes.view(torch.int8)
    return signed.sub_(layout.bias) if layout.bias else signed


def _unpack(plane: Tensor, bits: int, position: int, codes: Tensor) -> None:
    """The inverse of :func:`_pack`; position 0 overwrites ``codes``, others are added to them."""
    mask = ((1 << bits) - 1) << position
    for number, target in enumerate(codes.chunk(8 // bits, dim=1)):
        shift = bits * number - position
        moved = plane if shift == 0 else plane >> shift if shift > 0 else plane << -shift
        if position == 0:
            torch.bitwise_and(moved, mask, out=target)
        else:
            target |= moved & mask


@functools.lru_cache(maxsize=8)
def _table_pairs(table: tuple[int, ...], device: torch.device) -> Tensor:
    """Byte -> the values of its low and high nibble, as the two bytes of an int16."""
    values = torch.tensor(table, dtype=torch.int8)
    return torch.stack([values.repeat(16), values.repeat_interleave(16)], dim=1).view(torch.int16).flatten().to(device)
