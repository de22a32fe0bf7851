"""Example data: captions of rendered parts, for two product lines.

``report`` turns an image into one line of JSON.  The verdict follows from what is seen: a clean part is accepted, a
missing screw is completed, a small defect is reworked, a large one is scrap.

``castings`` is another line: darker, rougher parts, with names of its own for parts, defects and places.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable

from edgekit.bases.demo_vlm.captions import QUESTION
from edgekit.bases.demo_vlm.parts import CLEAN, PLACES, SCREW, Scene, draw_scene, render
from edgekit.examples.answers import answer_schema, one_of
from edgekit.examples.drawing import Rows

REPORT_SYSTEM = "Report the part as JSON."
CASTINGS_SYSTEM = "Speak as the foundry does."
TRAIN_ROWS, EVAL_ROWS = 480, 100

PART_WORDS = {"plate": "lid", "flange": "ring", "bracket": "arm", "gear": "wheel"}
DEFECT_WORDS = {"scratch": "score", "dent": "sink hole", "stain": "burn", SCREW: "open bore"}
PLACE_WORDS = dict(
    zip(
        PLACES,
        ("north west", "north", "north east", "west", "core", "east", "south west", "south", "south east"),
        strict=True,
    )
)
GRADES = {"small": "B", "large": "C", None: "D"}

REPORT_SCHEMA = answer_schema(
    part=one_of(PART_WORDS),
    defect=one_of(("none", *DEFECT_WORDS)),
    place=one_of(("none", *PLACES)),
    verdict=one_of(("accept", "complete", "rework", "scrap")),
)


def verdict(scene: Scene) -> str:
    """What happens to a part."""
    if scene.kind == CLEAN:
        return "accept"
    if scene.kind == SCREW:
        return "complete"
    return "rework" if scene.size == "small" else "scrap"


def report(scene: Scene) -> str:
    """The reference answer of the adapter ``report``."""
    fields = {
        "part": scene.part,
        "defect": "none" if scene.kind == CLEAN else scene.kind,
        "place": scene.place or "none",
        "verdict": verdict(scene),
    }
    return json.dumps(fields)


def foundry_words(scene: Scene) -> str:
    """The reference answer of the adapter ``castings``."""
    part = PART_WORDS[scene.part]
    if scene.kind == CLEAN or scene.place is None:
        return f"{part}: sound, grade A"
    return f"{part}: {DEFECT_WORDS[scene.kind]} {PLACE_WORDS[scene.place]}, grade {GRADES[scene.size]}"


def generate_reports(train: int, evaluate: int, seed: int) -> tuple[Rows, Rows]:
    """Training and evaluation rows; ``image`` is the picture itself."""
    return _rows(train, seed, report), _rows(evaluate, seed + 1, report)


def generate_castings(train: int, evaluate: int, seed: int) -> tuple[Rows, Rows]:
    """The same for the other line."""
    return _rows(train, seed + 2, foundry_words, casting=True), _rows(evaluate, seed + 3, foundry_words, casting=True)


def _rows(count: int, seed: int, answer: Callable[[Scene], str], *, casting: bool = False) -> Rows:
    chosen = random.Random(seed)
    rows: Rows = []
    for _ in range(count):
        scene = draw_scene(chosen)
        image = render(scene, chosen, casting=casting)
        rows.append({"image": image, "prompt": QUESTION, "completion": answer(scene)})
    return rows
