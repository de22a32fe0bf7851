"""Files of all containers give the same rows, and each error has the line on which its row starts."""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit.data import data_digest, load_rows
from edgekit_runtime.errors import InputError

ROWS = [{"prompt": "q1", "completion": "a1"}, {"prompt": 'q 2,\n"x"', "completion": "a;2"}]
WANTED = [("q1", "a1"), ('q 2,\n"x"', "a;2")]


def pairs(path: Path) -> list[tuple[str, str]]:
    return [(row.messages[-1]["content"], row.answer) for row in load_rows(path)]


def written(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def table(delimiter: str, ending: str = "\r\n") -> str:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, ["prompt", "completion"], delimiter=delimiter, lineterminator=ending)
    writer.writeheader()
    writer.writerows(ROWS)
    return out.getvalue()


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    import pyarrow
    from pyarrow import parquet as format_

    format_.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


LINES = "\n".join(map(json.dumps, ROWS))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.jsonl", LINES),
        ("rows.ndjson", LINES + "\n\n"),
        ("rows.json", LINES),  # the suffix lies
        ("rows.txt", LINES),
        ("rows.csv", LINES),
        ("rows.jsonl", json.dumps(ROWS)),
        ("rows.json", json.dumps(ROWS)),
        ("rows.json", json.dumps(ROWS, indent=2)),
        ("rows.csv", json.dumps(ROWS, indent=2)),
        ("rows.json", "\ufeff" + json.dumps(ROWS, indent=1)),
        ("rows.json", "\n".join(json.dumps(row, indent=2) for row in ROWS)),  # as jq writes them
        ("rows.json", json.dumps({"version": "1.0", "data": ROWS})),
        ("rows.json", json.dumps({"rows": ROWS}, indent=2)),
        ("rows.json", json.dumps({"train": ROWS, "about": {"data": "no list"}}, indent=2)),
        ("rows.csv", table(",")),
        ("rows.csv", table(",", "\n")),
        ("rows.csv", table(";")),
        ("rows.csv", table("\t")),
        ("rows.csv", "\ufeff" + table(",")),
        ("rows.csv", "\r\n" + table(",") + "\r\n"),
        ("rows.tsv", table("\t")),
        ("rows.TSV", table("\t")),
        ("rows.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)),
        ("rows.csv.gz", gzip.compress(table(",").encode(), mtime=0)),
        ("rows.jsonl", gzip.compress(LINES.encode(), mtime=0)),
    ],
)
def test_the_same_rows_come_out_of_every_container(name: str, text: str | bytes, tmp_path: Path) -> None:
    assert pairs(written(tmp_path, name, text)) == WANTED


@pytest.mark.parametrize("name", ["rows.parquet", "rows.bin"])
def test_parquet_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    path = parquet(tmp_path / name, ROWS)
    assert pairs(path) == WANTED
    assert [row.where for row in load_rows(path)] == [f"{path}:1", f"{path}:2"]


