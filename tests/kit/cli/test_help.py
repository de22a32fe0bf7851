"""What --help shows."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest

from edgekit.cli.frame import CommandGroup
from edgekit.cli.program import GROUPS, kit, main

NAMES = [command.name for commands in GROUPS.values() for command in commands]
INNER = {
    each.name: [f"{each.name} {command.name}" for command in each.commands]
    for commands in GROUPS.values()
    for each in commands
    if isinstance(each, CommandGroup)
}
LEAVES = [leaf for name in NAMES for leaf in INNER.get(name, [name])]
HEAVY = (
    *("torch", "transformers", "peft", "accelerate", "numpy", "huggingface_hub", "tqdm", "matplotlib", "ruamel"),
    *("rich", "llama_cpp", "onnxruntime", "jinja2", "cryptography", "edgekit.project", "edgekit_exporters"),
)


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(words) == 0
    said = capsys.readouterr()
    assert said.err == ""
    return said.out


def test_commands_are_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "--help")
    headings = re.findall(r"^(\S.*):$", text, re.MULTILINE)
    assert headings == ["Start", "Train", "Prove and ship", "Devices", "Fleet", "Phone", "Options"]
    assert re.findall(r"^  ([a-z][a-z-]*)  ", text, re.MULTILINE) == NAMES
    for commands in GROUPS.values():
        for command in commands:
            assert " ".join(command.summary.split()) in " ".join(text.split())


def test_edgekit_alone_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys) == shown(capsys, "--help") == shown(capsys, "-h")


@pytest.mark.parametrize("name", INNER)
def test_a_group_shows_its_commands_with_and_without_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, name)
    assert text == shown(capsys, name, "--help")
    assert [f"{name} {each}" for each in re.findall(r"^  ([a-z][a-z-]*)  ", text, re.MULTILINE)] == INNER[name]


@pytest.mark.parametrize("name", LEAVES)
def test_each_command_has_an_example_that_its_options_allow(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, *name.split(), "--help")
    examples = re.findall(rf"^  (edgekit {name}\b.*)$", text.partition("Example")[2], re.MULTILINE)
    assert examples
    for example in examples:
        assert shown(capsys, *shlex.split(example)[1:], "--help") == text


@pytest.mark.parametrize("name", LEAVES)
def test_each_argument_and_option_says_what_it_is(name: str) -> None:
    command = kit()
    context = command.make_context("edgekit", [], resilient_parsing=True)
    for word in name.split():
        command = command.get_command(context, word)
    for param in command.params:
        assert param.help, param.name
        assert getattr(param, "is_flag", False) or param.metavar, param.name


@pytest.mark.parametrize("columns", ["60", "80", "200"])
def test_help_fits_80_columns_and_is_plain(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    for words in ([], *(name.split() for name in (*NAMES, *LEAVES))):
        text, _, examples = shown(capsys, *words, "--help").partition("Example")
        assert max(map(len, text.splitlines())) <= min(int(columns), 80)
        assert not set(text + examples) & set("\x1b╭│╰─")


@pytest.mark.parametrize(
    ("words", "heavy"),
    [
        (["--help"], (*HEAVY, "pydantic")),  # typer reads values with it
        ([], (*HEAVY, "pydantic")),
        (["export", "--help"], HEAVY),
        (["exprot"], HEAVY),
        (["export", "--mode"], HEAVY),
        (["data"], HEAVY),
        (["data", "generate", "--help"], (*HEAVY, "openai", "datasketch", "phonenumbers", "edgekit.curation")),
    ],
)
def test_help_imports_nothing_slow(words: list[str], heavy: tuple[str, ...]) -> None:
    script = f"""
import sys
from edgekit.cli import main
main({words!r})
print("IMPORTED", *[name for name in {heavy!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.splitlines()[-1] == "IMPORTED"


def test_the_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    assert shown(capsys, "--version") == f"edgekit {version('edgekit')}\n"
