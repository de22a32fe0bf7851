"""What was asked for is refused before anything slow is imported."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

MakeProject = Callable[..., Path]
SLOW = ("torch", "transformers", "peft", "llama_cpp", "onnxruntime", "matplotlib", "scipy")
# Runs one command, and tells on stdout which slow packages it has imported.
SCRIPT = f"""
import sys
from edgekit.cli import main
code = main(sys.argv[1:])
print(*[name for name in {SLOW!r} if name in sys.modules])
sys.exit(code)
"""


def refused(folder: Path, *words: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *words], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout.strip() == "", f"{words} has imported {done.stdout}"
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: ")
    return done.returncode, done.stderr


@pytest.fixture
def trained(tiny_project: MakeProject, random_lora: Callable[[Path], None]) -> Path:
    folder = tiny_project()
    random_lora(folder / "adapters" / "small")
    return folder


CASES: list[tuple[list[str], int, str]] = [
    (["export", "--quantize", "Q4_O"], 2, "did you mean Q4_0?"),
    (["train", "--set", "rnak=8"], 2, "--set rnak: unknown key: did you mean rank?"),
    (["export", "--format", "ggfu"], 2, "did you mean gguf?"),
    (["export", "--format", "onnx", "--quantize", "int3"], 2, "did you mean int"),
    (["export", "--mode", "mergd"], 2, "did you mean merged?"),
    (["export", "--device", "raspbery-pi-5"], 2, "did you mean raspberry-pi-5?"),
    (["export", "--tensor-type", "ffn_down=Q6K"], 2, "did you mean Q6_K?"),
    (["export", "--tensor-type", "ffn_down"], 2, "needs REGEX=TYPE"),
    (["export", "--tensor-type", "(=Q6_K"], 2, "no regular expression"),
    (["export", "--refit-rank", "0"], 2, "use at least 1"),
    (["export", "--max-mb", "nan", "--quantize", "auto"], 2, "use more than 0"),
    (["export", "--max-mb", "5"], 2, "add --quantize auto"),
    (["export", "--min-decode-tps", "5"], 2, "add --quantize auto"),
    (["export", "--accept-loss", " "], 2, "say why"),
    (["export", "--python", "3.11"], 2, "add --offline"),
    (["export", "--offline"], 2, "--device"),
    (["export", "small", "small"], 2, "the adapter small is named twice"),
    (["merge", "small", "small"], 2, "the adapter small is named twice"),
    (["export", "--quantize", "int4"], 2, "int4 is a type of ONNX"),
    (["export", "--project", "nowhere"], 3, "there is no folder nowhere"),
    (["export", "smal"], 3, "did you mean small?"),
    (["export", "--output", "edgekit.yaml"], 3, "choose another output folder"),
    (["export", "--output", "data"], 3, "other content"),
    (["export", "--base", "./nowhere"], 3, "there is no base"),
    (["export", "--base", "smollm2-135"], 3, "did you mean smollm2-135m?"),
    (["train", "smal"], 3, "did you mean small?"),
    (["train", "--base", "edgekit.yaml"], 3, "edgekit.yaml"),
    (["evaluate", "--limit", "0"], 2, "use at least 1"),
    (["evaluate", "--artifact", "nowhere"], 3, "there is no bundle at nowhere"),
    (["evaluate", "--artifact", "data"], 3, "is not a bundle"),
    (["evaluate", "--output", "data"], 3, "it is a folder"),
    (["evaluate", "--output", "edgekit.yaml/x"], 3, "that is a file"),
    (["merge", "--output", "data"], 3, "other content"),
    (["init", "x", "--template", "inspecton"], 2, "did you mean inspection?"),
    (["demo", "data"], 3, "other content"),
    (["bench", "x", "--plot", "x.foo"], 2, "use .png"),
    (["bench", "x", "--output", "data"], 3, "it is a folder"),
    (["exprot"], 2, "did you mean export?"),
]


@pytest.mark.parametrize(("words", "code", "message"), CASES, ids=lambda case: str(case)[:60])
def test_a_wrong_argument_costs_no_imports(trained: Path, words: list[str], code: int, message: str) -> None:
    before = sorted(trained.rglob("*"))
    found, said = refused(trained, *words)
    assert (found, message in said) == (code, True), said
    assert sorted(trained.rglob("*")) == before


@pytest.mark.parametrize("command", [["train"], ["export"], ["evaluate"]])
def test_nor_do_bad_rows(trained: Path, command: list[str]) -> None:
    (trained / "data" / "eval.jsonl").write_text('{"prompt": \n')
    code, said = refused(trained, *command)
    assert code == 3
    assert "eval.jsonl:1" in said


@pytest.mark.parametrize("command", [["export"], ["evaluate"], ["merge"]])
def test_nor_does_an_adapter_that_is_not_trained(tiny_project: MakeProject, command: list[str]) -> None:
    code, said = refused(tiny_project(), *command)
    assert code == 3
    assert "run `edgekit train small` first" in said


def test_nor_does_one_of_two_and_the_trained_one_is_named(trained: Path) -> None:
    text = (trained / "edgekit.yaml").read_text()
    (trained / "edgekit.yaml").write_text(text.replace("adapters:\n", "adapters:\n  other: {}\n"))
    code, said = refused(trained, "export")
    assert code == 3
    assert "run `edgekit train other` first, or export what is there: `edgekit export small`" in said


@pytest.mark.parametrize("command", [["train"], ["plan"]])
@pytest.mark.parametrize("missing", ["tokenizer", "chat template"])
def test_nor_does_a_base_that_lacks_something(
    trained: Path, tiny_chat_base: Path, command: list[str], missing: str
) -> None:
    base = Path(shutil.copytree(tiny_chat_base, trained.parent / "lacking"))
    (base / {"tokenizer": "tokenizer.json", "chat template": "chat_template.jinja"}[missing]).unlink()
    text = (trained / "edgekit.yaml").read_text().replace(str(tiny_chat_base), str(base))
    (trained / "edgekit.yaml").write_text(text.replace("export:\n", "export:\n  device: raspberry-pi-5\n"))
    code, said = refused(trained, *command)
    assert code == 3
    assert f"lacking has no {missing}" in said


@pytest.mark.parametrize("command", [["train"], ["export"], ["evaluate"], ["merge"]])
@pytest.mark.parametrize(
    ("content", "message"), [(None, "can't be read"), ("{% for m in %}", "chat.jinja"), (" ", "is empty")]
)
def test_nor_does_a_chat_template_that_can_not_be_used(
    trained: Path, command: list[str], content: str | None, message: str
) -> None:
    with (trained / "edgekit.yaml").open("a") as stream:
        stream.write("chat_template: chat.jinja\n")
    if content is not None:
        (trained / "chat.jinja").write_text(content)
    code, said = refused(trained, *command)
    assert code == 3
    assert message in said
