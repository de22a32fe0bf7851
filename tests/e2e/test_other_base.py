"""Devices hold a base already: an adapter is trained, exported and tried for that very file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit.bases.quantized import dequantized_state
from edgekit.bases.resolve import resolve_base
from edgekit.bases.weights import Weights, with_blocks
from edgekit.cli import main
from edgekit.project import load_project
from edgekit_exporters.gguf.base import base_gguf, gguf_from_folder
from edgekit_runtime.formats.bundle import file_digest


@pytest.fixture(scope="module")
def held(tiny_chat_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF from anywhere: it carries no family."""
    file = tmp_path_factory.mktemp("held") / "held.gguf"
    gguf_from_folder(tiny_chat_base, file, "Q8_0")
    return file


def test_an_adapter_is_trained_on_the_blocks_of_the_file_that_devices_hold(
    tiny_project: Callable[..., Path], held: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_project(base_precision="gguf")
    project = ["--project", str(folder)]
    assert main(["train", "small", "--base", str(held), *project]) == 0
    record = json.loads((folder / "adapters" / "small" / "run.json").read_text())
    assert (record["base_precision"], record["quantization"]) == ("gguf", "Q8_0")

    assert main(["export", *project]) == 3  # over the project's own base
    assert f"give {held.name} with --base" in capsys.readouterr().err

    assert main(["export", "--base", str(held), *project]) == 0
    manifest: dict[str, Any] = json.loads((folder / "dist" / "line-3" / "manifest.json").read_text())
    assert manifest["quality"]["gate"] == "passed"
    assert manifest["base"]["family"] == record["family"]
    assert _weights(folder / "dist" / "line-3" / "base" / "model.gguf", held) == _weights(held, held)


def test_an_adapter_is_tried_on_any_other_gguf(
    tiny_project: Callable[..., Path],
    random_lora: Callable[[Path], None],
    tiny_chat_base: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tiny_project()
    random_lora(folder / "adapters" / "small")
    other = tmp_path / "other.gguf"
    shutil.copyfile(base_gguf(resolve_base(str(tiny_chat_base)), "Q4_0"), other)
    command = ["evaluate", "small", "--artifact", str(other), "--no-base", "--json", "--project", str(folder)]
    assert main(command) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["engine"], result["runs_on"], result["rows"]) == ("llama.cpp", "Q4_0", 4)


def _weights(file: Path, like: Path) -> dict[str, list[float]]:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(resolve_base(str(like)).folder)
    return {name: tensor.flatten()[:64].tolist() for name, tensor in dequantized_state(file, config).items()}


def test_training_sees_the_blocks_that_imatrix_and_tensor_types_make(
    tiny_project: Callable[..., Path], tiny_chat_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_project(
        base_precision="gguf", export={"quantize": "Q4_0", "imatrix": True, "tensor_types": {"ffn_down": "Q8_0"}}
    )
    project = ["--project", str(folder)]
    assert main(["train", *project]) == 0
    assert main(["export", *project]) == 0
    manifest = json.loads((folder / "dist" / "line-3" / "manifest.json").read_text())
    assert manifest["quality"]["gate"] == "passed"
    record = json.loads((folder / "adapters" / "small" / "run.json").read_text())
    base = resolve_base(str(tiny_chat_base))
    made = with_blocks(load_project(folder), base, Weights("gguf", "Q4_0")).blocks
    assert made is not None
    assert record["blocks"] == file_digest(made)
    assert _weights(folder / "dist" / "line-3" / "base" / "model.gguf", tiny_chat_base) == _weights(
        made, tiny_chat_base
    )

    assert main(["export", "--tensor-type", "ffn_up=Q8_0", *project]) == 3
    assert "was trained on other blocks" in capsys.readouterr().err
