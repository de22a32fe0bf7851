"""Rendered images of machined parts, with a defect or without.

A scene is drawn at twice its size with Pillow and scaled down.  Light, colours, position, turn of the part, noise
and the look of every defect are drawn at random, so that no two images are alike.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

SIZE = 96  # pixels of a side
ZOOM = 2
PARTS = ("plate", "flange", "bracket", "gear")
CLEAN = "clean"
SCRATCH, DENT, STAIN, SCREW = "scratch", "dent", "stain", "missing screw"
KINDS = (CLEAN, SCRATCH, DENT, STAIN, SCREW)
PLACES = (
    "top left", "top", "top right",
    "left", "centre", "right",
    "bottom left", "bottom", "bottom right",
)  # fmt: skip
SIZES = ("small", "large")
# Where each part has screws, as numbers of PLACES.
SCREWS = {
    "plate": (0, 2, 4, 6, 8),
    "flange": (1, 3, 5, 7),
    "bracket": (0, 3, 6, 8),
    "gear": (1, 4, 7),
}
# Where each part has a surface that a defect can be on.
SURFACES = {
    "plate": tuple(range(9)),
    "flange": tuple(range(9)),
    "bracket": (0, 3, 6, 7, 8),
    "gear": tuple(range(9)),
}


@dataclass(frozen=True)
class Scene:
    """What an image shows.  ``place`` is None without a defect, ``size`` also for a missing screw."""

    part: str
    kind: str
    place: str | None
    size: str | None


def draw_scene(chosen: random.Random) -> Scene:
    """A scene: kinds are equally likely, so are the places that the part has for it."""
    part, kind = chosen.choice(PARTS), chosen.choice(KINDS)
    if kind == CLEAN:
        return Scene(part, kind, None, None)
    place = PLACES[chosen.choice(SCREWS[part] if kind == SCREW else SURFACES[part])]
    return Scene(part, kind, place, None if kind == SCREW else chosen.choice(SIZES))


def render(scene: Scene, chosen: random.Random, *, casting: bool = False) -> Image.Image:
    """The image of a scene, RGB, SIZE x SIZE; castings are darker and rougher than machined parts."""
    return render_with_mask(scene, chosen, casting=casting)[0]


def render_with_mask(scene: Scene, chosen: random.Random, *, casting: bool = False) -> tuple[Image.Image, Image.Image]:
    """An image as of :func:`render`, and where its defect is: L, SIZE x SIZE, 255 where all of a pixel is of it."""
    side = SIZE * ZOOM
    ground = tuple(chosen.randint(25, 75) for _ in range(3))
    image = Image.new("RGB", (side, side), ground)
    level = chosen.randint(105, 140) if casting else chosen.randint(125, 185)
    metal = tuple(level + chosen.randint(-10, 10) for _ in range(3))
    shape = _shape(scene.part, side)
    image.paste(Image.new("RGB", image.size, metal), mask=shape)
    image = ImageChops.multiply(image, _light(side, chosen))
    _outline(image, scene.part, shape)
    mask = Image.new("L", image.size, 0)
    for number in SCREWS[scene.part]:
        x, y = _centre(number, side)
        if scene.kind == SCREW and PLACES[number] == scene.place:
            sound = image.copy()
            _hole(image, x, y)
            mask = _changed(sound, image)
        else:
            _screw(image, x, y, chosen)
    if scene.size is not None and scene.place is not None:
        layer = _DEFECTS[scene.kind]
        x, y = _surface(scene.part, PLACES.index(scene.place), side)
        x, y = (value + chosen.uniform(-0.04, 0.04) * side for value in (x, y))
        defect = layer(image.copy(), x, y, 1.0 if scene.size == "large" else 0.5, chosen, metal)
        defect = Image.composite(defect, image, shape)
        mask, image = _changed(image, defect), defect
    shift = [chosen.randint(-ZOOM * 2, ZOOM * 2) for _ in range(2)]
    angle, translate = chosen.uniform(-4, 4), (shift[0], shift[1])
    turned = image.rotate(angle, Image.Resampling.BILINEAR, translate=translate, fillcolor=ground)
    small = turned.resize((SIZE, SIZE), Image.Resampling.BOX)
    where = mask.rotate(angle, translate=translate).resize((SIZE, SIZE), Image.Resampling.BOX)
    return _noisy(small, chosen.uniform(9, 13) if casting else chosen.uniform(4, 9), chosen), where


def _noisy(image: Image.Image, deviation: float, chosen: random.Random) -> Image.Image:
    """Grey noise; Pillow's own takes no seed."""
    noise = np.random.default_rng(chosen.getrandbits(32)).normal(0, deviation, (SIZE, SIZE, 1))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


def _changed(before: Image.Image, after: Image.Image) -> Image.Image:
    """Where two images differ by more than a shade: a mask."""
    return ImageChops.difference(before, after).convert("L").point(lambda value: 255 if value > 12 else 0)


def _centre(place: int, side: int) -> tuple[float, float]:
    row, column = divmod(place, 3)
    return side * (0.2 + 0.3 * column), side * (0.2 + 0.3 * row)


def _surface(part: str, place: int, side: int) -> tuple[float, float]:
    """The middle of a place's surface: the corners of round parts are nearer to the centre, else defects fall off."""
    x, y = _centre(place, side)
    if part in ("flange", "gear") and place in (0, 2, 6, 8):
        x, y = (side / 2 + 0.8 * (value - side / 2) for value in (x, y))
    return x, y


