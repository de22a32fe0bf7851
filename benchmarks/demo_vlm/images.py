"""Rendered scenes, and what training has to know of them."""

from __future__ import annotations

import random
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from edgekit.bases.demo_vlm.build import PATCH
from edgekit.bases.demo_vlm.parts import CLEAN, KINDS, PARTS, PLACES, SCREW, SIZES, Scene, draw_scene, render_with_mask

# What a ninth of an image can show: nothing, or a defect of a kind and a size.
FINDINGS = (
    (CLEAN, None),
    *((kind, size) for kind in KINDS if kind not in (CLEAN, SCREW) for size in SIZES),
    (SCREW, None),
)
NOWHERE = len(PLACES)
SHARE_OF_PATCH = 0.02  # of a patch's pixels that are of the defect, at least, so that it is said to show it
SHARE_OF_MOST = 0.5  # and of what the patch with most of it has


class Images:
    """Scenes drawn from a seed.

    Attributes:
        scenes: what they show.
        pixels: uint8 [n, height, width, 3].
        part: [n], numbers of PARTS.
        findings: [n, 9], numbers of FINDINGS for each ninth.
        places: [n, 9], its own number where a ninth has a defect, else NOWHERE.
        patches: [n, rows, columns] of the encoder's patches, numbers of KINDS.
    """

    def __init__(self, count: int, seed: int) -> None:
        seeds = [f"{seed} {number}" for number in range(count)]
        with ProcessPoolExecutor(2) as pool:
            drawn = list(pool.map(_draw, seeds, chunksize=100))
        self.scenes = [scene for scene, _, _ in drawn]
        self.pixels = torch.from_numpy(np.stack([pixels for _, pixels, _ in drawn]))
        self.part = torch.tensor([PARTS.index(scene.part) for scene in self.scenes])
        place = torch.tensor([NOWHERE if scene.place is None else PLACES.index(scene.place) for scene in self.scenes])
        finding = torch.tensor([FINDINGS.index((scene.kind, scene.size)) for scene in self.scenes])
        here = torch.arange(NOWHERE) == place[:, None]
        self.findings = finding[:, None] * here
        self.places = torch.where(here, place[:, None], NOWHERE)
        masks = torch.from_numpy(np.stack([mask for _, _, mask in drawn]))
        covered = F.avg_pool2d(masks[:, None].float() / 255, PATCH)[:, 0]
        most = covered.flatten(1).max(1).values[:, None, None]
        kind = torch.tensor([KINDS.index(scene.kind) for scene in self.scenes])
        shown = (covered > SHARE_OF_MOST * most) & (covered > SHARE_OF_PATCH)
        self.patches = shown * kind[:, None, None]

    def values(self, which: Any = slice(None)) -> Tensor:
        """Normalised pixels [n, 3, height, width], -1 to 1."""
        return (self.pixels[which].permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5


def _draw(seed: str) -> tuple[Scene, NDArray[np.uint8], NDArray[np.uint8]]:
    chosen = random.Random(seed)
    scene = draw_scene(chosen)
    image, mask = render_with_mask(scene, chosen)
    return scene, np.asarray(image), np.asarray(mask)


def augmented(values: Tensor) -> Tensor:
    """Other light, colours, noise and position."""
    light = 0.8 + 0.4 * torch.rand(len(values), 1, 1, 1)
    tint = 0.1 * torch.randn(len(values), 3, 1, 1)
    noise = 0.12 * torch.rand(len(values), 1, 1, 1) * torch.randn_like(values)
    shift = tuple(torch.randint(-2, 3, (2,)).tolist())
    return torch.roll(values * light + tint + noise, shift, (2, 3)).clamp(-1, 1)
