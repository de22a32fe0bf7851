"""Every low-rank additive PEFT adapter as plain A, B pairs with the scale folded in.

Converters and engines read ``lora_alpha / r`` and nothing else of PEFT's settings.  rsLoRA's alpha/√r, alpha and
rank patterns, or a per-layer rank would be lost without a word.  So PEFT itself is asked, on a base without weights,
what scale it gives each layer, and the pairs are rewritten such that ``delta W = B @ A`` with alpha equal to rank.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from edgekit_exporters.base import Base
from edgekit_runtime.errors import InputError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."


@dataclass(frozen=True)
class LowRank:
    """One layer's update: ``delta W = b @ a``, A [rank, in], B [out, rank], float32.

    ``transposed`` marks layers whose base weight is stored [in, out] (GPT-2's Conv1D).
    """

    a: torch.Tensor
    b: torch.Tensor
    transposed: bool = False

    @property
    def rank(self) -> int:
        """Inner dimension."""
        return int(self.a.shape[0])

    def padded(self, rank: int) -> LowRank:
        """The same update at a larger rank, filled with zeros: one file has one rank."""
        missing = rank - self.rank
        pad = torch.nn.functional.pad
        return LowRank(pad(self.a, (0, 0, 0, missing)), pad(self.b, (0, missing)), self.transposed)

    def as_stored(self) -> tuple[torch.Tensor, torch.Tensor]:
        """A and B such that ``B @ A`` has the layout of the base's stored weight, which converters transpose."""
        return (self.b.T, self.a.T) if self.transposed else (self.a, self.b)


@dataclass(frozen=True)
class CanonicalAdapter:
    """An adapter as pairs by module name (``model.layers.0.self_attn.q_proj``)."""

    layers: dict[str, LowRank]

    @property
    def rank(self) -> int:
        """The largest rank of any layer."""
        return max(layer.rank for layer in self.layers.values())

    @property
    def targets(self) -> list[str]:
        """Last parts of the module names, sorted: ``["down_proj", "q_proj", …]``."""
        return sorted({name.rpartition(".")[2] for name in self.layers})

    def save(self, folder: Path) -> None:
        """Write what llama.cpp's converter reads: a PEFT folder of one rank, alpha = rank, nothing switched on."""
        rank = self.rank
        tensors: dict[str, torch.Tensor] = {}
        for name, layer in self.layers.items():
            a, b = layer.padded(rank).as_stored()
            tensors[f"{PREFIX}{name}.lora_A.weight"] = a.contiguous()
            tensors[f"{PREFIX}{name}.lora_B.weight"] = b.contiguous()
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / WEIGHTS_FILE)
        config = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "r": rank,
            "lora_alpha": rank,
            "target_modules": self.targets,
            "bias": "none",
        }
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=1))


def canonicalise(folder: Path, base: Base) -> CanonicalAdapter:
    """Read a PEFT folder and fold every scale into B.

    Raises:
        InputError: not a PEFT LoRA folder, not for this base, or an update that isn't ``B @ A`` with a constant
            scale (DoRA, trained biases, whole modules, embeddings): those can be merged instead.
    """
    config = read_config(folder)
    _refuse_what_is_not_additive(folder, config)
    scales = _scales(folder, base)
    weights = read_weights(folder)
    layers: dict[str, LowRank] = {}
    for name, (scale, transposed) in scales.items():
        a = _take(weights, f"{PREFIX}{name}.lora_A.weight", folder)
        b = _take(weights, f"{PREFIX}{name}.lora_B.weight", folder)
        layers[name] = LowRank(a.float(), b.float() * scale, transposed)
    if weights:
        raise InputError(
            f"{folder} holds weights that are no LoRA pair of this base ({next(iter(weights))})",
            "export with --mode merged, or train without modules_to_save and biases",
        )
    if not layers:
        raise InputError(f"{folder} adapts no layer of {base.name}", "check the adapter's target_modules")
    return CanonicalAdapter(layers)


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


def _refuse_what_is_not_additive(folder: Path, config: dict[str, Any]) -> None:
    reasons = {
        "use_dora": "DoRA rescales whole weight rows",
        "modules_to_save": "it replaces whole modules (modules_to_save)",
        "lora_bias": "it trains biases (lora_bias)",
        "use_qalora": "QA-LoRA pools its inputs",
        "trainable_token_indices": "it trains token embeddings",
        "target_parameters": "it adapts parameters outside of linear layers",
        "alora_invocation_tokens": "activated LoRA switches on inside the prompt",
        "layer_replication": "it repeats layers of the base",
    }
    for key, reason in reasons.items():
        if config.get(key):
            raise InputError(f"{folder} can't be a separate adapter: {reason}", "export it with --mode merged")
    if config.get("bias", "none") != "none":
        raise InputError(f"{folder} can't be a separate adapter: it trains biases", "export it with --mode merged")
    init = config.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower().startswith(("pissa", "olora", "loftq", "corda", "lora_ga")):
        raise InputError(
            f"{folder} was initialised with {init}, which changes the base as well",
            "save it with PEFT's path_initial_model_for_weight_conversion, which turns it into plain LoRA",
        )


def _scales(folder: Path, base: Base) -> dict[str, tuple[float, bool]]:
    """Module name -> (scale, fan_in_fan_out), as PEFT computes them for this config on this base."""
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora import LoraLayer
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base.folder))
    config = LoraConfig.from_pretrained(str(folder))
    config.init_lora_weights = False
    try:
        wrapped = get_peft_model(model, config)
    except ValueError as error:
        raise InputError(
            f"{folder} does not fit {base.name} ({str(error).splitlines()[0]})",
            "export it with the base it was trained on",
        ) from None
    return {
        name.removeprefix(PREFIX): (
            float(module.scaling["default"]),
            bool(getattr(module, "fan_in_fan_out", False)),
        )
        for name, module in wrapped.named_modules()
        if isinstance(module, LoraLayer) and "default" in module.scaling
    }


def _take(weights: dict[str, torch.Tensor], key: str, folder: Path) -> torch.Tensor:
    try:
        return weights.pop(key)
    except KeyError:
        raise InputError(f"{folder} has no tensor {key}", "it belongs to another base or is incomplete") from None
