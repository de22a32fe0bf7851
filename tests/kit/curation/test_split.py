"""Rows aside for evaluation."""

from __future__ import annotations

import gzip
import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit.curation.check import Subject, check
from edgekit.curation.split import choose, split_file
from edgekit.data import load_rows
from edgekit_runtime.errors import InputError, UsageError
from tests.kit.curation.rows import pair, write

_NUMERALS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def different(number: int) -> str:
    """A question that is near no other."""
    return " ".join(_NUMERALS[int(digit)] for digit in f"{number:03}") + f" with {number * 7919 % 9973:05}"


@given(
    values=st.lists(st.sampled_from("abc"), min_size=2, max_size=60),
    share=st.floats(0.05, 0.6),
    seed=st.integers(0, 5),
)
def test_each_label_gets_its_share_within_one_row(values: list[str], share: float, seed: int) -> None:
    count = max(1, round(share * len(values)))
    atoms = [[number] for number in range(len(values))]
    chosen = choose(atoms, values, count, seed)
    assert len(chosen) == count
    assert chosen == choose(atoms, values, count, seed)
    theirs, totals = Counter(values[number] for number in chosen), Counter(values)
    for value, total in totals.items():
        assert abs(theirs[value] - total * count / len(values)) < 1


@given(
    sizes=st.lists(st.integers(1, 4), min_size=2, max_size=20),
    labels=st.lists(st.sampled_from("ab"), min_size=80, max_size=80),
    seed=st.integers(0, 3),
)
def test_what_belongs_together_is_never_torn_apart(sizes: list[int], labels: list[str], seed: int) -> None:
    numbers = iter(range(sum(sizes)))
    atoms = [[next(numbers) for _ in range(size)] for size in sizes]
    values = labels[: sum(sizes)]
    count = max(1, len(values) // 3)
    chosen = set(choose(atoms, values, count, seed))
    assert all(chosen.issuperset(atom) or chosen.isdisjoint(atom) for atom in atoms)
    assert len(chosen) <= count


def test_another_seed_chooses_others() -> None:
    atoms, values = [[number] for number in range(50)], ["x"] * 50
    assert choose(atoms, values, 10, 0) != choose(atoms, values, 10, 1)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".json", ".csv", ".tsv", ".parquet"])
def test_both_files_are_of_the_same_kind_and_have_all_rows(suffix: str, tmp_path: Path) -> None:
    rows = [pair(different(n), {"verdict": "scrap" if n % 4 else "accept"}, id=str(n)) for n in range(40)]
    path = tmp_path / f"rows{suffix}"
    if suffix == ".json":
        path.write_text(json.dumps(rows))
    elif suffix in (".csv", ".tsv"):
        import csv

        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t" if suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    elif suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        path.write_bytes(gzip.compress(text.encode()) if suffix.endswith("gz") else text.encode())
    done = split_file(path, 0.2)
    assert (done.train.name, done.eval.name) == (f"rows.train{suffix}", f"rows.eval{suffix}")
    assert done.label == "verdict"
    assert done.counts == {"accept": (8, 2), "scrap": (24, 6)}
    asked = [row.messages[0]["content"] for file in (done.train, done.eval) for row in load_rows(file)]
    assert sorted(asked) == sorted(row["prompt"] for row in rows)
    first = done.train.read_bytes(), done.eval.read_bytes()
    split_file(path, 0.2, force=True)
    assert (done.train.read_bytes(), done.eval.read_bytes()) == first


def test_near_duplicates_and_groups_stay_on_one_side(tmp_path: Path) -> None:
    rows = [pair(different(n), "yes", order=n // 2) for n in range(20)]
    rows += [pair(f"{different(n).upper()}!", "yes", order=100 + n) for n in range(0, 20, 3)]
    path = write(tmp_path / "rows.jsonl", rows)
    done = split_file(path, 0.3, group="order")
    sides = [
        {json.loads(line)["prompt"].lower().strip("!"): json.loads(line)["order"] for line in file.open()}
        for file in (done.train, done.eval)
    ]
    assert not sides[0].keys() & sides[1].keys()
    assert not {order for order in sides[0].values() if order < 100} & {o for o in sides[1].values() if o < 100}
    assert done.together == 27
    assert all(done.rows)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    copies=st.lists(st.sampled_from([str, str.upper, str.title, lambda text: f"{text}!"]), max_size=30),
    share=st.floats(0.1, 0.5),
    seed=st.integers(0, 3),
)
def test_check_finds_no_leak_in_a_split(
    copies: list[Callable[[str], str]], share: float, seed: int, tmp_path: Path
) -> None:
    questions = [different(n) for n in range(20)]
    questions += [copy(questions[n % 7]) for n, copy in enumerate(copies)]
    path = write(tmp_path / "rows.jsonl", [pair(text, "yes") for text in questions])
    done = split_file(path, share, seed=seed, force=True)
    found = check(Subject("rows", [done.train], [done.eval]))
    assert not {"leak", "near-leak"} & set(found.counts)
    assert sum(done.rows) == len(questions)


def test_nothing_is_overwritten_unless_told(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [pair(different(n), "yes") for n in range(10)])
    (tmp_path / "rows.eval.jsonl").write_text("mine")
    with pytest.raises(InputError, match=r"rows\.eval\.jsonl is there already: .*--force"):
        split_file(path, 0.2)
    assert not (tmp_path / "rows.train.jsonl").exists()
    assert (tmp_path / "rows.eval.jsonl").read_text() == "mine"
    split_file(path, 0.2, force=True)
    assert len(load_rows(tmp_path / "rows.eval.jsonl")) == 2


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"share": 0.001}, UsageError, "0 of 10 rows"),
        ({"share": 10}, UsageError, "10 of 10 rows"),
        ({"share": 1.5}, UsageError, "1.5 is neither a share nor a number of rows"),
        ({"share": math.inf}, UsageError, "is neither a share nor a number of rows"),
        ({"by": "verdit"}, InputError, "no row has 'verdit'"),
        ({"group": "order"}, InputError, "there is no 'order' to group by"),
    ],
    ids=["none", "all", "one and a half", "no end", "no field", "no key"],
)
def test_what_can_not_be(given: dict[str, Any], error: type[Exception], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [pair(different(n), "yes") for n in range(10)])
    with pytest.raises(error, match=message):
        split_file(path, **{"share": 0.2, **given})
    assert [each.name for each in tmp_path.iterdir()] == ["rows.jsonl"]


def test_rows_that_are_all_alike_are_not_split(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [pair("the same", "yes") for _ in range(10)])
    with pytest.raises(InputError, match="nearly all rows are near"):
        split_file(path, 0.2)
