"""`edgekit-runtime` as a user runs it: what is on stdout, what on stderr, which exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgekit_runtime.bench import compare, read_bench, table
from edgekit_runtime.cli.parser import from_here


def run(*arguments: object, given: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "import sys; from edgekit_runtime.cli import main; sys.exit(main())"]
    return subprocess.run(
        [*command, *map(str, arguments)], input=given, capture_output=True, text=True, timeout=300, check=False
    )


def test_the_answer_alone_is_on_stdout(demo_bundle: Path) -> None:
    done = run("run", demo_bundle, "--prompt", "Say hi.", "--max-tokens", 8, "--adapter", "base")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.strip()) > 0
    assert run("run", demo_bundle, "--max-tokens", 8, given="Say hi.\n").stdout == done.stdout
    assert run("run", demo_bundle, "--prompt", "Say hi.", "--max-tokens", 8, "--stream").stdout == done.stdout


def test_json_is_one_document_with_the_fields_of_a_generation(demo_bundle: Path) -> None:
    done = run("run", demo_bundle, "--adapter", "one", "--prompt", "Say hi.", "--max-tokens", 8, "--json")
    document = json.loads(done.stdout)
    assert set(document) == {"text", "adapter", "finish_reason", "usage", "timings"}
    assert document["adapter"] == "one"
    assert document["usage"]["completion_tokens"] <= 8


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run"], 2, "BUNDLE|bundle"),
        (["run", "nowhere", "--prompt", "x"], 3, "there is no bundle at nowhere"),
        (["run", ".", "--prompt", "x", "--wrong"], 2, "--wrong"),
        (["run", ".", "--prompt", "x", "--json", "--stream"], 2, "exclude each other"),
        (["run", ".", "--prompt", "  "], 3, "the prompt is empty"),
        (["run", ".", "--prompt", "x", "--schema", "missing.json"], 3, "missing.json is no readable JSON schema"),
        (["run", ".", "--prompt", "x", "--tools", "missing.json"], 3, "missing.json is no readable list of tools"),
        (["run", ".", "--prompt", "x", "--tool-choice", "auto"], 2, "no tools to choose from"),
        (["bench", "compare", "a.json"], 2, "compare takes two"),
        (["bench", "compare", "a.json", "b.json"], 3, "a.json can't be read"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_errors_are_one_line_with_the_right_code(arguments: list[str], code: int, message: str) -> None:
    import re

    done = run(*arguments, given="")
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert re.search(message, done.stderr)


def test_calls_are_printed_one_a_line_and_stand_in_the_document(demo_bundle: Path, tmp_path: Path) -> None:
    tools = tmp_path / "tools.json"
    parameters = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]}
    tools.write_text(json.dumps([{"type": "function", "function": {"name": "alarm", "parameters": parameters}}]))
    asked = ["run", demo_bundle, "--prompt", "x", "--tools", tools, "--tool-choice", "alarm", "--max-tokens", "60"]
    (line,) = run(*asked).stdout.splitlines()
    function = json.loads(line)
    assert function["name"] == "alarm"
    assert isinstance(function["arguments"]["on"], bool)
    document = json.loads(run(*asked, "--json").stdout)
    assert (document["text"], document["finish_reason"]) == ("", "tool_calls")
    assert [call["function"] for call in document["tool_calls"]] == [function]


@pytest.mark.parametrize("command", ["run", "bench"])
def test_help_shows_an_example(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert "example:\n  edgekit-runtime " + command in done.stdout


def test_an_unknown_adapter_is_answered_with_the_names_that_exist(demo_bundle: Path) -> None:
    done = run("run", demo_bundle, "--adapter", "three", "--prompt", "x")
    assert (done.returncode, done.stdout) == (3, "")
    assert "it has one, two" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(
    "option",
    ["--temperature=-1", "--temperature=nan", "--top-k=-1", "--top-p=2", "--seed=-1", "--threads=0", "--threads=9999"],
)
def test_a_figure_that_means_nothing_is_wrong_usage(demo_bundle: Path, option: str) -> None:
    done = run("run", str(demo_bundle), "--prompt", "x", "--max-tokens", "1", option)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")


def test_ctrl_c_stops_quietly(demo_bundle: Path) -> None:
    command = [sys.executable, "-c", "import sys; from edgekit_runtime.cli import main; sys.exit(main())"]
    arguments = ["run", str(demo_bundle), "--prompt", "Count up for ever.", "--adapter", "base"]
    arguments += ["--max-tokens", "3000", "--stream"]
    process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.read(1)  # it is answering now
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "stopped\n"


def test_sigterm_leaves_no_half_written_folder(tmp_path: Path) -> None:
    script = f"""
import sys, time
from pathlib import Path
from edgekit_runtime.cli.parser import Program
from edgekit_runtime.files.atomic import publish

def work(arguments):
    with publish(Path({str(tmp_path / "result")!r}), is_ours=lambda _: False) as folder:
        (folder / "half").write_text("x")
        print("writing", flush=True)
        time.sleep(60)

program = Program("try", "Try.", "1")
program.command("work", "work", "try work", work)
sys.exit(program.main(["work"]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    process.terminate()
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert process.communicate()[1] == "stopped\n"
    assert list(tmp_path.iterdir()) == []


def test_bench_measures_base_and_adapters_and_compares(demo_bundle: Path, tmp_path: Path) -> None:
    result = tmp_path / "a.json"
    few = ("--repeats", 1, "--prompt-tokens", 16, "--decode-tokens", 4, "--threads", 1)
    done = run("bench", demo_bundle, *few, "--output", result)
    assert done.returncode == 0, done.stderr
    document = read_bench(result)
    assert table(document) + "\n" == done.stdout
    assert [each["adapter"] for each in document["results"]] == ["base", "one", "two"]
    for each in document["results"]:
        assert each["decode_tps"]["median"] > 0
        assert 0 < each["decode_bytes_per_token"] < 200e6
    assert document["results"][1]["switch_ms"]["median"] > 0
    assert document["decode_vs_bare"]["ratio"]["median"] > 0
    same = compare(document, document)
    assert "differences" not in same
    assert "1.00" in same


def test_messages_name_paths_in_this_folder_as_they_would_be_typed_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = tmp_path.resolve()
    for text, told in (
        (f"{here}/a/b.json: r: it is null", "a/b.json: r: it is null"),
        (f"look at '{here}/a b' (report: {here}/x)", "look at 'a b' (report: x)"),
        (f"/mnt{here}/a, {here}, {here}/ and {here}x/a", f"/mnt{here}/a, {here}, {here}/ and {here}x/a"),
    ):
        assert from_here(text) == told
    monkeypatch.chdir("/")
    assert from_here("/etc/x is there") == "/etc/x is there"


def test_the_bare_base_never_answers_in_silence_where_there_are_adapters(demo_bundle: Path) -> None:
    asked = ("run", demo_bundle, "--prompt", "hello", "--max-tokens", 1)
    silent, chosen = run(*asked), run(*asked, "--adapter", "base")
    assert "no adapter is the default here, so the bare base answers; --adapter takes one, two" in silent.stderr
    assert (chosen.stderr, chosen.stdout) == ("", silent.stdout)
