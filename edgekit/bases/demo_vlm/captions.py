"""What is said of a scene: the demo base's captions, and reading kind and place out of them again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.bases.demo_vlm.parts import CLEAN, KINDS, PARTS, PLACES, Scene

QUESTION = "Describe the image."


@dataclass(frozen=True)
class Share:
    """In %: right answers, and those of whoever always gives the commonest one."""

    right: float
    chance: float


def caption(scene: Scene) -> str:
    """The reference caption of a scene."""
    if scene.kind == CLEAN:
        return f"A {scene.part} without any defect."
    size = f"{scene.size} " if scene.size else ""
    return f"A {scene.part} with a {size}{scene.kind} at the {scene.place}."


def read_caption(text: str) -> dict[str, str | None]:
    """Part, kind and place that a caption names; None for what it doesn't."""
    kind = CLEAN if "without" in text else next((each for each in KINDS if each in text), None)
    # Longer names first: "top left" is not "top".
    place = next((each for each in sorted(PLACES, key=len, reverse=True) if each in text), None)
    return {"part": next((each for each in PARTS if each in text), None), "kind": kind, "place": place}


def right_shares(scenes: Sequence[Scene], texts: Sequence[str]) -> dict[str, Share]:
    """How often captions name part, kind and place right; a part without a defect has no place, and isn't counted."""
    shares = {}
    for name in ("part", "kind", "place"):
        pairs = [(getattr(scene, name), read_caption(text)[name]) for scene, text in zip(scenes, texts, strict=True)]
        pairs = [pair for pair in pairs if pair[0] is not None]
        right = sum(wanted == found for wanted, found in pairs)
        commonest = Counter(wanted for wanted, _ in pairs).most_common(1)[0][1]
        shares[name] = Share(100 * right / len(pairs), 100 * commonest / len(pairs))
    return shares
