"""The example data follow their documented rules, checked by rules written anew here."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from edgekit.data import load_rows
from edgekit.examples import inspection, monitoring
from edgekit.examples.init import TEMPLATES, init_project
from edgekit.project import load_project
from edgekit_runtime.errors import InputError, UsageError

ROWS = {"inspection": inspection.generate(800, 200, 7), "monitoring": monitoring.generate(800, 200, 7)}


def pairs(rows: list[dict[str, object]]) -> list[tuple[str, dict[str, Any]]]:
    messages: Any = [row["messages"] for row in rows]
    return [(each[0]["content"], json.loads(each[1]["content"])) for each in messages]


def everything(name: str) -> list[tuple[str, dict[str, Any]]]:
    train, evaluation = ROWS[name]
    return pairs(train) + pairs(evaluation)


def test_every_verdict_follows_from_the_words_of_its_finding() -> None:
    factor = {"cover": 2, "panel": 2} | dict.fromkeys(("flange", "shaft", "valve body", "gear", "bushing"), 0.5)
    base = {"scratch": 0.4, "burr": 0.2, "stain": 2.0, "dent": 0.6, "pore": 0.4, "chip": 0.2}
    for text, answer in everything("inspection"):
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
    assert inspection.judge(inspection.Finding(*finding)) == expected


@pytest.mark.parametrize(
    ("loads", "trend", "expected"),
    [
        ((0.80, 0.1), "steady", ("ok", "none")),
        ((0.81, 0.1), "steady", ("watch", "a")),
        ((1.00, 0.1), "falling", ("watch", "a")),
        ((0.1, 1.01), "steady", ("warning", "b")),
        ((1.25, 0.1), "steady", ("warning", "a")),
        ((1.26, 0.1), "steady", ("critical", "a")),
        ((1.05, 1.02), "steady", ("critical", "a")),
        ((0.5, 0.6), "rising", ("watch", "b")),
        ((0.9, 0.6), "rising", ("warning", "a")),
        ((1.1, 0.6), "rising", ("warning", "a")),
    ],
)
def test_the_bounds_of_the_monitoring_rules(loads: tuple[float, float], trend: str, expected: tuple[str, str]) -> None:
    readings = tuple(monitoring.Reading(name, load, 1.0) for name, load in zip("ab", loads, strict=True))
    assert monitoring.judge(readings, trend) == expected


@pytest.mark.parametrize("name", ROWS)
def test_no_question_stands_twice_and_no_class_dominates(name: str) -> None:
    rows = everything(name)
    assert len({text for text, _ in rows}) == len(rows) == 1000
    classes = Counter(answer["verdict" if name == "inspection" else "alert"] for _, answer in rows)
    assert max(classes.values()) <= 500
    assert min(classes.values()) >= 100


def test_evaluation_uses_combinations_that_training_lacks() -> None:
    def combination(text: str, answer: dict[str, Any]) -> tuple[str, str, str]:
        place = next(each for each in inspection.LOCATIONS if re.search(rf"\b{each}\b", text))
        return answer["part"], answer["defect"], place

    train, evaluation = ({combination(*pair) for pair in pairs(rows)} for rows in ROWS["inspection"])
    assert not train & evaluation

    def readings(text: str) -> frozenset[str]:
        return frozenset(name for name in monitoring.READINGS if name in text)

    train_, evaluation_ = (pairs(rows) for rows in ROWS["monitoring"])
    assert {readings(text) for text, _ in evaluation_} <= {readings(text) for text, _ in train_}


def test_the_same_seed_gives_the_same_rows_and_another_others() -> None:
    assert inspection.generate(50, 20, 3) == inspection.generate(50, 20, 3)
    assert inspection.generate(50, 20, 3) != inspection.generate(50, 20, 4)


@pytest.mark.parametrize("template", TEMPLATES)
def test_init_writes_a_project_whose_files_load(template: str, tmp_path: Path) -> None:
    project = load_project(init_project(tmp_path / "My Line 3", template))
    assert project.project == "my-line-3"
    for name in project.adapters:
        files = project.data_for(name)
        assert load_rows(files.train)
        assert load_rows(files.eval)


def test_init_leaves_a_folder_with_other_content_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    with pytest.raises(InputError, match="exists with other content"):
        init_project(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_captions_come_with_their_images(tmp_path: Path) -> None:
    project = load_project(init_project(tmp_path / "camera", "caption").parent)
    assert project.task == "caption"
    rows = load_rows(project.data_for("report").eval)
    pixels = {row.images[0].read_bytes() for row in rows}
    assert len(pixels) == len(rows)
    for row in rows:
        fields = json.loads(row.answer)
        assert (fields["defect"] == "none") == (fields["place"] == "none") == (fields["verdict"] == "accept")


def test_unknown_templates_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="use one of inspection"):
        init_project(tmp_path / "x", "poetry")
