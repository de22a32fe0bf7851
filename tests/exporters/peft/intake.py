"""Adapters for the intake's tests: of tiny bases, tied and untied, in every form that tools leave them in."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from edgekit_exporters.base import Base
from edgekit_exporters.hf.plain_files import ADAPTER_CONFIG
from edgekit_exporters.peft.files import WEIGHTS_FILE
from edgekit_exporters.peft.intake import attach, take_in
from tests.exporters.conftest import load

IDS = torch.arange(48).reshape(2, 24) * 2 % 96  # half of the vocabulary, token 2 among them


def save_adapter(base: Base, folder: Path, **options: Any) -> Path:
    """A PEFT folder whose every trained tensor is random."""
    torch.manual_seed(1)
    settings: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"]} | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(load(base), LoraConfig(task_type="CAUSAL_LM", **settings))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.2 * torch.randn_like(parameter)
        model.save_pretrained(str(folder))
    return folder


def own_logits(base: Base, adapter: Path) -> torch.Tensor:
    """What base and adapter answer when the intake attaches it."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return attach(load(base), take_in(adapter, base)).eval()(IDS).logits


def peft_answers(base: Base, adapter: Path) -> torch.Tensor:
    """What PEFT itself makes of a clean folder."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PeftModel.from_pretrained(load(base), str(adapter)).eval()(IDS).logits


def changed(folder: Path, target: Path, *, config: dict[str, Any] | None = None, rename: Any = None) -> Path:
    """A copy of a PEFT folder with other settings or other names."""
    shutil.copytree(folder, target)
    if config is not None:
        document = json.loads((target / ADAPTER_CONFIG).read_text())
        (target / ADAPTER_CONFIG).write_text(json.dumps(document | config))
    if rename is not None:
        weights = load_file(target / WEIGHTS_FILE)
        save_file({rename(name): value for name, value in weights.items()}, target / WEIGHTS_FILE)
    return target


def edit_weights(folder: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Let ``edit`` change the tensors of a PEFT folder."""
    weights = load_file(folder / WEIGHTS_FILE)
    edit(weights)
    save_file(weights, folder / WEIGHTS_FILE)