@pytest.mark.parametrize(
    ("name", "text", "lines"),
    [
        ("a.json", '[\n {"prompt": "q",\n "completion": "a"},\n\n {"prompt": "q", "completion": "a"}]', ["2", "5"]),
        ("b.json", '[{"prompt": "q", "completion": "a"}, {"prompt": "q", "completion": "a"}]', ["1", "1 (row 2)"]),
        ("c.json", '{"x": 1,\n"data":\n[{"prompt": "q", "completion": "a"}]}', ["3"]),
        ("d.json", '{"prompt": "q",\n "completion": "a"}\n{"prompt": "q",\n "completion": "a"}', ["1", "3"]),
        ("e.csv", 'prompt,completion\n"1\n2\n",a\n\nq,a\n', ["2", "6"]),
    ],
)
def test_a_row_is_where_it_starts(name: str, text: str, lines: list[str], tmp_path: Path) -> None:
    rows = load_rows(written(tmp_path, name, text))
    assert [row.where.rpartition(f"{name}:")[2] for row in rows] == lines


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '[\n {"prompt": "q", "completion": "a"},\n {"prompt": }]', "a.json:3: it is not JSON"),
        (
            "a.json",
            '[\n {"prompt": "q", "completion": "a"}\n {"prompt": "q", "completion": "a"}]',
            "a.json:3: it is not",
        ),
        ("a.json", '[{"prompt": "q", "completion": "a"},\n]', "a.json:2: it is not JSON"),
        ("a.json", '[{"prompt": "q", "completion": "a"}\n', "a.json:2: it is not JSON"),
        ("a.json", '{"data": [{"prompt": "q", "completion": "a"}, 3]}', r"a.json:1 \(row 2\): it is not a JSON object"),
        ("a.json", '{"data": [], "train": []}', 'a.json:1: the object has the lists "data", "train"'),
        ("a.json", '{"data": []}', "a.json has no rows"),
        ("a.json", "[]", "a.json has no rows"),
        ("a.json", "", "a.json has no rows"),
        ("a.json", '{\n"prompt": "q"\n', "a.json:3: it is not JSON"),
        ("a.json", '{\n"prompt": "q",\n"completion": "a"\n}\n{"prompt": "q"}', "a.json:5: the keys prompt"),
        ("a.json", '"text"', "a.json:1: it is not a JSON object"),
        ("a.jsonl", '{"prompt": "q", "prompt": "p", "completion": "a"}', 'a.jsonl:1: .*"prompt" is there twice'),
        ("a.json", '[{"prompt": "q",\n "prompt": "p"}]', 'a.json:1: .*"prompt" is there twice'),
        ("a.jsonl", "[" * 100_000, "a.jsonl:1: it is not JSON"),
        ("a.jsonl", '{"prompt": ' + "[" * 100_000, "a.jsonl:1: it is not JSON .*too deeply"),
        ("a.jsonl", '{"prompt": ' + "9" * 5000 + "}", "a.jsonl:1: it is not JSON"),
        ("a.csv", "prompt,completion\nq,a,b\n", "a.csv:2: it has 3 cells and the header 2"),
        ("a.csv", 'prompt,completion\nq,a\n"q\n,a\n', "a.csv:3: it is no CSV"),
        ("a.csv", 'prompt,completion\n"q"x,a\n', "a.csv:2: it is no CSV"),
        ("a.csv", "prompt,prompt\nq,a\n", "a.csv:1: two columns are called 'prompt'"),
        ("a.csv", ",prompt,completion\n0,q,a\n", r'a.csv:2: the keys "" are not known here: .*ignore: \[""\]'),
        ("a.csv", "prompt,completion\n\nq,\n", "a.csv:3: the answer is empty"),
        ("a.csv", "prompt,completion\n", "a.csv has no rows"),
        ("a.csv", b"prompt,completion\nq,\xfc\n", "a.csv:2: it is not UTF-8"),
        ("a.csv", b"\xff\xfeh\0i\0", "a.csv:1: it is not UTF-8"),
        ("a.parquet", b"nothing", "a.parquet is no readable Parquet file"),
        ("a.parquet", b"PAR1nothingPAR1", "a.parquet is no readable Parquet file"),
        ("a.jsonl", b"\x1f\x8b\x08nothing", "a.jsonl is no whole gzip file"),
        ("a.jsonl", gzip.compress(LINES.encode(), mtime=0)[:-9], "a.jsonl is no whole gzip file"),
        ("a.jsonl", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ("a.csv", b"PK\x03\x04rest", "Excel workbook: save it as CSV"),
    ],
)
def test_a_broken_file_is_told_with_its_line(name: str, text: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_rows(written(tmp_path, name, text))
    assert "\n" not in str(caught.value)


def test_cells_of_tables_hold_lists_as_json(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerows([["messages", "tools"], [json.dumps(messages), '[{"name": "f"}]'], [json.dumps(messages), ""]])
    one, two = load_rows(written(tmp_path, "rows.csv", out.getvalue()))
    assert one.messages == two.messages == ({"role": "user", "content": "q"},)
    assert [tool["function"]["name"] for tool in one.tools] == ["f"]
    assert two.tools == ()


def test_a_long_cell_is_read_and_pythons_own_limit_stays(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    assert pairs(written(tmp_path, "rows.csv", f"prompt,completion\n{'q' * 300_000},a\n")) == [("q" * 300_000, "a")]
    assert csv.field_size_limit() == before


def test_what_parquet_fills_up_with_nulls_is_not_there(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    nothing = dict.fromkeys(("tools", "prompt", "completion"))  # so that the table gets these columns
    rows = [
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]} | nothing,
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": [call]}]},
        {"prompt": "q", "completion": "a"},
    ]
    one, two, three = load_rows(parquet(tmp_path / "rows.parquet", rows))
    assert one.messages == ({"role": "user", "content": "q"},)
    assert two.reply == {"role": "assistant", "content": None, "tool_calls": [call]}
    assert (three.answer, three.reply) == ("a", None)


def test_a_bad_row_of_parquet_is_named_with_its_number(tmp_path: Path) -> None:
    path = parquet(tmp_path / "rows.parquet", [*ROWS, {"prompt": "q", "completion": None}])
    with pytest.raises(InputError, match=r"rows.parquet:3: the keys prompt"):
        load_rows(path)


def test_times_and_bytes_of_parquet_are_columns_like_others(tmp_path: Path) -> None:
    extra = {"at": datetime.datetime(2026, 1, 2), "raw": b"\0"}
    with pytest.raises(InputError, match=r"parquet:1: the keys at, raw are not known here: .*ignore: \[at, raw\]"):
        load_rows(parquet(tmp_path / "rows.parquet", [ROWS[0] | extra]))


def test_without_pyarrow_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parquet(tmp_path / "rows.parquet", ROWS)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'edgekit\[data\]'"):
        load_rows(path)


@pytest.mark.parametrize("name", ["rows.csv", "rows.json", "rows.parquet", "rows.jsonl.gz"])
def test_the_digest_covers_every_container(name: str, tmp_path: Path) -> None:
    def digest(rows: list[dict[str, str]]) -> str:
        if name.endswith("parquet"):
            parquet(tmp_path / name, rows)
        elif name.endswith("csv"):
            written(tmp_path, name, "prompt,completion\n" + "".join(f"{r['prompt']},{r['completion']}\n" for r in rows))
        else:
            data = json.dumps(rows).encode()
            written(tmp_path, name, gzip.compress(data, mtime=0) if name.endswith("gz") else data)
        return data_digest([tmp_path / name])

    one = digest([{"prompt": "q", "completion": "a"}])
    assert digest([{"prompt": "q", "completion": "a"}]) == one
    assert digest([{"prompt": "q", "completion": "b"}]) != one


def told_or_name(path: Path) -> str:
    """The error of a file, or the place of its first row."""
    try:
        return load_rows(path)[0].where
    except InputError as error:
        return str(error)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=60), name=st.sampled_from(["a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet", "a.gz"]))
def test_any_bytes_are_rows_or_bad_input(data: bytes, name: str, tmp_path: Path) -> None:
    assert name in told_or_name(written(tmp_path, name, data))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(alphabet='{}[]":,\n\\ abpromptcl0', max_size=60),
    name=st.sampled_from(["a.jsonl", "a.json", "a.csv", "a.tsv"]),
    start=st.sampled_from(["", "[", "{", '[{"prompt": "q", "completion": "a"}', '{"data": [', "prompt,completion\n"]),
)
def test_any_text_is_rows_or_bad_input(text: str, name: str, start: str, tmp_path: Path) -> None:
    assert name in told_or_name(written(tmp_path, name, start + text))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1)), min_size=1, max_size=4), comma=st.booleans())
def test_any_text_survives_a_table(texts: list[tuple[str, str]], comma: bool, tmp_path: Path) -> None:
    texts = [pair for pair in texts if all(text.strip() and text.isprintable() for text in pair)]
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter="," if comma else "\t", quoting=csv.QUOTE_ALL)
    writer.writerows([("prompt", "completion"), *texts])
    path = written(tmp_path, "rows.csv" if comma else "rows.tsv", out.getvalue())
    if texts:
        assert pairs(path) == texts
