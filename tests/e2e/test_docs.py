"""What the docs tell readers to type works."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from edgekit.cli import program as kit
from edgekit.cli.frame import CommandGroup
from edgekit_runtime.cli import program as runtime

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), ROOT / "runtime" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
PROGRAMS = {"edgekit": kit.main, "edgekit-runtime": runtime.main}
GROUPS = [[each.name] for commands in kit.GROUPS.values() for each in commands if isinstance(each, CommandGroup)]


def _commands(page: Path) -> list[str]:
    return [line for block in BLOCK.findall(page.read_text()) for line in block.splitlines() if line.strip()]


def _anchors(page: Path) -> set[str]:
    """As hosts of repositories and our docs site name headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_name_options_that_exist(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` after a command's own words is parsed last: an unknown word or option would fail before it."""
    for line in _commands(page):
        words = shlex.split(line, comments=True)
        if words and words[0] in PROGRAMS:
            options = [word for word in words[2:] if word.startswith("--")]
            command = words[1:3] if words[1:2] in GROUPS else words[1:2]
            assert PROGRAMS[words[0]]([*command, "--help"]) == 0, line
            known = capsys.readouterr().out
            assert all(option in known for option in options), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text()):
        there = page.parent / target if target else page
        assert there.exists(), f"{page.name} -> {target}"
        assert not anchor or anchor in _anchors(there), f"{page.name} -> {target}#{anchor}"


@pytest.mark.model
def test_the_quickstart_runs_as_it_is_written(tmp_path: Path, environment: dict[str, str], demo_base: object) -> None:
    """Word for word, but with two training steps, few rows to train on and one to ask.

    That it runs is tested here, not what is learned.  So the gate doesn't ask whether the adapters are good.
    """
    commands = _commands(ROOT / "docs" / "quickstart.md")
    assert commands[0] == "edgekit init line-3"
    shorten = r"""
        sed -i 's/max_steps: null/max_steps: 2/; s/batch_size: 4/batch_size: 2/' edgekit.yaml
        sed -i '9,$d' data/*.train.jsonl; sed -i '2,$d' data/*.eval.jsonl
        echo 'gate: {rows: 1, min_gain: -100}' >> edgekit.yaml
    """
    script = [commands[0], commands[1], shorten, *commands[2:]]
    text = (
        "\n".join(script)
        .replace("--limit 40", "--limit 1")
        .replace("bench dist/line-3", "bench dist/line-3 --repeats 1 --prompt-tokens 16 --decode-tokens 4 --threads 1")
    )
    run = subprocess.run(
        ["bash", "-euc", text],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    manifest = json.loads((tmp_path / "line-3" / "dist" / "line-3" / "manifest.json").read_text())
    assert [adapter["name"] for adapter in manifest["adapters"]] == ["inspection", "monitoring"]
    assert manifest["base"]["quantization"] == "Q4_0"
    assert "decode tok/s" in run.stdout
