"""What `edgekit init` writes, and the rows of its caption template."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekit.cli import main
from edgekit.data import load_rows
from edgekit.examples.init import LONGEST_NAME, TEMPLATES, init_project
from edgekit.project import load_project
from edgekit_runtime.errors import InputError, UsageError


@pytest.mark.parametrize("template", TEMPLATES)
def test_init_writes_a_project_whose_files_load(template: str, tmp_path: Path) -> None:
    project = load_project(init_project(tmp_path / "My Line 3", template))
    assert project.project == "my-line-3"
    for name in project.adapters:
        files = project.data_for(name)
        assert load_rows(files.train)
        assert load_rows(files.eval)
        for row in load_rows(files.eval)[:1]:
            answers_json = row.reply is None and row.answer.startswith("{")
            assert (project.adapters[name].schema is not None) == answers_json


def test_init_leaves_a_folder_with_other_content_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    with pytest.raises(InputError, match="exists with other content"):
        init_project(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_captions_come_with_their_images(tmp_path: Path) -> None:
    project = load_project(init_project(tmp_path / "camera", "caption").parent)
    assert project.task == "caption"
    rows = load_rows(project.data_for("report").eval)
    pixels = {row.images[0].read_bytes() for row in rows}
    assert len(pixels) == len(rows)
    for row in rows:
        fields = json.loads(row.answer)
        assert (fields["defect"] == "none") == (fields["place"] == "none") == (fields["verdict"] == "accept")


def test_unknown_templates_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="use one of inspection"):
        init_project(tmp_path / "x", "poetry")


def test_help_and_docs_name_every_template(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--help"]) == 0
    shown = "".join(capsys.readouterr().out.split())  # names break at their hyphens
    page = (Path(__file__).parents[3] / "docs" / "recipes.md").read_text(encoding="utf-8")
    for template in TEMPLATES:
        assert template in shown
        assert f"| `{template}`" in page


@pytest.mark.parametrize("name", ["0", "no", "null", "1.5", "2026-11-27", "~"])
def test_a_folder_whose_name_is_no_text_in_yaml_becomes_a_project(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    init_project(folder)
    assert load_project(folder).project == (name if name != "~" else "project")


@pytest.mark.parametrize(
    "name", ["häßlich (1)", "日本", "Line 3", "x" * 120], ids=["umlauts", "kanji", "space", "long"]
)
def test_a_folder_of_any_name_becomes_a_project(tmp_path: Path, name: str) -> None:
    init_project(tmp_path / name)
    assert load_project(tmp_path / name).project in ("h--lich--1", "project", "line-3", "x" * LONGEST_NAME)
