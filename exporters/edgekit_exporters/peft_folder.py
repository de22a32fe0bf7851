"""Adapters as PEFT saves them: a folder of adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from edgekit_runtime.errors import InputError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
INVOCATION = "alora_invocation_tokens"  # config key of activated LoRA


def attach(model: Any, folder: Path) -> Any:
    """``model`` wrapped by PEFT with the adapter in ``folder``.

    Raises:
        InputError: not a LoRA adapter, or one of another base.
    """
    from peft import PeftModel

    read_config(folder)
    if not (folder / WEIGHTS_FILE).is_file():  # PEFT would take a pickle
        raise InputError(f"{folder} has no {WEIGHTS_FILE}", "save the adapter again with safetensors")
    try:
        return PeftModel.from_pretrained(model, str(folder))
    except (RuntimeError, ValueError) as error:
        reason = next(line.strip() for line in reversed(str(error).splitlines()) if line.strip())
        raise InputError(
            f"the adapter in {folder} does not fit its base ({reason})", "use the base that it was trained on"
        ) from None


def read_config(folder: Path) -> dict[str, Any]:
    """The adapter_config.json of a PEFT folder.

    Raises:
        InputError: missing, malformed or not LoRA.
    """
    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{folder} is not a PEFT adapter: it has no {CONFIG_FILE}",
            "run `edgekit train` first, or name the folder that PEFT's save_pretrained wrote",
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} can't be read ({error})", "write the adapter again") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise InputError(f"{folder} holds a {kind or 'nameless'} adapter", "only LoRA adapters can be exported")
    if config.get("megatron_config"):  # PEFT would import the module that the config names
        raise InputError(f"{folder} holds an adapter of Megatron", "save it as a plain PEFT adapter")
    return config


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The adapter's tensors by PEFT name.

    Raises:
        InputError: missing or damaged file.
    """
    path = folder / WEIGHTS_FILE
    try:
        return load_file(path)
    except FileNotFoundError:
        raise InputError(f"{folder} has no {WEIGHTS_FILE}", "save the adapter again with safetensors") from None
    except Exception as error:  # safetensors raises its own type for each kind of damage
        raise InputError(f"{path} is damaged ({error})", "copy or write the adapter again") from None
