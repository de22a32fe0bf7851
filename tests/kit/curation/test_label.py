"""Answers of a teacher to prompts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit.cli.program import main
from edgekit.data import load_prompts, load_rows
from edgekit_runtime.errors import InputError
from loopback_teacher import Said, teacher_saying
from tests.kit.curation.rows import write
from tests.kit.curation.test_generate import SCHEMA

PROMPTS: list[dict[str, Any]] = [
    {"prompt": "one"},
    {"instruction": "two", "input": "of it"},
    {"messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "three"}]},
    {"conversations": [{"from": "human", "value": "four"}], "id": 4},
    {"prompt": "one"},
]


@pytest.fixture
def label(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    def run(url: str, *more: object, code: int = 0) -> Any:
        words = [tmp_path / "prompts.jsonl", "--output", tmp_path / "rows.jsonl", "--endpoint", url, "--model", "big"]
        assert main(["data", "label", *map(str, [*words, *more]), "--json"]) == code
        said = capsys.readouterr()
        return json.loads(said.out) if code == 0 else said.err

    return run


def answer(_: int, body: dict[str, Any]) -> Said:
    return Said(f"answer to {body['messages'][-1]['content']}")


def test_each_prompt_is_answered_once(label: Callable[..., Any], tmp_path: Path) -> None:
    write(tmp_path / "prompts.jsonl", PROMPTS)
    with teacher_saying(answer) as teacher:
        done = label(teacher.url)
        assert (done["rows"], done["stopped"]) == (4, "done")
        assert label(teacher.url)["new"] == 0
    assert len(teacher.asked) == 4
    rows = load_rows(tmp_path / "rows.jsonl")
    assert sorted(row.answer for row in rows) == [
        "answer to four",
        "answer to one",
        "answer to three",
        "answer to two\n\nof it",
    ]
    (three,) = [row for row in rows if row.messages[-1]["content"] == "three"]
    assert three.messages[0] == {"role": "system", "content": "Be short."}
    origin = json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[0])["provenance"]
    assert set(origin) == {"by", "teacher", "endpoint", "prompt", "time", "tokens", "question", "prompts"}


def test_a_second_run_asks_only_what_is_open(label: Callable[..., Any], tmp_path: Path) -> None:
    write(tmp_path / "prompts.jsonl", PROMPTS)
    with teacher_saying(answer) as teacher:
        assert label(teacher.url, "--rows", 2)["stopped"] == "rows"
        assert label(teacher.url)["new"] == 2
    assert len(teacher.asked) == 4


def test_an_answer_that_breaks_the_schema_is_asked_for_three_times(label: Callable[..., Any], tmp_path: Path) -> None:
    write(tmp_path / "prompts.jsonl", [{"prompt": "good"}, {"prompt": "bad"}])
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(SCHEMA))

    def script(_: int, body: dict[str, Any]) -> Said:
        return Said(
            '```json\n{"verdict": "accept"}\n```' if body["messages"][-1]["content"] == "good" else '{"verdict": 1}'
        )

    with teacher_saying(script) as teacher:
        done = label(teacher.url, "--schema", schema, "--about", "Judge it.")
    assert (done["rows"], done["refused"], len(teacher.asked)) == (1, {"breaks the schema": 3}, 4)
    assert all(body["messages"][0] == {"role": "system", "content": "Judge it."} for body in teacher.asked)
    assert load_rows(tmp_path / "rows.jsonl")[0].answer == '{"verdict": "accept"}'


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "completion": "b"}, "it has an answer already"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "an answer already"),
        ({"promt": "a"}, "no known kind of row"),
        ({"prompt": " "}, "prompt is empty"),
        ({"messages": []}, "not an answer|no messages"),
    ],
    ids=["answered pair", "answered messages", "key", "empty", "no messages"],
)
def test_what_is_no_prompt_is_told_with_its_line(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "prompts.jsonl", [{"prompt": "fine"}, row])
    with pytest.raises(InputError, match=message) as error:
        load_prompts(path)
    assert f"{path}:2" in str(error.value)
