"""Rows from a teacher that is slow, rude and repeats itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit.cli.program import main
from edgekit.curation.asking import Budget
from edgekit.curation.generate import Request, generate
from edgekit.curation.row_file import open_rows
from edgekit.curation.teacher import Teacher, TeacherOptions
from edgekit.data import load_rows
from edgekit_runtime.errors import InputError, TargetError, UsageError
from loopback_teacher import AGAIN, Said, teacher_saying
from tests.kit.curation.rows import pair, write
from tests.kit.curation.test_split import different

SCHEMA = {"type": "object", "properties": {"verdict": {"enum": ["accept", "scrap"]}}, "required": ["verdict"]}
SEEDS = [pair(different(n), {"verdict": "scrap"}) for n in range(6)]
KEY = "sk-secret-4711"


def row(number: int, verdict: str = "accept") -> str:
    return json.dumps({"prompt": different(100 + number), "completion": {"verdict": verdict}})


class Place:
    """A folder with seeds, a schema, and the command."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        self.seeds = write(folder / "seeds.jsonl", SEEDS)
        self.schema = folder / "schema.json"
        self.schema.write_text(json.dumps(SCHEMA))
        self.output = folder / "more.jsonl"
        self.refused = folder / "more.refused.jsonl"

    def words(self, url: str, *more: object) -> list[str]:
        given = ["--output", self.output, "--endpoint", url, "--model", "big", "--schema", self.schema, *more]
        return ["data", "generate", str(self.seeds), *map(str, given)]

    def run(self, url: str, *more: object, code: int = 0) -> Any:
        assert main([*self.words(url, *more), "--json"]) == code
        said = self._capsys.readouterr()
        return json.loads(said.out) if code == 0 else said.err

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.read_text().splitlines()]

    def reasons(self) -> Counter[str]:
        return Counter(json.loads(line)["refused"].partition(":")[0] for line in self.refused.read_text().splitlines())


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return Place(tmp_path, capsys)


def test_rows_come_with_where_they_are_from_and_training_reads_them(place: Place) -> None:
    with teacher_saying(lambda number, _: Said(row(number))) as teacher:
        done = place.run(teacher.url, "--rows", 8, "--vary", "tone: terse, wordy", "--vary", "shift: early, late")
    assert (done["rows"], done["new"], done["stopped"], done["refused"], done["tokens"]) == (8, 8, "rows", {}, 240)
    assert len(teacher.asked) == 8
    rows = place.rows()
    assert Counter(json.dumps(each["provenance"]["variation"], sort_keys=True) for each in rows) == {
        json.dumps({"shift": shift, "tone": tone}): 2 for tone in ("terse", "wordy") for shift in ("early", "late")
    }
    origin = rows[0]["provenance"]
    assert {"by", "teacher", "endpoint", "prompt", "time", "tokens", "seeds", "variation", "number"} == set(origin)
    assert origin["seeds"][0].startswith(f"{place.seeds}:")
    assert (origin["teacher"], origin["endpoint"]) == ("big", teacher.url)
    read = load_rows(place.output)
    assert [each.answer for each in read] == ['{"verdict": "accept"}'] * 8
    assert {each.messages[0]["content"] for each in read} == {different(100 + n) for n in range(8)}
    assert not place.refused.exists()


def test_the_teacher_is_told_task_seeds_schema_and_variation(place: Place) -> None:
    guide = place.folder / "guide.txt"
    guide.write_text("Judge scratches.\n")
    with teacher_saying(lambda number, _: Said(row(number))) as teacher:
        place.run(teacher.url, "--rows", 1, "--vary", "tone: terse", "--about", f"@{guide}", "--temperature", 0.7)
    (asked,) = teacher.asked
    assert asked["response_format"]["json_schema"]["schema"]["properties"]["completion"] == SCHEMA
    assert (asked["model"], asked["temperature"]) == ("big", 0.7)
    told = asked["messages"][-1]["content"]
    assert all(text in told for text in ("Judge scratches.", "tone: terse", '"accept"'))
    assert sum(seed["prompt"] in told for seed in SEEDS) == 4
    assert teacher.headers[0]["authorization"] == f"Bearer {KEY}"


