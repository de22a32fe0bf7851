"""SIMD dot products for wllama's WebAssembly.

wllama's releases compile llama.cpp for an unknown CPU: Emscripten calls its processor x86, llama.cpp looks for "wasm",
and its SIMD kernels stay out.  Four fifths of a page's time then go into plain C.  The two that Q4_0 and Q8_0 weights
live on are put in their places here.  They add in the order of the C code, so every result is the same to the bit.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from edgekit_runtime.errors import InputError

_IMPORTS, _CODE, _CUSTOM = 2, 10, 0
_FUNCTION_NAMES = 1
_WIDE_MEMORY = 4  # flag of a memory whose addresses have 64 bits
_I32, _F32, _V128 = 0x7F, 0x7D, 0x7B
# f(int n, float * s, size_t bs, const void * x, size_t bx, const void * y, size_t by, int nrc), then locals
_N, _S, _X, _Y = 0, 1, 3, 5
_SUM, _SIGN, _QUANTS, _PARTS = 8, 9, 10, 11
_BLOCK = 32  # weights
_Q4_BYTES, _Q8_BYTES, _SCALE_BYTES = 18, 34, 2


def with_kernels(module: bytes) -> bytes:
    """A module of wllama's with the kernels in it.

    Args:
        module: as it was published, with the names of its functions.

    Raises:
        InputError: the module is of another make.
    """
    sections = list(_sections(module))
    imported, wide = _imports(next(body for kind, body in sections if kind == _IMPORTS))
    bodies = kernels(wide=wide)
    numbers = {name: number for number, name in _names(sections) if name in bodies}
    if missing := bodies.keys() - numbers.keys():
        raise InputError(f"wllama's module has no {', '.join(sorted(missing))}", "take the version that edgekit pins")
    code = {numbers[name] - imported: body for name, body in bodies.items()}
    made = [(kind, _replaced(body, code) if kind == _CODE else body) for kind, body in sections]
    return module[:8] + b"".join(bytes([kind]) + _leb(len(body)) + body for kind, body in made)


def kernels(*, wide: bool) -> dict[str, bytes]:
    """Names of llama.cpp's functions with what stands in their places: locals and code, as in a module's code section.

    Args:
        wide: addresses have 64 bits.
    """
    asm = _Assembler(wide)
    return {"ggml_vec_dot_q4_0_q8_0": asm.q4_kernel(), "ggml_vec_dot_q8_0_q8_0": asm.q8_kernel()}


@dataclass(frozen=True)
class _Assembler:
    """Writes functions for 64-bit or 32-bit addresses; a function's text is in the order of its stack machine."""

    wide: bool

    def q4_kernel(self) -> bytes:
        """16 bytes of nibbles less 8, the low ones first, on 32 bytes: sums of four products fit 16 bits."""
        nibbles = (
            _get(_QUANTS) + _splat(0x0F) + _simd(0x4E),  # and
            _get(_QUANTS) + b"\x41\x04" + _simd(0x6D),  # shift right
        )
        products = b""
        for half, each in enumerate(nibbles):
            products += each + _splat(8) + _simd(0x71) + _set(_PARTS)
            for number, multiply in enumerate((0x9C, 0x9D)):  # low and high bytes
                products += _get(_PARTS) + self._load(_Y, _SCALE_BYTES + 16 * half) + _simd(multiply)
                products += _simd(0x8E) if half or number else b""
        step = self._load(_X, _SCALE_BYTES) + _set(_QUANTS) + products + _simd(0x7E) + _set(_PARTS)
        scaled = _across() + self._scale(_X) + b"\x94" + self._scale(_Y) + b"\x94"
        return self._function(step, scaled, _Q4_BYTES)

    def q8_kernel(self) -> bytes:
        """32 bytes on 32 bytes: sums of two products fit 32 bits."""
        step = b""
        for half in range(2):
            for number, multiply in enumerate((0x9C, 0x9D)):
                at = _SCALE_BYTES + 16 * half
                step += self._load(_X, at) + self._load(_Y, at) + _simd(multiply) + _simd(0x7E)
                step += _simd(0xAE) if half or number else b""
        scaled = _across() + self._scale(_X) + self._scale(_Y) + b"\x94\x94"
        return self._function(step + _set(_PARTS), scaled, _Q8_BYTES)

    def _function(self, step: bytes, scaled: bytes, stride: int) -> bytes:
        """All blocks of a row: ``step`` leaves four sums in _PARTS, ``scaled`` makes a number of them."""
        while_blocks = _get(_N) + b"\x41" + _signed(_BLOCK) + b"\x48\x0d\x01"  # n < 32: leave
        added = _get(_SUM) + scaled + b"\x92" + _set(_SUM)
        onwards = self._advance(_X, stride) + self._advance(_Y, _Q8_BYTES)
        count = _get(_N) + b"\x41" + _signed(_BLOCK) + b"\x6b" + _set(_N)
        loop = b"\x02\x40\x03\x40" + while_blocks + step + added + onwards + count + b"\x0c\x00\x0b\x0b"
        result = _get(_S) + _get(_SUM) + b"\x38\x02\x00"
        local_kinds = b"\x03" + bytes([1, _F32, 1, _I32, 2, _V128])
        return local_kinds + loop + result + b"\x0b"

    def _load(self, pointer: int, offset: int) -> bytes:
        return _get(pointer) + _simd(0x00) + b"\x00" + _leb(offset)

    def _scale(self, pointer: int) -> bytes:
        """A half at the beginning of a block as a float: bits moved, exponent mended; infinity doesn't occur."""
        half = _get(pointer) + b"\x2f\x00\x00" + _tee(_SIGN)
        moved = half + b"\x41" + _signed(0x7FFF) + b"\x71\x41\x0d\x74\xbe" + b"\x43" + struct.pack("<f", 2.0**112)
        sign = _get(_SIGN) + b"\x41" + _signed(0x8000) + b"\x71\x41\x10\x74\xbe"
        return moved + b"\x94" + sign + b"\x98"  # times, copysign

    def _advance(self, pointer: int, by: int) -> bytes:
        constant, add = (b"\x42", b"\x7c") if self.wide else (b"\x41", b"\x6a")
        return _get(pointer) + constant + _signed(by) + add + _set(pointer)


