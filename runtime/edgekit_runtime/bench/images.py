"""Images of caption bundles: what the first token costs with one that is new, and with one that another adapter saw."""

from __future__ import annotations

import random
import re
from typing import Any

from edgekit_runtime.bench.statistics import figures
from edgekit_runtime.errors import UsageError
from edgekit_runtime.formats.images import MAX_ASPECT, MAX_SIDE, Picture
from edgekit_runtime.runtime import BASE, Runtime

QUESTION = "Describe the image."
IMAGE_SIZE = "640x480"
_GRID = 16  # cells of a side of the random pattern


def parse_size(text: str) -> tuple[int, int]:
    """Width and height, pixels, of ``WxH``.

    Raises:
        UsageError: not of that form, or no size that is encoded as it is.
    """
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    width, height = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= min(width, height) <= max(width, height) <= min(MAX_SIDE, MAX_ASPECT * min(width, height)):
        raise UsageError(f"{text!r} is no image size", f"give {IMAGE_SIZE}, say: sides of 1 to {MAX_SIDE}")
    return width, height


def measure_images(runtime: Runtime, size: tuple[int, int], repeats: int) -> dict[str, dict[str, Any]]:
    """TTFT of one question about an image, for the base and for each adapter.

    Each repeat has an image that nobody has seen; the subject before asks about the same image right after it.

    Args:
        runtime: of a caption bundle.
        size: width and height of the images, pixels.
        repeats: how often each figure is taken.

    Returns:
        By name (``base`` too), in ms: ``image_ttft_ms`` of a new image with its parts ``image_encode_ms`` and
        ``image_prefill_ms``, ``seen_image_ttft_ms`` of one that another subject saw, and ``seen_image_encoded``, how
        many frames had to be encoded for that: none, or the cache of embeddings doesn't work.
    """
    names = [BASE, *(entry.name for entry in runtime.manifest.subjects)]
    chosen = random.Random(0)
    samples: dict[str, dict[str, list[float]]] = {name: {"ttft": [], "encode": [], "prefill": []} for name in names}
    seen: dict[str, list[float]] = {name: [] for name in names}
    encoded = dict.fromkeys(names, 0)
    for at, name in enumerate(names):
        before = names[at - 1]
        for number in range(repeats + 1):
            picture = _picture(size, chosen)
            new = runtime.generate(QUESTION, image=picture, adapter=name, max_tokens=1).timings
            known = runtime.loop.counts.images
            again = runtime.generate(QUESTION, image=picture, adapter=before, max_tokens=1).timings
            encoded[before] += runtime.loop.counts.images - known
            if number:  # the first one warms up
                samples[name]["ttft"].append(new.ttft_ms)
                samples[name]["encode"].append(new.encode_ms)
                samples[name]["prefill"].append(new.prefill_ms)
                seen[before].append(again.ttft_ms)
    return {
        name: {f"image_{part}_ms": figures(values) for part, values in samples[name].items()}
        | ({"seen_image_ttft_ms": figures(seen[name]), "seen_image_encoded": encoded[name]} if len(names) > 1 else {})
        for name in names
    }


def _picture(size: tuple[int, int], chosen: random.Random) -> Picture:
    """Random coloured cells, smooth between them: no two alike, the same on every machine."""
    from PIL import Image

    small = Image.frombytes("RGB", (_GRID, _GRID), chosen.randbytes(3 * _GRID * _GRID))
    return Picture(*size, small.resize(size, Image.Resampling.BICUBIC).tobytes())
