"""What the demo shows: never a wrong answer as an example, and always how many were right."""

from __future__ import annotations

import json
from pathlib import Path

from edgekit.examples.demo import _left, _project, shown_rows
from edgekit.examples.inspection import Finding, answer
from edgekit.training.checkpoints import RECIPE_FILE, work_folder

RIGHT = answer(Finding("gear", "dent", "rib", "minor", 0.4))
WRONG = answer(Finding("gear", "dent", "rib", "major", 0.4))


def test_the_row_shown_is_the_first_that_the_device_has_right_as_a_whole(tmp_path: Path) -> None:
    rows = [{"reference": RIGHT, "device": device} for device in (WRONG, RIGHT.replace(",", ", "), "no JSON", RIGHT)]
    none = [{"reference": RIGHT, "device": WRONG}] * 2
    report = {"adapters": [{"adapter": "inspection", "rows": rows}, {"adapter": "monitoring", "rows": none}]}
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.json").write_text(json.dumps(report))
    assert shown_rows(tmp_path) == {"inspection": (1, 2), "monitoring": (0, 0)}


def test_a_demo_that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    project = _project(tmp_path / "demo")
    assert _left(project) == {"inspection": False, "monitoring": False}
    stopped = work_folder(project, "monitoring")
    (stopped / "checkpoint-5").mkdir(parents=True)
    for path in (stopped / RECIPE_FILE, stopped / "checkpoint-5" / "trainer_state.json"):
        path.write_text("{}")
    trained = project.folder / "adapters" / "inspection"
    trained.mkdir(parents=True)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (trained / name).write_text("{}")
    assert _left(project) == {"monitoring": True}
