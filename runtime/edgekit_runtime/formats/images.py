"""Images from outside, decoded within bounds.

Files that come from anywhere are decoded by Pillow in the process that took them, never in the one that holds the
engine, which sees nothing but pixels.  Training reads images through the same function, so that both see the same ones.
"""

from __future__ import annotations

import binascii
import hashlib
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit_runtime.errors import InputError
from edgekit_runtime.files.regular import open_regular

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_PIXELS = 50_000_000  # what the file may hold; decoding takes 3 or 4 bytes for each
MAX_SIDE = 2048  # what is kept: a larger image is scaled down, its proportions kept
MAX_ASPECT = 16  # a thinner strip makes resizers divide by nothing
MAX_IMAGES = 8  # in a request
MAX_SCANS = 200  # of a progressive JPEG, which has ten or so: each one is a pass over all pixels
_JPEG = b"\xff\xd8"
_SCAN = b"\xff\xda"  # begins one, and can't stand inside of one
DATA_URL = b"data:"
LONGEST_HEAD = 256  # of a data: URL, to its comma
BASE64_PIECE = 256 * 1024
BAND_PIXELS = 1 << 20  # that are converted at once


@dataclass(frozen=True)
class Picture:
    """Decoded pixels: RGB, 8 bits each, row by row from the top left."""

    width: int
    height: int
    rgb: bytes

    @cached_property
    def digest(self) -> str:
        """sha256 over size and pixels: the same image, whatever file it came in."""
        return hashlib.sha256(f"{self.width}x{self.height}:".encode() + self.rgb).hexdigest()


Source = Picture | Path | str | bytes


