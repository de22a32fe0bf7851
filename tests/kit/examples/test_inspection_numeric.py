"""The harder inspection example follows its documented rules, checked by rules written anew here."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pytest

from edgekit.examples import inspection_numeric


def _pairs(rows: list[dict[str, object]]) -> list[tuple[str, dict[str, Any]]]:
    messages: Any = [row["messages"] for row in rows]
    return [(each[0]["content"], json.loads(each[1]["content"])) for each in messages]


TRAIN, EVALUATION = map(_pairs, inspection_numeric.generate(800, 200, 7))
ROWS = TRAIN + EVALUATION


def test_every_verdict_follows_from_the_sizes_of_its_finding() -> None:
    factor = {"cover": 2, "panel": 2} | dict.fromkeys(("flange", "shaft", "valve body", "gear", "bushing"), 0.5)
    base = {"scratch": 0.4, "burr": 0.2, "stain": 2.0, "dent": 0.6, "pore": 0.4, "chip": 0.2}
    for text, answer in ROWS:
        found = re.search(r"([\d.]+) mm", answer["report"])
        assert found
        size = float(found[1])
        assert f"{size:.2f} mm" in text or f"{round(size * 1000)} µm" in text
        if answer["defect"] == "crack":
            assert (answer["severity"], answer["verdict"]) == ("critical", "scrap")
            continue
        limit = base[answer["defect"]] * factor.get(answer["part"], 1)
        if any(place in text for place in ("sealing face", "bore", "thread", "bearing seat")):
            limit /= 2
        ratio = round(size / limit, 6)
        severity = "none" if ratio <= 1 else "minor" if ratio <= 1.5 else "major" if ratio <= 3 else "critical"
        reworked = answer["defect"] in ("scratch", "burr", "stain") and ratio <= 2
        verdict = "accept" if ratio <= 1 else "rework" if reworked else "scrap"
        assert (answer["severity"], answer["verdict"]) == (severity, verdict), (text, answer)


@pytest.mark.parametrize(
    ("finding", "expected"),
    [
        (("bracket", "scratch", "rib", 0.40), ("none", "accept")),
        (("bracket", "scratch", "rib", 0.41), ("minor", "rework")),
        (("bracket", "scratch", "rib", 0.60), ("minor", "rework")),
        (("bracket", "scratch", "rib", 0.80), ("major", "rework")),
        (("bracket", "scratch", "rib", 0.81), ("major", "scrap")),
        (("bracket", "scratch", "rib", 1.21), ("critical", "scrap")),
        (("bracket", "scratch", "bore", 0.20), ("none", "accept")),
        (("bracket", "scratch", "bore", 0.21), ("minor", "rework")),
        (("flange", "dent", "bore", 0.16), ("minor", "scrap")),
        (("cover", "crack", "rib", 0.01), ("critical", "scrap")),
    ],
)
def test_the_bounds_of_the_inspection_rules(finding: tuple[str, str, str, float], expected: tuple[str, str]) -> None:
    assert inspection_numeric.judge(inspection_numeric.Finding(*finding)) == expected


def test_no_question_stands_twice_and_no_verdict_dominates() -> None:
    assert len({text for text, _ in ROWS}) == len(ROWS) == 1000
    verdicts = Counter(answer["verdict"] for _, answer in ROWS)
    assert max(verdicts.values()) <= 500
    assert min(verdicts.values()) >= 100


def test_evaluation_uses_combinations_that_training_lacks() -> None:
    def combination(text: str, answer: dict[str, Any]) -> tuple[str, str, str]:
        place = next(each for each in inspection_numeric.LOCATIONS if re.search(rf"\b{each}\b", text))
        return answer["part"], answer["defect"], place

    assert not {combination(*pair) for pair in TRAIN} & {combination(*pair) for pair in EVALUATION}
