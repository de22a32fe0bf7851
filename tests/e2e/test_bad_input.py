"""Wrong input: exit 3 (2 for wrong usage), one line that says what to do, and nothing half-written."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.cli import main

MakeProject = Callable[..., Path]
Break = Callable[[Path], None]


def _write(name: str, text: str) -> Break:
    return lambda folder: (folder / name).write_text(text) and None


def _edit(old: str, new: str) -> Break:
    def edit(folder: Path) -> None:
        file = folder / "edgekit.yaml"
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    return edit


def _base(name: str, content: bytes) -> Break:
    def change(folder: Path) -> None:
        (folder / name).write_bytes(content)
        lines = (folder / "edgekit.yaml").read_text().splitlines()
        lines = [f"base: {name}" if line.startswith("base:") else line for line in lines if not line.startswith("  /")]
        (folder / "edgekit.yaml").write_text("\n".join(lines) + "\n")

    return change


CASES: dict[str, tuple[Break, list[str], int, str]] = {
    "a row that is not JSON": (
        _write("data/train.jsonl", '{"prompt": \n'),
        ["train"],
        3,
        "train.jsonl:1: it is not JSON",
    ),
    "a row of unknown shape": (_write("data/train.jsonl", '{"question": "?"}\n'), ["train"], 3, "train.jsonl:1"),
    "no rows": (_write("data/eval.jsonl", "\n"), ["train"], 3, "eval.jsonl has no rows"),
    "an unknown key": (_edit("rank:", "rnak:"), ["train"], 3, "did you mean rank?"),
    "a value out of range": (_edit("rank: 4", "rank: 0"), ["train"], 3, "use at least 1"),
    "a base that is text": (_base("notes.gguf", b"this is no model"), ["train"], 3, "notes.gguf"),
    "a truncated base": (_base("cut.gguf", b"GGUF\x03\0\0\0" + b"\x01" * 20), ["train"], 3, "cut.gguf"),
    "an unknown adapter": (_edit("rank: 4", "rank: 4"), ["train", "nobody"], 3, "it has small"),
    "export before training": (_edit("rank: 4", "rank: 4"), ["export"], 3, "run `edgekit train small` first"),
    "an unknown quantisation": (_edit("rank: 4", "rank: 4"), ["export", "--quantize", "Q9"], 2, "Q9"),
    "an unknown device": (_edit("rank: 4", "rank: 4"), ["export", "--device", "toaster"], 2, "toaster"),
    "a base folder that isn't there": (
        _edit("base:", "base: ./nowhere #"),
        ["train"],
        3,
        "there is no base './nowhere'",
    ),
    "an ONNX type that isn't one": (
        _edit("quantize: F16", "format: onnx\n  quantize: int3"),
        ["export"],
        2,
        "use one of fp32, fp16, int8, int4",
    ),
    "merging before training": (_edit("rank: 4", "rank: 4"), ["merge"], 3, "run `edgekit train small` first"),
    "no rows to evaluate": (_edit("rank: 4", "rank: 4"), ["evaluate", "--limit", "0"], 2, "use at least 1"),
    "a plot of no kind": (_edit("rank: 4", "rank: 4"), ["bench", "b", "--plot", "x.foo"], 2, "use .png"),
    "an unknown option": (_edit("rank: 4", "rank: 4"), ["export", "--fast"], 2, "--fast"),
}


@pytest.mark.parametrize(("damage", "command", "code", "words"), CASES.values(), ids=CASES)
def test_wrong_input_is_one_clear_line(
    tiny_project: MakeProject,
    capsys: pytest.CaptureFixture[str],
    damage: Break,
    command: list[str],
    code: int,
    words: str,
) -> None:
    folder = tiny_project()
    damage(folder)
    before = sorted(folder.rglob("*"))
    project = [] if "--fast" in command or command[0] == "bench" else ["--project", str(folder)]
    assert main([*command, *project]) == code
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: ")
    assert words in message
    assert sorted(folder.rglob("*")) == before


@pytest.fixture
def trained(tiny_project: MakeProject, random_lora: Callable[[Path], None]) -> Path:
    """A project whose adapter is there, without the time that training takes."""
    folder = tiny_project()
    random_lora(folder / "adapters" / "small")
    return folder


def test_an_output_with_other_content_is_left_alone(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = trained / "photos"
    other.mkdir()
    (other / "cat.jpg").write_bytes(b"cat")
    assert main(["export", "--project", str(trained), "--output", str(other)]) == 3
    assert "exists with other content" in capsys.readouterr().err
    assert [file.name for file in other.iterdir()] == ["cat.jpg"]


def test_a_default_adapter_that_is_not_exported_is_told_before_the_proof(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _edit("quantize: F16", "quantize: F16\n  default_adapter: nobody")(trained)
    assert main(["export", "--project", str(trained)]) == 3
    said = capsys.readouterr().err
    assert "default_adapter nobody is not among the exported adapters" in said
    assert "asking" not in said


@pytest.mark.parametrize("place", ["notes/project", "notes/deep/project"])
def test_a_place_that_cannot_be_a_folder_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    (tmp_path / "notes").write_text("a file")
    assert main(["init", str(tmp_path / place)]) == 3
    assert "no folder can be made in" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_what_init_says_next_can_be_pasted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(tmp_path / "line 3")]) == 0
    assert f"cd '{tmp_path / 'line 3'}' && edgekit train" in capsys.readouterr().out


def test_training_where_all_was_trained_elsewhere_says_so(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _edit("rank: 4", "path: adapters/small")(trained)
    for line in ("max_steps: 3", "batch_size: 4", "base_precision: fp32"):
        _edit(f"    {line}\n", "")(trained)
    assert main(["train", "--project", str(trained)]) == 2
    assert "go on with `edgekit export`" in capsys.readouterr().err


def test_a_full_disk_leaves_the_earlier_bundle(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["export", "--project", str(trained)]) == 0
    bundle = trained / "dist" / "line-3"
    before = (bundle / "manifest.json").read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    assert main(["export", "--project", str(trained)]) == 3
    assert "the disk is full" in capsys.readouterr().err
    assert (bundle / "manifest.json").read_bytes() == before
    assert [path.name for path in bundle.parent.iterdir()] == ["line-3"]


def test_an_adapter_of_another_base_is_refused(
    trained: Path, demo_base: object, capsys: pytest.CaptureFixture[str]
) -> None:
    file = trained / "edgekit.yaml"
    lines = [line for line in file.read_text().splitlines() if not line.startswith(("base:", "  /"))]
    file.write_text("\n".join(["base: smollm2-135m", *lines]) + "\n")
    assert main(["export", "--project", str(trained)]) == 3
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: ")
    assert list(trained.glob("dist/*")) == []


def test_json_is_one_document_on_stdout(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--project", str(trained), "--json"]) == 0
    assert {"bundle", "version", "files"} <= set(json.loads(capsys.readouterr().out))


def test_one_adapter_exported_again_leaves_the_base(trained: Path, tiny_base_file: Callable[[], Path]) -> None:
    assert main(["export", "--project", str(trained)]) == 0
    made = tiny_base_file().stat().st_mtime_ns
    (trained / "adapters" / "small" / "adapter_config.json").touch()
    assert main(["export", "--project", str(trained)]) == 0
    assert tiny_base_file().stat().st_mtime_ns == made


def test_a_merged_bundle_has_the_adapters_prompt_and_tokenizer(
    trained: Path, tiny_base_file: Callable[[], Path]
) -> None:
    from edgekit_runtime.formats.gguf import read_gguf

    file = trained / "edgekit.yaml"
    file.write_text(file.read_text().replace("rank: 4", "rank: 4\n    system: You inspect parts."))
    assert main(["export", "--project", str(trained), "--mode", "merged"]) == 0
    bundle = trained / "dist" / "line-3"
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["base"]["merged"] == ["small"]
    assert manifest["base"]["system"] == "You inspect parts."
    assert manifest["adapters"] == []
    assert main(["export", "--project", str(trained), "--mode", "separate"]) == 0
    merged, plain = read_gguf(bundle / "base/model.gguf").metadata, read_gguf(tiny_base_file()).metadata
    assert merged["tokenizer.chat_template"] == plain["tokenizer.chat_template"]
    assert merged["tokenizer.ggml.tokens"] == plain["tokenizer.ggml.tokens"]
