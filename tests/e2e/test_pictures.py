"""The pictures of the docs: what a recording becomes, and what stands in README.md."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pictures import COLUMNS, ROWS, TABLE_ENDS, TABLE_STARTS, Line, draw, record, with_table

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"


def _texts(svg: str) -> list[str]:
    return [each.text or "" for each in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_a_recording_shows_every_line_as_it_was_printed_and_breaks_long_ones() -> None:
    lines = [Line(0.1, "== 1. <a> & b"), Line(60.0, ""), Line(60.0, "x" * (COLUMNS + 3))]
    assert _texts(draw("make demo", lines)) == ["$ make demo", "== 1. <a> & b", "x" * COLUMNS, "xxx"]


def test_waits_are_cut_short_and_the_end_stands_still_without_animation() -> None:
    svg = draw("make demo", [Line(600.0 * number, f"line {number}") for number in range(ROWS + 5)])
    (length,) = {float(each) for each in re.findall(r"infinite|animation: \w+ ([\d.]+)s", svg) if each}
    assert length < 60
    assert "prefers-reduced-motion" in svg
    (resting,) = re.findall(r"^\.text \{ transform: translateY\((-\d+)px\)", svg, re.MULTILINE)
    last = list(ElementTree.fromstring(svg).iter(f"{SVG}text"))[-1]
    height = float(ElementTree.fromstring(svg).attrib["height"])
    assert 0 < float(last.attrib["y"]) + int(resting) < height


def test_a_recording_names_places_from_the_folder_on(tmp_path: Path) -> None:
    code = "import os; print(os.path.join(os.getcwd(), 'dist')); print('done')"
    lines = record([sys.executable, "-c", code], tmp_path)
    assert [line.text for line in lines] == ["dist", "done"]
    assert lines[0].at <= lines[1].at


def test_a_failed_run_draws_nothing(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="ended with 3"):
        record([sys.executable, "-c", "raise SystemExit(3)"], tmp_path)


def test_a_page_without_a_place_for_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="no place for the table"):
        with_table(f"# Benchmarks\n{TABLE_STARTS}", {})


def test_the_benchmark_page_has_one_place_for_the_table() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    assert page.count(TABLE_STARTS) == page.count(TABLE_ENDS) == 1


def test_the_recording_in_the_readme_is_of_a_whole_demo() -> None:
    assert "](docs/demo.svg)" in (ROOT / "README.md").read_text()
    texts = "\n".join(_texts((ROOT / "docs" / "demo.svg").read_text()))
    assert "$ make demo" in texts
    assert "== Done in" in texts
