"""Wrong usage is one line on stderr that says how to mend it, and exit code 2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.cli.program import main

CASES: list[tuple[list[str], str]] = [
    (["exprot"], "there is no command 'exprot': did you mean export?"),
    (["Train"], "there is no command 'Train': did you mean train?"),
    (["xyz"], "there is no command 'xyz': use one of init, demo, schema, data, train"),
    (["--json", "export"], "edgekit has no option --json: put options after the command; see `edgekit --help`"),
    (["--versoin"], "edgekit has no option --versoin: did you mean --version?"),
    (["export", "--quantise", "Q4_0"], "edgekit export has no option --quantise: did you mean --quantize?"),
    (["export", "--quantise=Q4_0"], "did you mean --quantize?"),
    (["export", "--accept_loss", "x"], "did you mean --accept-loss?"),
    (["export", "--xyz"], "edgekit export has no option --xyz: see `edgekit export --help`"),
    (["export", "-x"], "edgekit export has no option -x: see `edgekit export --help`"),
    (["export", "--o", "x"], "--o may be --offline or --output: spell it out"),
    (["export", "--quantize"], "argument --quantize: expected one argument: see `edgekit export --help`"),
    (["export", "--quantize", "--json"], "argument --quantize: expected one argument: see `edgekit export --help`"),
    (["export", "--offline=yes"], "--offline takes no value, but 'yes' is given: see `edgekit export --help`"),
    (["export", "--mode", "mergd"], "there is no --mode 'mergd': use one of separate, merged; did you mean merged?"),
    (["devices", "lst"], "there is no action 'lst': use one of list, show, detect; did you mean list?"),
    (["sign"], "the following arguments are required: WHAT: see `edgekit sign --help`"),
    (["sign", "x"], "the following arguments are required: --key: see `edgekit sign --help`"),
    (["deploy", "x"], "the following arguments are required: --target: see `edgekit deploy --help`"),
    (["keygen", "a", "b"], "'b' is one argument too many: see `edgekit keygen --help`"),
    (
        ["evaluate", "--limit", "0"],
        "argument --limit: 0 is not possible, use at least 1: see `edgekit evaluate --help`",
    ),
    (["evaluate", "--limit", "x"], "argument --limit: 'x' is not a whole number: see `edgekit evaluate --help`"),
    (
        ["plan", "--device", "x", "--min-decode-tps", "-1"],
        "argument --min-decode-tps: -1 is not possible, use at least",
    ),
    (["serve-site", "x", "--port", "70000"], "argument --port: 70000 is not possible, use 0 to 65535"),
    (["serve-site", "x", "--json"], "serve-site prints no document: leave --json out"),
    (["bench", "a", "b"], "bench takes one bundle"),
    (["export", "--wrong", "--help"], "edgekit export has no option --wrong"),
]


@pytest.mark.parametrize(("words", "message"), CASES, ids=lambda case: str(case)[:50])
def test_it_is_one_line_and_exit_2(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert message in said.err
    assert said.err.count("\n") == 1


def test_an_option_may_be_shortened_as_far_as_it_is_the_only_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "show", "raspberry-pi-5", "--js"]) == 0
    short = capsys.readouterr().out
    assert main(["devices", "show", "raspberry-pi-5", "--json"]) == 0
    assert short == capsys.readouterr().out


def test_what_follows_two_dashes_is_no_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["keygen", "--json", "--", "--odd"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"--odd", "--odd.pub"}


@pytest.mark.parametrize(
    ("words", "code"), [(["verify", "nowhere"], 3), (["plan", "--device", "xyz"], 2), (["init", "."], 3)]
)
def test_debug_shows_where_it_came_from(words: list[str], code: int, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("")
    runs = [
        subprocess.run(
            [sys.executable, "-m", "edgekit", *words, *more], cwd=tmp_path, capture_output=True, text=True, timeout=300
        )
        for more in ([], ["--debug"])
    ]
    quiet, debug = runs
    assert [run.returncode for run in runs] == [code, code]
    assert quiet.stderr.count("\n") == 1
    assert debug.stderr.startswith("Traceback (most recent call last):\n") or "\nTraceback (most" in debug.stderr
    assert debug.stderr.endswith(quiet.stderr)
    assert "│" not in debug.stderr
