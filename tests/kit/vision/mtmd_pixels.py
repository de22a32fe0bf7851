"""Pixels as llama.cpp's mtmd makes them for Idefics3 and SmolVLM (``mtmd_image_preprocessor_idefics3``).

Adapters don't need this: they are trained on embeddings that mtmd has made.  It is for whoever trains an encoder or a
connector in torch and wants it to see what devices see.  transformers' own processor differs: it sends no tile of an
image that fits into one, where mtmd sends that tile and the whole image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgekit_runtime.formats.images import Picture


def idefics3_tiles(
    picture: Picture, *, tile: int, longest: int, mean: Sequence[float], std: Sequence[float]
) -> NDArray[np.float32]:
    """All tiles, row by row, and the whole image last: [tiles + 1, 3, tile, tile].

    Args:
        picture: the image.
        tile: side of what the encoder sees, pixels.
        longest: the longer side after scaling.
        mean: of each channel, subtracted after scaling to 0 to 1.
        std: what it is divided by then.
    """
    image = Image.frombytes("RGB", (picture.width, picture.height), picture.rgb)
    scaled = _resize(image, _scaled_size(image.size, longest))
    columns, rows = (-(-side // tile) for side in scaled.size)
    refined = _resize(scaled, (columns * tile, rows * tile))
    whole = _resize(refined, (tile, tile))
    boxes = [(tile * column, tile * row) for row in range(rows) for column in range(columns)]
    tiles = [refined.crop((x, y, x + tile, y + tile)) for x, y in boxes]
    pixels = np.stack([np.asarray(each, dtype=np.float32) for each in (*tiles, whole)]) / 255
    normal = (pixels - np.asarray(mean, dtype=np.float32)) / np.asarray(std, dtype=np.float32)
    return np.ascontiguousarray(normal.transpose(0, 3, 1, 2))


def _scaled_size(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """The longer side at ``longest``, the other one rounded down, then up to an even number."""
    width, height = size
    ratio = width / height
    if width >= height:
        short = int(longest / ratio)
        return longest, short + short % 2
    short = int(longest * ratio)
    return short + short % 2, longest


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)
