"""The commands as a user runs them: processes of their own, in a folder of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Result = subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The commands of this installation first on the path."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "120"}


@pytest.fixture
def random_lora(tiny_chat_base: Path) -> Callable[[Path], None]:
    """Write a PEFT folder for the tiny base, as training would."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    def write(folder: Path) -> None:
        torch.manual_seed(0)
        config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_chat_base, dtype=torch.float32), config)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        model.save_pretrained(str(folder), save_embedding_layers=False)

    return write


@pytest.fixture
def tiny_base_file(tiny_chat_base: Path) -> Callable[[], Path]:
    """Where the tiny base's F16 GGUF is kept."""
    from edgekit.bases import resolve_base
    from edgekit_exporters.gguf_base import base_gguf

    return lambda: base_gguf(resolve_base(str(tiny_chat_base)), "F16")


@pytest.fixture
def edgekit(environment: dict[str, str]) -> Callable[..., Result]:
    """Run ``edgekit ARGUMENTS``."""

    def run(*arguments: object, cwd: Path | None = None) -> Result:
        command = [sys.executable, "-m", "edgekit", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=600)

    return run