def _across() -> bytes:
    """The four sums of _PARTS added up, as a float."""
    text = b""
    for distance in (8, 4):
        turned = bytes((lane + distance) % 16 for lane in range(16))
        text += _get(_PARTS) + _get(_PARTS) * 2 + _simd(0x0D) + turned + _simd(0xAE) + _set(_PARTS)
    return text + _get(_PARTS) + _simd(0x1B) + b"\x00\xb2"


def _splat(value: int) -> bytes:
    return _simd(0x0C) + bytes([value]) * 16


def _simd(code: int) -> bytes:
    return b"\xfd" + _leb(code)


def _get(local: int) -> bytes:
    return b"\x20" + _leb(local)


def _set(local: int) -> bytes:
    return b"\x21" + _leb(local)


def _tee(local: int) -> bytes:
    return b"\x22" + _leb(local)


def _leb(value: int, largest: int = 0x7F) -> bytes:
    """LEB128; ``largest`` is what the last byte can hold."""
    text = bytearray()
    while value > largest:
        text.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*text, value])


def _signed(value: int) -> bytes:
    """A positive number in the signed form: the last byte's seventh bit is its sign."""
    return _leb(value, 0x3F)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def number(self) -> int:
        value = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def sized(self) -> bytes:
        length = self.number()
        self.at += length
        return self.data[self.at - length : self.at]


def _sections(module: bytes) -> Iterator[tuple[int, bytes]]:
    reader = _Reader(module)
    reader.at = 8  # magic, version
    while reader.at < len(module):
        kind = reader.number()
        yield kind, reader.sized()


def _imports(section: bytes) -> tuple[int, bool]:
    """How many functions are imported, and whether the memory's addresses have 64 bits."""
    reader, functions, wide = _Reader(section), 0, False
    for _ in range(reader.number()):
        for _ in ("module", "name"):
            reader.sized()
        kind = reader.number()
        if kind in (1, 3):  # the type of a table, or of a global
            reader.number()
        if kind == 0:
            functions += 1
            reader.number()
        elif kind in (1, 2):
            flags = reader.number()
            wide = wide or (kind == 2 and bool(flags & _WIDE_MEMORY))
            for _ in range(1 + (flags & 1)):
                reader.number()
        else:
            reader.number()  # whether a global changes
            if kind == 4:
                reader.number()
    return functions, wide


def _names(sections: list[tuple[int, bytes]]) -> Iterator[tuple[int, str]]:
    for kind, body in sections:
        reader = _Reader(body)
        if kind != _CUSTOM or reader.sized() != b"name":
            continue
        while reader.at < len(body):
            part, content = reader.number(), _Reader(reader.sized())
            if part == _FUNCTION_NAMES:
                for _ in range(content.number()):
                    number = content.number()
                    yield number, content.sized().decode()


def _replaced(section: bytes, code: dict[int, bytes]) -> bytes:
    reader = _Reader(section)
    count = reader.number()
    bodies = []
    for number in range(count):
        body = reader.sized()
        bodies.append(code.get(number, body))
    return _leb(count) + b"".join(_leb(len(body)) + body for body in bodies)