def test_what_is_no_good_is_refused_with_its_reason_and_asked_for_again(place: Place) -> None:
    said = [
        Said(json.dumps(SEEDS[0])),
        Said(row(0)),
        Said(row(0)),
        Said(json.dumps({"prompt": f"{different(100).upper()}!", "completion": {"verdict": "accept"}})),
        Said(row(1, "perhaps")),
        Said("{"),
        Said('"a text"'),
        Said(json.dumps({"prompt": " ", "completion": {"verdict": "accept"}})),
        Said(row(1), finish="length"),
        Said(""),
        Said(f"```json\n{row(1)}\n```"),
    ]
    with teacher_saying(lambda number, _: said[number]) as teacher:
        done = place.run(teacher.url, "--rows", 2, "--concurrency", 1)
    assert (done["rows"], len(teacher.asked)) == (2, len(said))
    assert place.reasons() == done["refused"]
    assert done["refused"] == {
        "duplicate": 2,
        "near-duplicate": 1,
        "breaks the schema": 1,
        "no JSON": 1,
        "other form": 2,
        "the answer was cut at --max-tokens": 1,
        "the answer is empty": 1,
    }
    assert done["tokens"] == 30 * len(said)


def test_what_may_go_better_the_next_time_is_tried_again(place: Place) -> None:
    failures = {
        1: Said("slow down", status=429, headers=AGAIN),
        3: Said("oh", status=500, headers=AGAIN),
        5: Said("busy", status=503, headers=AGAIN),
        7: Said("x" * 2000, cut=True),
    }
    with teacher_saying(lambda number, _: failures.get(number) or Said(row(number))) as teacher:
        done = place.run(teacher.url, "--rows", 6, "--concurrency", 2)
    assert (done["rows"], done["refused"], len(teacher.asked)) == (6, {}, 10)


def test_a_page_in_the_place_of_an_answer_is_no_defect(place: Place) -> None:
    with teacher_saying(lambda number, _: Said(body=b"<html>") if number % 2 else Said(row(number))) as teacher:
        done = place.run(teacher.url, "--rows", 2, "--concurrency", 1)
    assert done["rows"] == 2
    assert sum(done["refused"].values()) == 1


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (Said(f"wrong key {KEY}", status=401), "into the environment variable OPENAI_API_KEY"),
        (Said("no such model", status=404), "correct --endpoint"),
        (Said("no json_schema here", status=400), "try json_object or none"),
        (Said("later", status=429, headers=AGAIN), "lower --concurrency"),
    ],
    ids=["key", "model", "form", "rate"],
)
def test_a_teacher_that_refuses_ends_the_run_and_keeps_the_rows(said: Said, message: str, place: Place) -> None:
    with teacher_saying(lambda number, _: said if number else Said(row(number))) as teacher:
        error = place.run(teacher.url, "--rows", 5, "--concurrency", 1, code=5)
    assert message in error.splitlines()[-1]
    assert len(place.rows()) == 1
    assert KEY not in error + "".join(path.read_text() for path in place.folder.iterdir())


def test_a_teacher_that_is_not_there_is_an_error_of_the_target(place: Place) -> None:
    with teacher_saying(lambda number, _: Said(row(number))) as teacher:
        url = teacher.url
    options = TeacherOptions(url, "big", retries=0)
    with pytest.raises(TargetError, match="can't be reached"):
        generate(Request(load_rows(place.seeds)), options, place.output, Budget(rows=1))