def read_picture(source: Source, name: str | None = None) -> Picture:
    """Decode an image.

    Only JPEG, PNG, WebP and BMP are opened.  The turn that a camera notes is applied, transparency is laid over
    white, and only the first frame of an animation is read.

    Args:
        source: a file's path or its bytes; a picture is returned as it is.
        name: what errors call it.

    Raises:
        InputError: missing, unreadable, of another kind, too large, too thin, or damaged.
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, bytes):
        return _decode(source, name or "the image")
    path = Path(source)
    if isinstance(source, str) and "://" in source:
        raise InputError(f"{source} is an address, and none is opened here", "give a file, downloaded before")
    try:
        with open_regular(path) as stream:  # a pipe would keep everybody waiting
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InputError(f"the image {path} can't be read ({error.strerror})", "give the path of a file") from None
    return _decode(data, name or str(path))


def read_data_url(url: str | bytes | memoryview, name: str) -> Picture:
    """Decode a ``data:image/…;base64,…`` URL.

    Raises:
        InputError: not such a URL, or as :func:`read_picture`.
    """
    given = memoryview(url.encode("utf-8", "surrogatepass") if isinstance(url, str) else url)
    head, comma, _ = bytes(given[:LONGEST_HEAD]).partition(b",")
    if not comma or not head.startswith(DATA_URL) or not head.endswith(b";base64"):
        raise InputError(f"{name} is no base64 data: URL", "send data:image/jpeg;base64,…")
    return read_base64(given[len(head) + 1 :], name)


def read_base64(text: str | bytes | memoryview, name: str) -> Picture:
    """Decode an image in base64.

    Raises:
        InputError: it is something else, or as :func:`read_picture`.
    """
    body = memoryview(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
    if len(body) > MAX_FILE_BYTES * 4 // 3 + 4:
        raise _too_large(name)
    try:
        data = _from_base64(body)
    except ValueError:
        raise InputError(f"{name} is not base64", "encode the whole file, without line breaks") from None
    return _decode(data, name)


def _from_base64(text: memoryview) -> bytes:
    """What it stands for; piece by piece, as no other thread runs while one is decoded.

    Raises:
        ValueError: it is something else.
    """
    data = bytearray()
    for at in range(0, len(text), BASE64_PIECE):
        piece = text[at : at + BASE64_PIECE]
        data += (found := binascii.a2b_base64(piece, strict_mode=True))
        if len(found) * 4 != len(piece) * 3 and at + BASE64_PIECE < len(text):
            raise ValueError("it ends before its end")
    return bytes(data)


def listed(sources: Source | Sequence[Source] | None) -> list[Source]:
    """None, one image or several, as a list; nothing is opened."""
    if sources is None:
        return []
    return [sources] if isinstance(sources, (Picture, Path, str, bytes)) else list(sources)


def read_pictures(sources: Sequence[Source]) -> list[Picture]:
    """Decode images.

    Raises:
        InputError: too many, or as :func:`read_picture`.
    """
    check_count(len(sources))
    return [read_picture(each) for each in sources]


def check_count(count: int) -> None:
    """Raise InputError for more images than a request may have."""
    if count > MAX_IMAGES:
        raise InputError(f"the request has {count} images", f"send at most {MAX_IMAGES}")


def _too_large(name: str) -> InputError:
    return InputError(f"{name} has more than {MAX_FILE_BYTES // 2**20} MiB", "send a smaller image")


def _decode(data: bytes, name: str) -> Picture:
    from PIL import Image, UnidentifiedImageError

    if len(data) > MAX_FILE_BYTES:
        raise _too_large(name)
    if not data:
        raise InputError(f"{name} is empty", "send the whole file")
    if data.startswith(_JPEG) and data.count(_SCAN) > MAX_SCANS:
        raise InputError(f"{name} is a JPEG of more than {MAX_SCANS} scans", "save it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images: we have a limit of our own
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            _check_size(image.size, name)
            return _pixels(image)
    except UnidentifiedImageError:
        raise InputError(
            f"{name} is no image of a kind that is read here",
            f"save it as one of {', '.join(FORMATS)}, whatever its name",
        ) from None
    except InputError:
        raise
    except Image.DecompressionBombError:
        raise InputError(f"{name} is more than {MAX_PIXELS // 1_000_000} million pixels", "scale it down") from None
    except MemoryError:
        raise InputError(f"there is no memory to decode {name}", "send a smaller image") from None
    except Exception as error:  # decoders raise whatever a damaged file makes them stumble over
        raise InputError(f"{name} is damaged ({error})", "send the whole file, or save it again") from None


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{name} is {width} x {height} pixels, more than {MAX_PIXELS // 1_000_000} million", "scale it down"
        )
    if not min(size) or max(size) > MAX_ASPECT * min(size):
        raise InputError(f"{name} is a strip of {width} x {height} pixels", "cut out the part that matters")


def _pixels(image: Image.Image) -> Picture:
    from PIL import Image, ImageOps

    image.draft("RGB", (MAX_SIDE, MAX_SIDE))  # a JPEG is decoded no larger than needed
    ImageOps.exif_transpose(image, in_place=True)
    image.load()
    plain = image if image.mode == "RGB" and "transparency" not in image.info else _flattened(image)
    if max(plain.size) > MAX_SIDE:
        plain = ImageOps.contain(plain, (MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    return Picture(plain.width, plain.height, plain.tobytes())


def _flattened(image: Image.Image) -> Image.Image:
    """An image without transparency; band by band, as each conversion is a copy of 4 bytes a pixel."""
    from PIL import Image

    plain = Image.new("RGB", image.size)
    rows = max(1, BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        plain.paste(_flat_band(image.crop((0, top, image.width, min(top + rows, image.height)))), (0, top))
    return plain


def _flat_band(band: Image.Image) -> Image.Image:
    from PIL import Image

    if band.mode.startswith("I"):  # 16 bits of grey: Pillow would make white of all that is above 255
        band = band.convert("I").point(lambda value: value * (1 / 256) + 0).convert("L")
        band.info.pop("transparency", None)  # counted in 16 bits
    if "A" in band.getbands() or "transparency" in band.info:
        clear = band.convert("RGBA")
        band = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
    return band.convert("RGB")
