"""What a check finds, and says with file and line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit.cli.program import main
from edgekit.curation.check import Checked, Subject, check
from edgekit.curation.page import page
from edgekit.curation.table import checks_table
from tests.kit.curation.rows import pair, write
from tests.kit.curation.test_split import different

SCHEMA = {
    "type": "object",
    "properties": {"verdict": {"enum": ["accept", "scrap", "rework"]}},
    "required": ["verdict"],
    "additionalProperties": False,
}
GOOD = [pair(different(n), {"verdict": "scrap" if n % 2 else "accept"}) for n in range(20)]


def checked(tmp_path: Path, train: list[Any], evaluation: list[Any] | None = None, **more: Any) -> Checked:
    files = [write(tmp_path / "train.jsonl", [*GOOD, *train])]
    held_out = [] if evaluation is None else [write(tmp_path / "eval.jsonl", evaluation)]
    return check(Subject("rows", files, held_out, **more))


@pytest.mark.parametrize(
    ("train", "kind", "text", "other"),
    [
        (GOOD[3], "duplicate", "the row is there twice", "train.jsonl:4"),
        ({**GOOD[3], "completion": '{ "verdict":"scrap"}'}, "duplicate", "the row is there twice", "train.jsonl:4"),
        (pair(different(3), {"verdict": "accept"}), "contradiction", "another verdict", "train.jsonl:4"),
        (
            pair(different(3).upper() + "!", {"verdict": "accept"}),
            "near-duplicate",
            "and another answer",
            "train.jsonl:4",
        ),
        (pair(different(4).upper() + "!", {"verdict": "accept"}), "near-duplicate", "100% the same", "train.jsonl:5"),
        (pair("mail me: jo@example.com", {"verdict": "accept"}), "personal", "e-mail address in the question", None),
        (pair("what?", {"verdict": "lost"}), "schema", "verdict: 'lost' is not one of", None),
        (pair("what?", {"verdict": "accept", "more": 1}), "schema", "Additional properties", None),
        (pair("what?", "accept"), "schema", "the answer is no JSON", None),
        (pair("what?", ' {"verdict": "accept"}'), "odd", "begins or ends with white space", None),
        (pair('{"verdict": "accept"}', {"verdict": "accept"}), "odd", "the answer is the question", None),
        (pair("wha\ufffd?", {"verdict": "accept"}), "odd", "signs were lost", None),
        (pair("what?", '{"verdict": "accept"\u200b}'), "odd", "signs that nobody sees", None),
        (pair("what?", ""), "unreadable", "the answer is empty", None),
        ({"prompt": "what?", "competion": "x"}, "unreadable", "are no known kind of row", None),
        ("{broken", "unreadable", "it is not JSON", None),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)
def test_it_is_found_where_it_is(train: Any, kind: str, text: str, other: str | None, tmp_path: Path) -> None:
    found = [each for each in checked(tmp_path, [train], schema=SCHEMA).findings if each.kind == kind]
    (one,) = found
    assert one.where == f"{tmp_path}/train.jsonl:21"
    assert text in one.text
    assert one.other == (other and f"{tmp_path}/{other}")


TOOL = {
    "name": "set_speed",
    "parameters": {"type": "object", "properties": {"rpm": {"type": "integer", "maximum": 900}}, "required": ["rpm"]},
}


def calling(*calls: dict[str, Any], tools: Any = (TOOL,), question: str = "faster") -> dict[str, Any]:
    asked, reply = {"role": "user", "content": question}, {"role": "assistant", "tool_calls": list(calls)}
    return {"messages": [asked, reply], "tools": list(tools)}


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (
            calling({"name": "set_sped", "arguments": {"rpm": 9}}),
            "set_sped is called, and the row's tools are set_speed",
        ),
        (calling({"name": "set_speed", "arguments": {"rpm": 9}}, tools=()), "the row's tools are none"),
        (calling({"name": "set_speed", "arguments": {"rpm": 901}}), "arguments of set_speed: rpm: 901 is greater than"),
        (calling({"name": "set_speed", "arguments": {}}), "arguments of set_speed: 'rpm' is a required property"),
        (
            calling({"name": "set_speed", "arguments": {"rpm": 9}}, {"name": "set_speed", "arguments": {"rpm": "9"}}),
            "arguments of set_speed: rpm: '9' is not of type 'integer'",
        ),
        (
            calling({"name": "f", "arguments": {}}, tools=[{"name": "f", "parameters": {"type": "objekt"}}]),
            "the parameters of f: the schema is no JSON schema",
        ),
        (
            calling(
                {"name": "f", "arguments": {"a": 1}}, tools=[{"name": "f", "parameters": {"$ref": "#/$defs/none"}}]
            ),
            "the schema refers to",
        ),
    ],
    ids=["name", "none", "limit", "missing", "second", "schema", "reference"],
)
def test_a_call_has_to_fit_the_tools_of_its_row(row: dict[str, Any], text: str, tmp_path: Path) -> None:
    done = check(Subject("rows", [write(tmp_path / "train.jsonl", [row])]))
    (found,) = (each for each in done.findings if each.kind == "tools")
    assert text in found.text
    assert found.where == f"{tmp_path}/train.jsonl:1"
    assert found.level == "wrong"


def test_calls_of_earlier_turns_are_looked_at_and_right_ones_pass(tmp_path: Path) -> None:
    right = calling({"name": "set_speed", "arguments": {"rpm": 9}})
    wrong = calling({"name": "set_speed", "arguments": {"rpm": -0.5}})["messages"]
    later = {
        "messages": [*wrong, *calling({"name": "set_speed", "arguments": {"rpm": 8}})["messages"]],
        "tools": [TOOL],
    }
    free = calling({"name": "stop", "arguments": {"any": "thing"}}, tools=[{"name": "stop"}], question="stop")
    done = check(Subject("rows", [write(tmp_path / "train.jsonl", [right, later, free])]))
    assert [(each.where[-2:], each.kind) for each in done.findings if each.level == "wrong"] == [(":2", "tools")]


def test_good_rows_have_nothing_to_mend(tmp_path: Path) -> None:
    done = checked(tmp_path, [], [pair(different(n), {"verdict": "accept"}) for n in range(30, 36)], schema=SCHEMA)
    assert (done.to_mend, done.counts) == (0, {"balance": 1})
    assert done.findings[0].text == "the schema allows verdict to be 'rework', and no training row has it"
    assert (done.train.rows, done.eval and done.eval.rows) == (20, 6)
    assert dict(done.train.labels[0].counts) == {"accept": 10, "scrap": 10}


def test_a_row_behind_one_that_can_not_be_read_is_looked_at(tmp_path: Path) -> None:
    done = checked(tmp_path, [pair("what?", ""), GOOD[0]])
    assert [(each.kind, each.where[-2:]) for each in done.findings if each.level != "note"] == [
        ("unreadable", "21"),
        ("duplicate", "22"),
    ]


def test_leaks_name_both_rows(tmp_path: Path) -> None:
    near = pair(different(6).title() + ".", {"verdict": "accept"})
    done = checked(tmp_path, [], [GOOD[5], near, pair(different(40), {"verdict": "accept"})])
    leaks = [(each.kind, each.where[-12:], (each.other or "")[-13:]) for each in done.findings if "leak" in each.kind]
    assert leaks == [("leak", "eval.jsonl:1", "train.jsonl:6"), ("near-leak", "eval.jsonl:2", "train.jsonl:7")]


def test_a_label_that_is_nearly_all_there_is_or_rare_is_noted(tmp_path: Path) -> None:
    rows = [pair(different(n), {"verdict": "accept"}) for n in range(20, 400)]
    texts = [each.text for each in checked(tmp_path, rows, [pair("x?", {"verdict": "odd"})]).findings]
    assert "verdict is 'accept' in 390 of 400 training rows" in texts
    assert "verdict is 'odd' in evaluation and never in training" in texts


@pytest.fixture
def hostile(tmp_path: Path) -> Checked:
    name = "<script>alert(1)</script>.jsonl"
    rows = [pair(different(n), "</style><script>x" if n % 2 else "\u202eabc") for n in range(8)]
    return check(Subject(name, [write(tmp_path / "x.jsonl", rows)]))


def test_a_page_shows_what_rows_say_and_does_not_run_it(hostile: Checked) -> None:
    html = page([hostile])
    assert "<script" not in html
    assert html.count("<style>") == html.count("</style>") == 1
    assert "&lt;/style&gt;&lt;script&gt;x" in html
    assert "\\u202eabc" in html
    assert "default-src &#39;none&#39;" in html


def test_a_table_is_plain(hostile: Checked) -> None:
    assert all(line.isprintable() for line in checks_table([hostile]).splitlines())


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*words: object) -> tuple[int, str, str]:
        code = main(["data", *map(str, words)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_strict_makes_findings_an_error(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [*GOOD, GOOD[0]])
    code, out, err = run("check", path)
    assert (code, err) == (0, "")
    assert "rows.jsonl:21: the row is there twice" in out
    code, out, err = run("check", path, "--strict", "--json", "--page", tmp_path / "page.html")
    assert code == 3
    assert err.startswith("error: 1 thing is to mend")
    assert json.loads(out)["sets"][0]["counts"] == {"duplicate": 1}
    assert "rows.jsonl:21" in (tmp_path / "page.html").read_text()
    write(path, GOOD)
    assert run("check", path, "--strict")[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "nowhere.jsonl"], "there is no data file nowhere.jsonl"),
        (["check", "x.jsonl", "--schema", "no.json"], "no.json can't be read (No such file or directory)"),
        (["check", "--region", "XX"], "there is no region 'XX'"),
        (["check", "x.jsonl", "--adapter", "one"], "--adapter names one of a project"),
        (["check", "x.jsonl", "--near", "0.5"], "use 0.7 to 1"),
        (["chek"], "there is no command 'chek': use one of check, split, generate, label"),
        (["generate", "--output", "x.jsonl", "--endpoint", "http://127.0.0.1:1/v1", "--model", "m"], "never end"),
        (["label", "x.jsonl", "--endpoint", "http://127.0.0.1:1/v1", "--model", "m"], "are required: --output"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_line(words: list[str], message: str, run: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = run(*words)
    assert code in (2, 3)
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.model
def test_a_project_is_checked_in_tokens_of_its_base(
    tiny_project: Callable[..., Path], run: Callable[..., tuple[int, str, str]]
) -> None:
    folder = tiny_project(max_length=16)
    code, out, _ = run("check", folder, "--json")
    assert code == 0
    (found,) = json.loads(out)["sets"]
    assert (found["name"], found["train"]["rows"], found["eval"]["rows"]) == ("small", 24, 4)
    assert found["train"]["lengths"]["unit"] == "tokens"
    assert found["counts"]["leak"] == 4
    assert found["counts"]["too-long"] == 28
    assert "training allows 16" in json.dumps(found["findings"])