@pytest.mark.parametrize(
    ("endpoint", "warned"),
    [
        ("http://127.0.0.1:1/v1", False),
        ("https://host/v1", False),
        ("http://host/v1", True),
        ("http://u:pw@host/v1", True),
    ],
)
def test_a_key_that_others_could_read_is_warned_of(
    endpoint: str, warned: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    Teacher(TeacherOptions(endpoint, "big"))
    assert ("without encryption" in caplog.text) == warned
    assert KEY not in caplog.text
    assert "pw" not in caplog.text


def test_a_variable_that_was_asked_for_has_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(UsageError, match="MY_KEY is not set"):
        Teacher(TeacherOptions("http://127.0.0.1:1/v1", "big", key_variable="MY_KEY"))
    monkeypatch.setenv("MY_KEY", KEY)
    Teacher(TeacherOptions("http://127.0.0.1:1/v1", "big", key_variable="MY_KEY"))


def test_as_many_are_asked_at_a_time_as_is_said(place: Place) -> None:
    together = threading.Barrier(3)

    def script(number: int, _: dict[str, Any]) -> Said:
        together.wait(60)  # nobody goes on before three are here
        return Said(row(number))

    with teacher_saying(script) as teacher:
        assert place.run(teacher.url, "--rows", 6, "--concurrency", 3)["rows"] == 6


def test_a_run_ends_with_its_time(place: Place) -> None:
    done = generate(
        Request(load_rows(place.seeds)), TeacherOptions("http://127.0.0.1:1/v1", "big"), place.output, Budget(seconds=0)
    )
    assert (done.rows, done.stopped) == (0, "time")


def test_a_second_run_goes_on(place: Place) -> None:
    with teacher_saying(lambda number, _: Said(row(number))) as teacher:
        place.run(teacher.url, "--rows", 3)
        first = place.output.read_bytes()
        done = place.run(teacher.url, "--rows", 5)
        assert (done["rows"], done["new"], done["tokens"]) == (5, 2, 150)
        assert place.output.read_bytes().startswith(first)
        assert place.run(teacher.url, "--rows", 5)["new"] == 0
    assert len(teacher.asked) == 5
    assert len({each["provenance"]["number"] for each in place.rows()}) == 5


def test_a_second_run_knows_the_rows_of_the_first(place: Place) -> None:
    with teacher_saying(lambda _, __: Said(row(0))) as teacher:
        place.run(teacher.url, "--rows", 1)
        done = place.run(teacher.url, "--rows", 2)
    assert (done["rows"], done["stopped"], done["refused"]) == (1, "refused", {"duplicate": 20})


def test_evaluation_rows_are_avoided(place: Place) -> None:
    held_out = write(place.folder / "eval.jsonl", [pair(different(100), {"verdict": "accept"})])
    with teacher_saying(lambda number, _: Said(row(number))) as teacher:
        done = place.run(teacher.url, "--rows", 2, "--avoid", held_out, "--concurrency", 1)
    assert done["refused"] == {"duplicate": 1}
    assert different(100) not in place.output.read_text()


def test_tokens_are_bounded_and_have_to_be_told_for_that(place: Place) -> None:
    with teacher_saying(lambda number, _: Said(row(number))) as teacher:
        done = place.run(teacher.url, "--tokens", 100, "--concurrency", 1)
    assert (done["stopped"], done["rows"], done["tokens"]) == ("tokens", 4, 120)
    with teacher_saying(lambda number, _: Said(row(50 + number), tokens=None)) as teacher:
        error = place.run(teacher.url, "--tokens", 1000, "--concurrency", 1, code=5)
    assert "doesn't say how many tokens" in error
    assert len(place.rows()) == 5


def test_a_model_that_knows_only_the_newer_name_of_the_bound_is_asked_with_it(place: Place) -> None:
    old = "use 'max_completion_tokens' instead"

    def script(number: int, body: dict[str, Any]) -> Said:
        return Said(old, status=400) if "max_tokens" in body else Said(row(number))

    with teacher_saying(script) as teacher:
        assert place.run(teacher.url, "--rows", 2, "--concurrency", 1)["rows"] == 2
    assert ["max_tokens" in body for body in teacher.asked] == [True, False, False]


def test_a_plan_is_read_from_a_file(place: Place) -> None:
    plan = place.folder / "plan.yaml"
    assert "plan.yaml can't be read (No such file or directory)" in place.run(
        "http://127.0.0.1:1/v1", "--rows", 2, "--plan", plan, code=3
    )
    plan.write_text("about: Judge it.\nvary:\n  size: [1, 2]\n")
    with teacher_saying(lambda number, _: Said(row(number))) as teacher:
        place.run(teacher.url, "--rows", 2, "--plan", plan)
        told = [asked["messages"][-1]["content"] for asked in teacher.asked]
        assert all("The task: Judge it." in text for text in told)
        assert {text.partition("size: ")[2][0] for text in told} == {"1", "2"}
        plan.write_text("vary: [size]")
        assert "is no plan" in place.run(teacher.url, "--rows", 3, "--plan", plan, code=3)


def test_a_file_of_ones_own_rows_is_not_written_to(place: Place) -> None:
    write(place.output, SEEDS)
    before = place.output.read_bytes()
    error = place.run("http://127.0.0.1:1/v1", "--rows", 9, code=3)
    assert "more.jsonl:1: this row is not from a teacher" in error
    assert place.output.read_bytes() == before


def test_a_line_that_was_cut_goes_and_the_others_stay(place: Place) -> None:
    with teacher_saying(lambda number, _: Said(row(number))) as teacher:
        place.run(teacher.url, "--rows", 2)
        whole = place.output.read_bytes()
        place.output.write_bytes(whole + b'{"prompt": "ha')
        assert place.run(teacher.url, "--rows", 3)["rows"] == 3
    assert place.output.read_bytes().startswith(whole)
    assert len(place.rows()) == 3


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with open_rows(path), pytest.raises(InputError, match="another run is writing"), open_rows(path):
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_what_stops_a_run_loses_no_row(number: signal.Signals, place: Place) -> None:
    def script(count: int, _: dict[str, Any]) -> Said:
        if count >= 3:
            time.sleep(0.5)
        return Said(row(count))

    with teacher_saying(script) as teacher:
        command = [sys.executable, "-m", "edgekit", *place.words(teacher.url, "--rows", 500)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "100"})
        end = time.monotonic() + 120
        while not place.output.exists() or place.output.read_bytes().count(b"\n") < 4:
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 128 + number
        assert "stopped" in said
        assert "Traceback" not in said
        there = len(place.rows())
        assert place.run(teacher.url, "--rows", there + 2)["rows"] == there + 2


