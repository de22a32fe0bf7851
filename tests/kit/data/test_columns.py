"""What edgekit.yaml says of data: which files, which columns; extra ones are errors that say what to write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgekit.data import DataSource, Row, data_digest, load_rows
from edgekit.project import DataFiles, load_project
from edgekit_runtime.errors import InputError

PAIR = {"prompt": "q", "completion": "a"}


def rows(folder: Path, *found: Any, name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, found)))
    return path


def project(folder: Path, data: str) -> DataFiles:
    text = f"project: p\nbase: b\nadapters:\n  one: {{rank: 8}}\ndata: {data}\n"
    (folder / "edgekit.yaml").write_text(text)
    return load_project(folder).data_for("one")


def loaded(folder: Path, row: Any, options: str = "") -> Row:
    rows(folder, row)
    return load_rows(project(folder, f"{{train: rows.jsonl, eval: rows.jsonl{options}}}").train)[0]


@pytest.mark.parametrize("extra", [{"id": 1}, {"idx": "x", "uuid": None}, {"_id": "0", "index": 2.5}])
def test_names_of_rows_are_no_keys(extra: dict[str, Any], tmp_path: Path) -> None:
    assert loaded(tmp_path, PAIR | extra).answer == "a"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"source": "web"}, r"jsonl:1: the keys source are not known here: .*write ignore: \[source\] under data:"),
        ({"weight": 0.5, "lang code": "de"}, r"the keys weight, \"lang code\" .*ignore: \[weight, \"lang code\"\]"),
        ({"id": {"question": 1}}, r"ignore: \[id\]"),
        ({"sytem": "s"}, r"did you mean system\? to leave it out, write ignore: \[sytem\]"),
        ({f"k{number}": 1 for number in range(99)}, "and 91 more are not known here"),
        ({"a\nb": 1}, r'the keys "a\\nb" are'),
        ({"x" * 300: 1}, "the keys x{40}… are"),
    ],
)
def test_other_columns_are_errors_that_say_what_to_write(extra: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        loaded(tmp_path, PAIR | extra)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ignore", ["[source, weight]", "['*']", "'*'", '["*", source]'])
def test_columns_that_are_named_are_left_out(ignore: str, tmp_path: Path) -> None:
    assert loaded(tmp_path, PAIR | {"source": "web", "weight": float("nan")}, f", ignore: {ignore}").answer == "a"


def test_all_others_are_not_those_that_rows_have(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "tool_calls": []}]}
    row["messages"][1]["thinking"] = "hm"
    row["messages"][1]["at"] = 3
    found = loaded(tmp_path, row | {"system": "s", "x": 1}, ", ignore: ['*']")
    assert found.messages[0] == {"role": "system", "content": "s"}
    assert found.reply is not None
    assert "at" not in found.reply


def test_what_the_row_is_has_to_be_certain_whatever_is_ignored(tmp_path: Path) -> None:
    row = PAIR | {"messages": [{"role": "user", "content": "q2"}, {"role": "assistant", "content": "a2"}]}
    with pytest.raises(InputError, match="it could be several kinds of rows"):
        loaded(tmp_path, row, ", ignore: ['*']")
    assert loaded(tmp_path, row, ", ignore: [prompt, completion]").answer == "a2"


def test_keys_of_messages_are_ignored_by_their_own_name(tmp_path: Path) -> None:
    answer = {"role": "assistant", "content": "a", "weight": 0, "at": 1}
    row = {"messages": [{"role": "user", "content": "q"}, answer]}
    with pytest.raises(InputError, match=r"message 2: the keys at .*ignore: \[messages.at\]"):
        loaded(tmp_path, row, ", ignore: [messages.weight, at]")
    assert loaded(tmp_path, row, ", ignore: [messages.weight, messages.at]").reply is None


def test_columns_stand_for_keys(tmp_path: Path) -> None:
    row = {"frage": "q", "antwort": "a", "hinweis": "s"}
    found = loaded(tmp_path, row, ", columns: {prompt: frage, completion: antwort, system: hinweis}")
    assert [message["content"] for message in found.messages] == ["s", "q"]
    assert found.answer == "a"


def test_columns_may_change_places(tmp_path: Path) -> None:
    found = loaded(tmp_path, PAIR, ", columns: {prompt: completion, completion: prompt}")
    assert (found.messages[0]["content"], found.answer) == ("a", "q")


def test_a_column_with_the_name_of_a_row_may_stand_for_a_key(tmp_path: Path) -> None:
    assert loaded(tmp_path, {"id": "q", "answer": "a"}, ", columns: {question: id}").messages[0]["content"] == "q"


def test_preferences_are_trained_on_where_the_project_says_how(tmp_path: Path) -> None:
    row = {"prompt": "q", "chosen": "good", "rejected": "bad"}
    assert loaded(tmp_path, row, ", columns: {completion: chosen}, ignore: [rejected]").answer == "good"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (", columns: {prompt: qestion}", "no row of .*rows.jsonl has the column qestion"),
        (", columns: {prompt: completion}", "there is a column prompt besides completion: .*ignore: .prompt"),
        (", columns: {promt: x}", r"yaml:5: data.columns.promt: no row has this key: did you mean prompt\?"),
        (", columns: {prompt: 3}", "yaml:5: data.columns.prompt: 3 is not text"),
        (", columns: [prompt]", "yaml:5: data.columns: it has to be a mapping: columns: {prompt: question}"),
        (", columns: {prompt: x, question: x}", "'x' would stand for two keys"),
        (", columns: {prompt: x}, ignore: [x]", "'x' is ignored too"),
        (", ignore: [3]", r"yaml:5: data.ignore: .*is no list of names: ignore: \[id, source\]"),
        (", ignor: [x]", "yaml:5: data.ignor: unknown key: .*did you mean ignore"),
    ],
)
def test_settings_that_can_not_be_right_are_told(options: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        loaded(tmp_path, PAIR, options)


def test_both_files_are_read_alike(tmp_path: Path) -> None:
    rows(tmp_path, {"q": "q", "a": "a", "x": 1})
    files = project(tmp_path, "{train: rows.jsonl, eval: rows.jsonl, ignore: [x], columns: {question: q, answer: a}}")
    assert load_rows(files.train) == load_rows(files.eval)


def test_the_digest_covers_how_columns_are_read(tmp_path: Path) -> None:
    path = rows(tmp_path, PAIR | {"x": "b"})
    ignored = DataSource(path, ignore=("x",))
    renamed = DataSource(path, columns={"completion": "x"}, ignore=("completion",))
    assert load_rows(ignored)[0].answer == "a"
    assert load_rows(renamed)[0].answer == "b"
    assert data_digest([ignored]) != data_digest([renamed])
    plain = rows(tmp_path, PAIR)
    assert data_digest([plain]) == data_digest([DataSource(plain, part="eval")])


@pytest.mark.parametrize(
    ("text", "hub"),
    [
        ("org/name", "org/name"),
        ("hub:org/name", "org/name"),
        ("hub:gsm8k", "gsm8k"),
        ("hub:data/rows", "data/rows"),
        ("data/rows", None),  # the folder data is here
        ("org/name.jsonl", None),
        ("./org/name", None),
        ("rows", None),
        ("a/b/c", None),
    ],
)
def test_a_path_goes_before_a_data_set_of_the_hub(text: str, hub: str | None, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    source = project(tmp_path, f"{{train: {text}, eval: x.jsonl}}").train
    assert source.hub == hub
    assert source.path == (None if hub else (tmp_path / text).resolve())


def test_a_data_set_of_the_hub_is_described_in_full(tmp_path: Path) -> None:
    more = "config: en, split: dev, revision: abc, files: 'x/*.csv'"
    files = project(tmp_path, f"{{train: {{hub: org/name, {more}}}, eval: {{path: folder, split: test}}}}")
    wanted = DataSource(hub="org/name", config="en", split="dev", revision="abc", files="x/*.csv", part="train")
    assert files.train == wanted
    assert files.eval == DataSource(path=tmp_path / "folder", split="test", part="eval")


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("hub:a/b/c", "yaml:5: data.train: 'a/b/c' is no data set of the hub: write hub:owner/name"),
        ("'hub:'", "'' is no data set of the hub"),
        ("hub:../x", "is no data set of the hub"),
        ("{hub: a/b, path: c}", "it names no data, or two: give either path or hub"),
        ("{split: train}", "it names no data, or two"),
        ("{path: x, revision: main}", "only a data set of the hub has a revision"),
        ("{hub: a/b, slit: train}", r"data.train.slit: unknown key: .*did you mean split\?"),
        ("[a.jsonl]", "is not text"),
        ("3", "3 is not text"),
    ],
)
def test_a_source_that_can_not_be_right_is_told(train: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        project(tmp_path, f"{{train: {train}, eval: x.jsonl}}")
