from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit.data import data_digest, load_rows
from edgekit_runtime.errors import InputError


def write(folder: Path, *lines: Any) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def test_three_shapes_of_rows_become_messages_and_an_answer(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    rows = load_rows(
        write(
            tmp_path,
            {"messages": chat},
            "",
            {"prompt": "q", "completion": "a"},
            {"instruction": "do", "input": "this", "output": "a"},
            {"instruction": "do", "output": "a"},
        )
    )
    assert [row.answer for row in rows] == ["a"] * 4
    assert [message["role"] for message in rows[0].messages] == ["system", "user"]
    assert [row.messages[-1]["content"] for row in rows] == ["q", "q", "do\n\nthis", "do"]
    assert rows[1].where.endswith("rows.jsonl:3")


def test_an_image_is_found_beside_the_rows(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/1.png").write_bytes(b"")
    one, two = load_rows(
        write(
            tmp_path,
            {"prompt": "q", "completion": "a", "image": "pictures/1.png"},
            {"prompt": "q", "completion": "a", "image": ["pictures/1.png"] * 2},
        )
    )
    assert one.images == (tmp_path / "pictures/1.png",)
    assert len(two.images) == 2


def test_a_missing_image_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"rows.jsonl:1: there is no image .*1.png"):
        load_rows(write(tmp_path, {"prompt": "q", "completion": "a", "image": "1.png"}))


def test_places_of_images_have_to_match_them(tmp_path: Path) -> None:
    content = [{"type": "image"}, {"type": "text", "text": "same?"}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "no"}]
    with pytest.raises(InputError, match="speak of 1 images and 0 came along"):
        load_rows(write(tmp_path, {"messages": messages}))


GOOD = {"prompt": "q", "completion": "a"}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{not json", "rows.jsonl:2: it is not JSON"),
        ("[1]", "rows.jsonl:2: it is not a JSON object"),
        ({"prompt": "q"}, "rows.jsonl:2: the keys prompt are no known kind"),
        ({"prompt": "q", "completion": "a", "extra": 1}, "rows.jsonl:2: the keys"),
        ({"prompt": "q", "completion": "  "}, "rows.jsonl:2: the answer is empty"),
        ({"prompt": "", "completion": "a"}, "rows.jsonl:2: prompt is empty"),
        ({"prompt": 3, "completion": "a"}, "rows.jsonl:2: prompt has to be text"),
        ({"messages": []}, "rows.jsonl:2: there are no messages"),
        ({"messages": [{"role": "user", "content": "q"}]}, "rows.jsonl:2: the last message is not an answer"),
        (
            {"messages": [{"role": "robot", "content": "q"}]},
            "rows.jsonl:2: message 1 has the role 'robot', which is not known",
        ),
        ({"prompt": "q", "completion": "a", "image": 3}, "rows.jsonl:2: image"),
    ],
)
def test_a_bad_row_is_named_with_file_and_line(bad: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        load_rows(write(tmp_path, GOOD, bad, GOOD))


def test_missing_empty_and_wrongly_encoded_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no data file"):
        load_rows(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="has no rows"):
        load_rows(write(tmp_path, "", "  "))
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "q", "completion": "a"}\n{"prompt": "\xfc"}')
    with pytest.raises(InputError, match="latin.jsonl:2: it is not UTF-8"):
        load_rows(tmp_path / "latin.jsonl")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompt=st.text(min_size=1), answer=st.text(min_size=1))
def test_any_text_survives(prompt: str, answer: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": prompt, "completion": answer}, ensure_ascii=True))
    try:
        (row,) = load_rows(path)
    except InputError:
        assert not prompt.strip() or not answer.strip()
        return
    assert (row.messages[0]["content"], row.answer) == (prompt, answer)


def test_the_digest_tells_contents_apart(tmp_path: Path) -> None:
    one = write(tmp_path, GOOD)
    before = data_digest([one])
    assert data_digest([one]) == before
    write(tmp_path, GOOD, GOOD)
    assert data_digest([one]) != before


def test_a_byte_order_mark_in_front_is_no_part_of_the_first_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "q", "completion": "a"}\r\n')
    assert load_rows(path)[0].answer == "a"


@pytest.mark.parametrize(("prompt", "completion"), [("q\ud800", "a"), ("q", "a\udfff")])
def test_half_a_character_is_told_with_its_line(prompt: str, completion: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"rows.jsonl:1: .*half a character"):
        load_rows(write(tmp_path, {"prompt": prompt, "completion": completion}))


def test_an_image_with_an_endless_name_is_a_missing_image(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"rows.jsonl:1: there is no image"):
        load_rows(write(tmp_path, {"prompt": "q", "completion": "a", "image": "a" * 5000}))
