"""docs/commands.md is what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.cli.frame import CommandGroup
from edgekit.cli.program import GROUPS, kit
from edgekit.cli.reference import reference

PAGE = Path(__file__).parents[3] / "docs" / "commands.md"


def test_the_page_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")  # whatever terminal it is written on
    assert PAGE.read_text(encoding="utf-8") == reference(kit()), "make docs-commands"


def test_it_has_every_command_under_its_group() -> None:
    sections = PAGE.read_text(encoding="utf-8").split("\n## ")[1:]
    assert [section.splitlines()[0] for section in sections] == list(GROUPS)
    for section, commands in zip(sections, GROUPS.values(), strict=True):
        names = [
            f"{each.name} {inner.name}" if isinstance(each, CommandGroup) else each.name
            for each in commands
            for inner in (each.commands if isinstance(each, CommandGroup) else (each,))
        ]
        assert [line[12:] for line in section.splitlines() if line.startswith("### ")] == names
