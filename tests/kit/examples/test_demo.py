"""What the demo shows: never a wrong answer as an example, and always how many were right."""

from __future__ import annotations

import json
from pathlib import Path

from edgekit.examples.demo import shown_rows
from edgekit.examples.inspection import Finding, answer

RIGHT = answer(Finding("gear", "dent", "rib", "minor", 0.4))
WRONG = answer(Finding("gear", "dent", "rib", "major", 0.4))


def test_the_row_shown_is_the_first_that_the_device_has_right_as_a_whole(tmp_path: Path) -> None:
    rows = [{"reference": RIGHT, "device": device} for device in (WRONG, RIGHT.replace(",", ", "), "no JSON", RIGHT)]
    none = [{"reference": RIGHT, "device": WRONG}] * 2
    report = {"adapters": [{"adapter": "inspection", "rows": rows}, {"adapter": "monitoring", "rows": none}]}
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.json").write_text(json.dumps(report))
    assert shown_rows(tmp_path) == {"inspection": (1, 2), "monitoring": (0, 0)}
