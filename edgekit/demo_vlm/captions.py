"""What is said of a scene: the demo base's captions, and reading kind and place out of them again."""

from __future__ import annotations

from edgekit.demo_vlm.parts import CLEAN, KINDS, PARTS, PLACES, Scene

QUESTION = "Describe the image."


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
