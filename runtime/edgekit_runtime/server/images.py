"""Images of requests: URLs to pixels, in the front, so that no file from outside is opened beside the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.images import (
    DATA_URL,
    MAX_FILE_BYTES,
    MAX_IMAGES,
    Picture,
    read_base64,
    read_data_url,
    read_picture,
)
from edgekit_runtime.server.bodies import Share
from edgekit_runtime.server.threads import beside

MAX_BODY_BYTES = MAX_IMAGES * MAX_FILE_BYTES * 4 // 3  # of images in base64, all of them of the largest size
FILE_URL = "file://"
Url = str | bytes | memoryview


class ImageReader:
    """Reads one image after another, in a thread, so that decoding takes the memory of one."""

    def __init__(self, *, task: str, files: Path | None) -> None:
        """Read images for bundles of ``task``.

        ``files`` is the folder that file: URLs may point into; None for none.
        """
        self._captions = task == "caption"
        self._files = None if files is None else files.resolve()
        self._turn = asyncio.Lock()

    @property
    def max_body_bytes(self) -> int:
        """Of a request, for images alone."""
        return MAX_BODY_BYTES if self._captions else 0

    async def read(self, urls: Sequence[Url], share: Share, body: int, *, bare: bool = False) -> list[dict[str, Any]]:
        """Pictures in the form that goes to the worker.

        Args:
            urls: of the images; data: URLs may be bytes, or the bytes of their base64 alone.
            share: holds their pixels.
            body: bytes that it holds meanwhile, of what the URLs are from.
            bare: they are base64 alone.

        Raises:
            InputError: a text bundle, a URL of another kind, or an image that can't be used.
            TooLarge, NoRoom: there is no memory for the pixels.
        """
        if not self._captions:
            raise InputError("this is a text bundle", "leave images out, or serve a caption bundle")
        async with self._turn:
            pictures: list[Picture] = []
            for number, url in enumerate(urls, 1):
                pictures.append(await beside(read_base64 if bare else self._read, url, f"image {number}"))
                share.hold(body + sum(len(each.rgb) for each in pictures))
        return [{"width": each.width, "height": each.height, "rgb": each.rgb} for each in pictures]

    def _read(self, url: Url, name: str) -> Picture:
        if not isinstance(url, str) and bytes(url[: len(DATA_URL)]) != DATA_URL:
            return read_base64(url, name)
        if not isinstance(url, str) or not url.startswith(FILE_URL):
            return read_data_url(url, name)
        if self._files is None:
            raise InputError(f"{name} is a file: URL, which is switched off", "send a data: URL, or see --image-files")
        try:
            path = Path(unquote(urlsplit(url).path)).resolve()
        except (OSError, ValueError, RuntimeError):  # a bracket or a NUL, a loop of links
            raise InputError(f"{name} is no file: URL", "send a data: URL, or mend its path") from None
        if not path.is_relative_to(self._files):
            raise InputError(f"{name} is outside of the folder that is allowed", "send a data: URL")
        return read_picture(path, name)
