"""Evaluation rows that are held out of the training rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekit.data import DataSource, data_digest, load_rows
from edgekit.project import load_project
from edgekit_runtime.errors import InputError


def write(folder: Path, questions: list[str]) -> Path:
    path = folder / "rows.jsonl"
    rows = [{"prompt": question, "completion": str(at)} for at, question in enumerate(questions)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def sides(path: Path) -> tuple[list[str], list[str]]:
    train, evaluation = (load_rows(DataSource(path=path, held_out=side)) for side in (False, True))
    assert sorted(row.answer for row in (*train, *evaluation)) == sorted(row.answer for row in load_rows(path))
    return [row.messages[0]["content"] for row in train], [row.messages[0]["content"] for row in evaluation]


def test_a_tenth_is_held_out_the_same_each_time_and_no_question_is_on_both_sides(tmp_path: Path) -> None:
    path = write(tmp_path, [f"question {n % 50}" for n in range(100)])
    train, evaluation = sides(path)
    assert len(evaluation) == 10
    assert not set(train) & set(evaluation)
    assert sides(path) == (train, evaluation)
    _, more = sides(write(tmp_path, [f"question {n % 50}" for n in range(102)]))
    assert set(evaluation) <= set(more) | {"question 0", "question 1"}


def test_few_rows_keep_one_on_each_side_and_one_question_is_refused(tmp_path: Path) -> None:
    train, evaluation = sides(write(tmp_path, ["a", "b"]))
    assert (len(train), len(evaluation)) == (1, 1)
    with pytest.raises(InputError, match=r"rows.jsonl has one question only.*data\.eval"):
        sides(write(tmp_path, ["a", "a"]))


def test_a_project_without_evaluation_rows_holds_some_out(tmp_path: Path) -> None:
    write(tmp_path, [f"question {n}" for n in range(20)])
    head = "project: p\nbase: smollm2-135m\nadapters: {one: {}}\n"
    digests = set()
    for data in ("{train: rows.jsonl}", "{train: rows.jsonl, eval: null}", "{train: rows.jsonl, eval: rows.jsonl}"):
        (tmp_path / "edgekit.yaml").write_text(f"{head}data: {data}\n")
        files = load_project(tmp_path).data_for("one")
        both = (len(load_rows(files.train)), len(load_rows(files.eval)))
        assert both == ((18, 2) if "eval: rows" not in data else (20, 20))
        digests.add(data_digest([files.train, files.eval]))
    assert len(digests) == 2