def _shape(part: str, side: int) -> Image.Image:
    """Where the part is: a mask."""
    mask = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(mask)
    low, high = 0.06 * side, 0.94 * side
    if part == "plate":
        draw.rounded_rectangle((low, low, high, high), 0.06 * side, fill=255)
    elif part == "flange":
        draw.ellipse((0.02 * side, 0.02 * side, 0.98 * side, 0.98 * side), fill=255)
    elif part == "bracket":
        draw.rounded_rectangle((low, low, 0.36 * side, high), 0.04 * side, fill=255)
        draw.rounded_rectangle((low, 0.64 * side, high, high), 0.04 * side, fill=255)
        draw.polygon(((0.3 * side, 0.3 * side), (0.7 * side, 0.7 * side), (0.3 * side, 0.7 * side)), fill=255)
    else:
        middle, outer, inner = side / 2, 0.49 * side, 0.42 * side
        teeth = 14
        corners = []
        for step in range(4 * teeth):
            radius = outer if step % 4 < 2 else inner
            angle = 2 * math.pi * step / (4 * teeth)
            corners.append((middle + radius * math.cos(angle), middle + radius * math.sin(angle)))
        draw.polygon(corners, fill=255)
    return mask


def _outline(image: Image.Image, part: str, shape: Image.Image) -> None:
    edge = shape.filter(ImageFilter.FIND_EDGES).filter(ImageFilter.MaxFilter(3))
    image.paste((35, 35, 38), mask=edge)
    draw, side = ImageDraw.Draw(image), image.width
    if part == "flange":
        draw.ellipse((0.36 * side, 0.36 * side, 0.64 * side, 0.64 * side), outline=(60, 60, 62), width=ZOOM)
    if part == "gear":
        draw.ellipse((0.12 * side, 0.12 * side, 0.88 * side, 0.88 * side), outline=(80, 80, 82), width=ZOOM)


def _light(side: int, chosen: random.Random) -> Image.Image:
    """A lamp from one side: brightness falls off across the image."""
    ramp = Image.linear_gradient("L").resize((side, side)).rotate(chosen.choice((0, 90, 180, 270)))
    low = chosen.randint(150, 215)
    return Image.merge("RGB", [ramp.point(lambda value: low + value * (255 - low) // 255)] * 3)


def _screw(image: Image.Image, x: float, y: float, chosen: random.Random) -> None:
    draw, radius = ImageDraw.Draw(image), 0.048 * image.width
    box = (x - radius, y - radius, x + radius, y + radius)
    draw.ellipse(box, fill=(205, 205, 210), outline=(70, 70, 72), width=1)
    angle = chosen.uniform(0, math.pi)
    dx, dy = 0.75 * radius * math.cos(angle), 0.75 * radius * math.sin(angle)
    draw.line((x - dx, y - dy, x + dx, y + dy), fill=(60, 60, 62), width=ZOOM)
    draw.line((x + dy, y - dx, x - dy, y + dx), fill=(60, 60, 62), width=ZOOM)


def _hole(image: Image.Image, x: float, y: float) -> None:
    draw, radius = ImageDraw.Draw(image), 0.044 * image.width
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(8, 8, 10), outline=(90, 90, 92), width=1)


def _scratch(
    image: Image.Image, x: float, y: float, scale: float, chosen: random.Random, _: tuple[int, ...]
) -> Image.Image:
    """A bright, slightly bent line with a dark rim."""
    draw, length, angle = ImageDraw.Draw(image), 0.27 * scale * image.width, chosen.uniform(0, math.pi)
    dx, dy = math.cos(angle) * length / 2, math.sin(angle) * length / 2
    bend = chosen.uniform(-0.15, 0.15)
    points = [(x - dx, y - dy), (x - dy * bend, y + dx * bend), (x + dx, y + dy)]
    draw.line([(px + 1, py + 1) for px, py in points], fill=(70, 70, 74), width=ZOOM)
    draw.line(points, fill=(245, 245, 250), width=ZOOM + 1)
    return image


def _dent(
    image: Image.Image, x: float, y: float, scale: float, chosen: random.Random, metal: tuple[int, ...]
) -> Image.Image:
    """A hollow: dark towards the light, bright away from it."""
    radius = 0.125 * scale * image.width
    angle = chosen.uniform(0, 2 * math.pi)
    ox, oy = 0.35 * radius * math.cos(angle), 0.35 * radius * math.sin(angle)
    for (cx, cy), colour in (
        ((x - ox, y - oy), tuple(max(value - 80, 0) for value in metal)),
        ((x + ox, y + oy), tuple(min(value + 50, 255) for value in metal)),
    ):
        mask = Image.new("L", image.size, 0)
        ImageDraw.Draw(mask).ellipse((cx - radius, cy - radius, cx + radius, cy + radius), fill=225)
        image.paste(colour, mask=mask.filter(ImageFilter.GaussianBlur(0.3 * radius)))
    return image


def _stain(
    image: Image.Image, x: float, y: float, scale: float, chosen: random.Random, _: tuple[int, ...]
) -> Image.Image:
    """A brown or blue blot of several drops that the metal shines through."""
    mask = Image.new("L", image.size, 0)
    draw, radius = ImageDraw.Draw(mask), 0.1 * scale * image.width
    for _drop in range(5):
        cx, cy = (value + chosen.uniform(-0.6, 0.6) * radius for value in (x, y))
        size = radius * chosen.uniform(0.5, 0.9)
        draw.ellipse((cx - size, cy - size, cx + size, cy + size), fill=chosen.randint(150, 200))
    colour = chosen.choice(((110, 62, 20), (125, 80, 25), (40, 60, 120)))
    image.paste(colour, mask=mask.filter(ImageFilter.GaussianBlur(2)))
    return image


_DEFECTS = {SCRATCH: _scratch, DENT: _dent, STAIN: _stain}
