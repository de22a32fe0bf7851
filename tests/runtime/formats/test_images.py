"""Images from outside: good ones become the pixels they show, bad ones an error, within bounds."""

from __future__ import annotations

import base64
import io
import os
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from edgekit_runtime.errors import InputError
from edgekit_runtime.formats import images as pictures
from edgekit_runtime.formats.images import BASE64_PIECE, MAX_SIDE, Picture, read_data_url, read_picture, read_pictures


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


PLAIN = Image.radial_gradient("L").resize((40, 30)).convert("RGB")
PNG = encoded(PLAIN, "PNG")


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_lossless_formats_give_the_same_picture(kind: str) -> None:
    picture = read_picture(encoded(PLAIN, kind))
    assert picture == Picture(40, 30, PLAIN.tobytes())
    assert picture.digest == read_picture(PNG).digest


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats_are_read(kind: str) -> None:
    assert (read_picture(encoded(PLAIN, kind)).width, read_picture(encoded(PLAIN, kind)).height) == (40, 30)


def test_the_turn_that_a_camera_notes_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    turned = read_picture(encoded(PLAIN, "PNG", exif=exif))
    assert turned == Picture(30, 40, PLAIN.transpose(Image.Transpose.ROTATE_270).tobytes())


def test_transparency_lies_over_white() -> None:
    assert read_picture(encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 0)), "PNG")).rgb == b"\xff" * 48


def test_a_large_image_is_scaled_down() -> None:
    picture = read_picture(encoded(Image.new("RGB", (3 * MAX_SIDE, MAX_SIDE)), "JPEG"))
    assert picture.width == MAX_SIDE
    assert abs(picture.height - MAX_SIDE // 3) <= 1


def png(head: bytes, rows: bytes, *others: tuple[bytes, bytes]) -> bytes:
    """A PNG of these chunks."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    chunks = [(b"IHDR", head), *others, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in chunks)


def bomb(width: int, height: int) -> bytes:
    """A small PNG that says it is large."""
    return png(struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), bytes(1000))


@pytest.mark.parametrize("others", [(), ((b"tRNS", struct.pack(">H", 30_000)),)], ids=["plain", "transparent"])
def test_of_sixteen_bits_of_grey_the_upper_eight_are_kept(others: tuple[tuple[bytes, bytes], ...]) -> None:
    greys = [0, 255, 256, 30_000, 65_279, 65_535]
    row = b"\0" + struct.pack(">6H", *greys)
    picture = read_picture(png(struct.pack(">IIBBBBB", 6, 1, 16, 0, 0, 0, 0), row, *others))
    assert picture.rgb == bytes(grey >> 8 for grey in greys for _ in "rgb")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "is empty"),
        (b"hello", "is no image of a kind"),
        (encoded(PLAIN, "GIF"), "is no image of a kind"),
        (encoded(PLAIN, "TIFF"), "is no image of a kind"),
        (PNG[: len(PNG) // 2], "is damaged"),
        (encoded(PLAIN, "JPEG")[:400], "is damaged"),
        (bomb(50_000, 50_000), "more than 50 million"),
        (bomb(3, 4000), "a strip of 3 x 4000"),
        (bytes(17 * 2**20), "more than 16 MiB"),
    ],
    ids=["empty", "text", "gif", "tiff", "half-png", "half-jpeg", "bomb", "strip", "huge"],
)
def test_what_is_no_sound_image_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        read_picture(data)


@given(st.binary(max_size=200), st.integers(0, len(PNG)), st.booleans())
@example(b"", 0, True)
def test_damage_never_raises_anything_else(noise: bytes, at: int, replace: bool) -> None:
    data = PNG[:at] + noise + PNG[at + (len(noise) if replace else 0) :]
    try:
        picture = read_picture(data)
    except InputError:
        return
    assert len(picture.rgb) == 3 * picture.width * picture.height


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.png can't be read \(No such file"):
        read_picture(tmp_path / "none.png")


def test_an_address_is_told_from_a_path() -> None:
    with pytest.raises(InputError, match=r"https://example.org/a.png is an address.*downloaded before"):
        read_picture("https://example.org/a.png")


def test_data_urls() -> None:
    url = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert read_data_url(url, "image 1") == read_picture(PNG)
    for bad in ("http://example.org/a.png", "data:image/png,xx", "data:image/png;base64,@@", url[:-9]):
        with pytest.raises(InputError, match="image 1 is"):
            read_data_url(bad, "image 1")


def test_base64_that_goes_on_after_its_end_is_refused_wherever_that_is() -> None:
    head, padded = "data:image/png;base64,", base64.b64encode(b"ab" * 2).decode()
    for text in (padded * 2, "A" * (BASE64_PIECE - len(padded)) + padded * 2, "A" * BASE64_PIECE + "A"):
        with pytest.raises(InputError, match="is not base64"):
            read_data_url(head + text, "image 1")


MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16")


@pytest.mark.parametrize("clear", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_bands_give_the_pixels_of_the_whole(monkeypatch: pytest.MonkeyPatch, mode: str, clear: bool) -> None:
    shades = Image.radial_gradient("L").resize((61, 47))
    image = Image.merge("RGBA", [shades, shades.rotate(90), shades.rotate(180), shades.rotate(45)])
    image = Image.new("I;16", shades.size, 40_000) if mode == "I;16" else _in_mode(image, mode)
    if clear and mode in ("1", "L", "P", "RGB"):
        image.info["transparency"] = {"1": 255, "RGB": image.getpixel((3, 3))}.get(mode, 100)
    whole = pictures._flattened(image)
    monkeypatch.setattr(pictures, "BAND_PIXELS", 200)
    assert pictures._flattened(image).tobytes() == whole.tobytes()
    if mode == "RGBA":
        white = Image.new("RGBA", image.size, "white")
        assert whole.tobytes() == Image.alpha_composite(white, image).convert("RGB").tobytes()


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    return image.convert("P").convert(mode) if mode == "PA" else image.convert("RGB" if mode == "CMYK" else mode)


def test_too_many_images_are_refused() -> None:
    with pytest.raises(InputError, match="has 9 images"):
        read_pictures([PNG] * 9)


def test_a_jpeg_that_is_decoded_again_and_again_is_refused() -> None:
    large = encoded(Image.new("RGB", (512, 512)), "JPEG", progressive=True)
    first = large.index(b"\xff\xda", large.index(b"\xff\xda") + 1)
    second = large.index(b"\xff\xda", first + 1)
    with pytest.raises(InputError, match="scans"):
        read_picture(large[:first] + large[first:second] * 5000 + large[second:])
    assert read_picture(large).width == 512


def test_a_pipe_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InputError, match="no regular file"):
        read_picture(tmp_path / "pipe.png")
