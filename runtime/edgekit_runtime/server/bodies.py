"""Bodies of requests: bounded each and all together, and read beside the event loop.

A request may bring 170 MiB of images in base64.  Python reads JSON without letting any other thread run, so a thread
alone would help nobody: the images are cut out first, by their quotes, and what is left is short.
"""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request

from edgekit_runtime.errors import InputError, TargetError
from edgekit_runtime.prompts.bounds import check_depth
from edgekit_runtime.server.threads import beside

MAX_BODY_BYTES = 1024 * 1024  # images beside
BODY_SECONDS = 30.0
MIB = 1024 * 1024
LEAST_ROOM, MOST_ROOM = 64 * MIB, 320 * MIB  # of all requests together; the largest one takes most of it
SHARE_OF_MEMORY = 4
UNCOUNTED = 64 * 1024  # of each request: the number of connections bounds these, and short requests always fit
QUICK = 64 * 1024  # a shorter body is read in the event loop: a thread costs more
LEAST_IMAGE = 4096  # a shorter one stays where it is
READING_AT_ONCE = 2
_LONGEST_BEGINNING = 64  # of what stands before an image, and the first signs of one
_COMMA_AND_NAME = 1 + 32
_BESIDE = 256  # bytes of an object before a text, and behind

T = TypeVar("T")
Images = dict[str, "memoryview | bytes"]  # what was cut out, by what stands in its place


@dataclass(frozen=True)
class ImagePlaces:
    """Where the images of a protocol stand in the JSON of its requests: each one is a text.

    Attributes:
        first: what stands before one, its opening quote included.
        following: in lists, what stands between the end of one and the next one, both quotes included.
        beside: what has to stand in the same object, where ``first`` alone does not say that it is an image.
        bare: the text is base64 alone, and no data: URL.
    """

    first: re.Pattern[bytes]
    following: re.Pattern[bytes] | None = None
    beside: re.Pattern[bytes] | None = None
    bare: bool = False


URLS = ImagePlaces(re.compile(rb'"(?:image_)?url"\s{0,16}:\s{0,16}"(?=data:)'))


class TooLarge(InputError):
    """A body that is never taken."""


class TooLate(InputError):
    """A body that did not come in time."""


class NoRoom(TargetError):
    """Others hold the memory that a request needs; the same one may succeed later."""


class Room:
    """Memory for what requests bring: their bodies, then the pixels of their images, until they are answered."""

    def __init__(self, most: int | None = None) -> None:
        """Of ``most`` bytes; as many as this machine can spare when None."""
        self.most = _spare() if most is None else most
        self.held = 0

    @contextmanager
    def share(self) -> Iterator[Share]:
        """One request's part of it."""
        share = Share(self)
        try:
            yield share
        finally:
            share.hold(0)


class Share:
    """What one request holds."""

    def __init__(self, room: Room) -> None:
        self._room, self._counted = room, 0

    def hold(self, size: int) -> None:
        """Hold so many bytes from now on.

        Raises:
            TooLarge: they would not fit if nobody else had any.
            NoRoom: they don't fit now.
        """
        counted = max(0, size - UNCOUNTED)
        if counted > self._counted:
            if counted > self._room.most:
                raise TooLarge(
                    f"the request takes more than the {self._room.most // MIB} MiB that there are for all",
                    "send fewer or smaller images",
                )
            if self._room.held - self._counted + counted > self._room.most:
                raise NoRoom("other requests hold the memory for images now", "send it again in a moment")
        self._room.held += counted - self._counted
        self._counted = counted


async def read_body(request: Request, share: Share, for_images: int = 0) -> bytearray:
    """The body; a length that lies is noticed while reading.

    Args:
        request: whose body has not been read.
        share: holds it.
        for_images: bytes that it may have besides.

    Raises:
        TooLarge, TooLate, NoRoom: it is not taken.
    """
    body, most = bytearray(), MAX_BODY_BYTES + for_images
    if int(request.headers.get("content-length") or 0) > most:
        raise _too_long(most)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                if len(body) + len(part) > most:
                    raise _too_long(most)
                share.hold(len(body) + len(part))
                body += part
    except TimeoutError:
        raise TooLate(f"the body was not there after {BODY_SECONDS:g} s", "send it at once") from None
    return body


