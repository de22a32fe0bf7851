"""docs/data.md as it is written, with a teacher on loopback that knows the example's rules."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from edgekit.cli.program import main
from edgekit.data import load_rows
from edgekit.examples.init import init_project
from generated_rows import example_rows
from loopback_teacher import Said, teacher_saying

PAGE = Path(__file__).parents[2] / "docs" / "data.md"


@pytest.mark.model
def test_the_commands_of_the_page_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo_base: object, capsys: pytest.CaptureFixture[str]
) -> None:
    init_project(tmp_path / "line-3")
    monkeypatch.chdir(tmp_path / "line-3")
    for path in Path("data").glob("*.jsonl"):  # fewer rows, for the sake of time
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:120]))
    Path("guide.txt").write_text("Judge the finding.")
    Path("prompts.jsonl").write_text('{"prompt": "bracket, scratch 0.2 mm, rib"}\n{"prompt": "gear, crack"}\n')
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    rows = example_rows(200, 1)

    answer = load_rows(Path("data/inspection.train.jsonl"))[0].answer

    def script(number: int, body: dict[str, Any]) -> Said:
        wanted = body["response_format"]["json_schema"]["schema"]["properties"]
        return rows(number, body) if "completion" in wanted else Said(answer)

    with teacher_saying(script) as teacher:
        for line in "".join(blocks).splitlines():
            words = shlex.split(line.replace("http://127.0.0.1:8000/v1", teacher.url))
            assert main(words[1:]) == 0, line
    said = capsys.readouterr().out
    assert "inspection: 120 rows to train on, 120 to evaluate on" in said
    assert "more.jsonl: 40 rows, 40 of them new" in said
    assert len(load_rows(Path("split/inspection.train.eval.jsonl"))) == 12
    assert len(load_rows(Path("labelled.jsonl"))) == 2
    lines = Path("more.jsonl").read_text().splitlines()
    assert len({json.dumps(json.loads(line)["provenance"]["variation"]) for line in lines}) == 4
    assert Path("check.html").read_text().startswith("<!doctype html>")