@pytest.fixture
def in_project(tmp_path: Path) -> Callable[[], Path]:
    def make() -> Path:
        folder = tmp_path / "line-3"
        (folder / "data").mkdir(parents=True)
        write(folder / "data" / "train.jsonl", SEEDS)
        write(folder / "data" / "eval.jsonl", [pair(different(100), {"verdict": "accept"})])
        (folder / "edgekit.yaml").write_text(
            "project: line-3\nbase: smollm2-135m\ndata: {train: data/train.jsonl, eval: data/eval.jsonl}\n"
            f"adapters: {{judge: {{system: Judge it., schema: {json.dumps(SCHEMA)}}}}}\n"
        )
        return folder

    return make


def test_a_project_gives_seeds_schema_system_prompt_and_what_to_avoid(
    in_project: Callable[[], Path], tmp_path: Path
) -> None:
    folder, output = in_project(), tmp_path / "more.jsonl"
    with teacher_saying(lambda number, _: Said(row(number, "perhaps" if number == 1 else "accept"))) as teacher:
        words = ["data", "generate", "--project", folder, "--output", output, "--endpoint", teacher.url]
        assert main([*map(str, words), "--model", "big", "--rows", "2", "--concurrency", "1"]) == 0
    assert "The small model's instruction: Judge it." in teacher.asked[0]["messages"][-1]["content"]
    assert len(teacher.asked) == 4  # one is of the evaluation rows, one breaks the schema
    assert len(load_rows(output)) == 2
