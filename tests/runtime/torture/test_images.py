"""Images of requests that are damaged or say something wrong, as a caption service reads them."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import random
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edgekit_runtime.errors import InputError
from edgekit_runtime.server.bodies import MIB, Room
from edgekit_runtime.server.images import ImageReader
from tests.runtime.torture.test_mutations import damage
from tests.runtime.torture.test_shapes import timed

KINDS = ("png", "jpeg", "webp", "bmp", "gif", "tiff")
PLACES = [
    "/etc/hostname",
    "/dev/zero",
    "../x",
    "%2e%2e/x",
    "a\0b",
    "%00",
    "[",
    "//[x]",
    "x" * 5000,
    "loop",
    "fifo",
    "é",
    "",
]
SIZES = [0, 1, 2, 17, 255, 65_535, 65_536, 50_000, 1 << 31, (1 << 32) - 1]


def sound() -> list[bytes]:
    """Small ones of many kinds."""
    noise = random.Random(0).randbytes(4 * 24 * 16)
    picture = Image.frombytes("RGBA", (24, 16), noise)
    found = []
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"):
        plain = picture.convert("L").convert("I").convert("I;16") if mode == "I;16" else picture.convert(mode)
        for kind in KINDS:
            for options in (
                {},
                {"progressive": True, "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"},
            ):
                file = io.BytesIO()
                try:
                    plain.save(file, kind, **options)
                except (OSError, ValueError, KeyError):  # this kind has no such mode
                    continue
                found.append(file.getvalue())
    animated = io.BytesIO()
    picture.save(animated, "webp", save_all=True, append_images=[picture.rotate(90)] * 3)
    return [*found, animated.getvalue()]


def rewritten(data: bytes, chosen: random.Random) -> bytes:
    """A PNG's chunk, or four bytes of any file, that say something else; a chunk's checksum fits again."""
    if not data.startswith(b"\x89PNG"):
        at = chosen.randrange(min(len(data) - 4, 200))
        return data[:at] + struct.pack(chosen.choice("<>") + "I", chosen.choice(SIZES)) + data[at + 4 :]
    chunks, at = [], 8
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunks.append([data[at + 4 : at + 8], data[at + 8 : at + 8 + length]])
        at += 12 + length
    chunk = chosen.choice(chunks)
    match chosen.randrange(6):
        case 0:
            chunk[0] = chosen.choice([b"IHDR", b"IDAT", b"PLTE", b"tRNS", b"iCCP", b"eXIf", b"acTL", b"fcTL", b"xxxx"])
        case 1:
            chunk[1] = damage(chunk[1] or b"\0", chosen)
        case 2:
            sizes = (chosen.choice(SIZES), chosen.choice([16, *SIZES]))
            chunks[0][1] = struct.pack(">II", *sizes) + chunks[0][1][8:]
        case 3:
            chunks[0][1] = chunks[0][1][:8] + bytes(chosen.choice([0, 1, 2, 3, 6, 8, 16, 255]) for _ in range(5))
        case 4:
            bomb = zlib.compress(bytes(50_000_000), 9)
            name = chosen.choice([b"iCCP", b"zTXt", b"iTXt", b"IDAT"])
            chunks.insert(1, [name, bomb if name == b"IDAT" else b"x\0\0" + bomb])
        case 5:
            chunks.insert(chosen.randrange(len(chunks)), list(chunk))
    whole = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    return data[:8] + b"".join(whole)


def url_of(data: bytes, folder: Path, chosen: random.Random) -> str:
    """A URL with these bytes, or nearly one."""
    body = base64.b64encode(data).decode()
    ways: list[Any] = [f"data:image/png;base64,{body}"] * 8
    ways += [f"data:;base64,{body}", f"data:image/png,{body}", f"data:image/png;base64,{body[:-1]}", f"{body}", "data:"]
    ways += [f"data:image/png;base64,{body}\n", f"data:image/png;base64,é{body}", f"file://{folder}/a.png", "http://x/"]
    ways += [f"file://{chosen.choice([str(folder) + '/', ''])}{chosen.choice(PLACES)}" for _ in range(3)]
    return str(chosen.choice(ways))


def read_image(reader: ImageReader, url: str) -> dict[str, Any]:
    """One image as a request's only one, with room for it."""
    with Room(400 * MIB).share() as share:
        (picture,) = asyncio.run(reader.read([url], share, 0))
    return picture


def test_written_images(tmp_path: Path, torture: bool, figures: Callable[[str, object], None]) -> None:
    """Each is a picture, or a refusal."""
    chosen, counts = random.Random(9), Counter[str]()
    known = sound()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "a.png").write_bytes(known[0])
    reader = ImageReader(task="caption", files=tmp_path)
    for _ in range(5_000 if torture else 250):
        data = chosen.choice(known)
        match chosen.randrange(4):
            case 0 | 1:
                data = rewritten(data, chosen)
            case 2:
                data = damage(data, chosen)
        url = url_of(data, tmp_path, chosen)

        def read(url: str = url) -> None:
            picture = read_image(reader, url)
            assert len(picture["rgb"]) == 3 * picture["width"] * picture["height"]

        timed(counts, "image", read)
    assert min(counts.values()) > counts.total() // 10  # or they would prove little
    for kind, count in sorted(counts.items()):
        figures(f"written {kind}", count)


@pytest.mark.parametrize("place", ["//[", "//[x]/a.png", "/%00", "/loop/a.png", "/" + "x" * 5000])
def test_a_file_url_that_is_no_path_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    inside = place if place.startswith("//") else f"//{tmp_path}{place}"
    with pytest.raises(InputError):
        read_image(ImageReader(task="caption", files=tmp_path), f"file:{inside}")