class Reading:
    """Reads bodies beside the event loop, a few at once."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(READING_AT_ONCE)

    async def read(self, read: Callable[[bytearray], T], body: bytearray) -> T:
        """What ``read`` makes of a body."""
        if len(body) <= QUICK:
            return read(body)
        async with self._turns:
            return await beside(read, body)


def cut_images(body: bytearray, places: ImagePlaces = URLS) -> tuple[bytes, Images]:
    """Take the images out of a JSON text, unread, and put short names in their places.

    Returns:
        The text, of at most :data:`MAX_BODY_BYTES` but for the names, and the images by name.

    Raises:
        TooLarge: there is more text.
        InputError: an image that is no base64.
    """
    text, images, at = bytearray(), Images(), 0
    next_one: re.Pattern[bytes] | None = None
    while True:
        left = MAX_BODY_BYTES - len(text)
        found = next_one.match(body, at) if next_one is not None else None
        found = found or places.first.search(body, at, at + left + _LONGEST_BEGINNING)
        if found is None:
            break
        begin = found.end()
        end = body.find(b'"', begin)
        if end < 0:
            break
        text += memoryview(body)[at:begin]
        if places.beside is not None and not _stands(places.beside, body, found.start(), end):
            end = begin  # some other text, of any length
        elif end - begin < LEAST_IMAGE:
            text += memoryview(body)[begin:end]
        else:
            name = uuid.uuid4().hex  # that no client can know
            images[name] = _image(body, begin, end)
            text += name.encode()
        at, next_one = end, places.following
    if len(body) - at > left:
        raise TooLarge(f"the body is longer than {MAX_BODY_BYTES} bytes without its images", "send less")
    text += memoryview(body)[at:]
    return bytes(text), images


def placed(urls: list[str], images: Images) -> list[str | memoryview | bytes]:
    """The images of a request, with what was cut out of it in the places of the names.

    Args:
        urls: what stands there; a name may stand behind the comma of a data: URL, whose base64 was cut out alone.
        images: what was cut out.

    Raises:
        InputError: something was cut out that is none of them.
    """
    left = dict(images)
    found = [left.pop(url[-_COMMA_AND_NAME:].rpartition(",")[2], url) for url in urls]
    if left:
        raise InputError("an image stands where none is looked at", "send it as an image of a message")
    return found


def _stands(sign: re.Pattern[bytes], body: bytearray, start: int, end: int) -> bool:
    """Whether it stands in the object of the text that goes on to ``end``, and whose key begins at ``start``."""
    before = bytes(memoryview(body)[max(start - _BESIDE, 0) : start]).rpartition(b"{")[2]
    behind = bytes(memoryview(body)[end : end + _BESIDE]).partition(b"}")[0]
    return any(map(sign.search, (before, behind)))


def _image(body: bytearray, begin: int, end: int) -> memoryview | bytes:
    if body.find(b"\\", begin, end) < 0:
        return memoryview(body)[begin:end]
    image = bytes(memoryview(body)[begin:end]).replace(b"\\/", b"/")  # as some write JSON
    if b"\\" in image:
        raise InputError("an image is not base64", "encode the whole file, without line breaks")
    return image


def _too_long(most: int) -> TooLarge:
    return TooLarge(f"the body is longer than {most} bytes", "send less")


def _spare() -> int:
    import psutil

    return int(min(MOST_ROOM, max(LEAST_ROOM, psutil.virtual_memory().total // SHARE_OF_MEMORY)))


def read_object(body: bytes | bytearray) -> dict[str, Any]:
    """A body's JSON object.

    Raises:
        InputError: it is none.
    """
    try:
        document = json.loads(body)
        json.dumps(document, ensure_ascii=False).encode()  # half a character is JSON, but no text
    except (ValueError, RecursionError) as error:
        raise InputError(f"the body is not JSON ({error})", "send one JSON object") from None
    if not isinstance(document, dict):
        raise InputError("the body is not a JSON object", "send one JSON object")
    check_depth(document)
    return document
