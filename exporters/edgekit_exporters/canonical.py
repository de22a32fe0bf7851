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
from safetensors.torch import save_file

from edgekit_exporters.base import Base
from edgekit_exporters.connector import MODULE as CONNECTOR
from edgekit_exporters.connector import is_connector
from edgekit_exporters.peft_folder import CONFIG_FILE, INVOCATION, WEIGHTS_FILE, read_config, read_weights
from edgekit_runtime.errors import InputError

PREFIX = "base_model.model."
REPEATABLE_STARTS = ("pissa", "olora")  # initialisations that are a function of the base alone


MERGE_OR_REFIT = "export it with --mode merged, or --refit-rank 32 for the closest LoRA"


class NotAdditive(InputError):
    """The adapter isn't a sum of ``B @ A`` and the base: it can be merged or refitted."""


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
    """An adapter as pairs by module name (``model.layers.0.self_attn.q_proj``).

    ``invocation`` are the token ids from which an activated LoRA works, none for any other.
    """

    layers: dict[str, LowRank]
    invocation: tuple[int, ...] = ()

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

    PiSSA and OLoRA move a part of each weight into the adapter before training, ``W = W' + s B0 A0``.  PEFT computes
    that part from the base again when it loads such an adapter, and so do we: the update of the original base is
    ``s B A - s B0 A0``, a pair of twice the rank.

    Raises:
        InputError: not a PEFT LoRA folder, not for this base, or an update that isn't ``B @ A`` with a constant
            scale (DoRA, trained biases, whole modules, embeddings; a NotAdditive): those can be merged instead.
    """
    config = read_config(folder)
    weights = read_weights(folder)
    if config.get("modules_to_save") == [CONNECTOR]:  # it goes into the projector file
        config["modules_to_save"] = None
        weights = {name: value for name, value in weights.items() if not is_connector(name)}
    _refuse_what_is_not_additive(folder, config)
    moves_base = config.get("init_lora_weights") in REPEATABLE_STARTS
    layers: dict[str, LowRank] = {}
    for name, module in _adapted_modules(folder, base, with_weights=moves_base).items():
        scale = float(module.scaling["default"])
        a = _take(weights, f"{PREFIX}{name}.lora_A.weight", folder).float()
        b = _take(weights, f"{PREFIX}{name}.lora_B.weight", folder).float()
        if a.shape[1] != module.in_features or b.shape[0] != module.out_features:
            raise InputError(
                f"{folder} does not fit {base.name}: {name} is {module.in_features} x {module.out_features} there and "
                f"{a.shape[1]} x {b.shape[0]} in the adapter",
                "export it with the base it was trained on",
            )
        if moves_base:
            a = torch.cat([a, module.lora_A["default"].weight.detach().float()])
            b = torch.cat([b, -module.lora_B["default"].weight.detach().float()], 1)
        layers[name] = LowRank(a, b * scale, bool(getattr(module, "fan_in_fan_out", False)))
    if weights:
        raise InputError(
            f"{folder} holds weights that are no LoRA pair of this base ({next(iter(weights))})",
            "export with --mode merged, or train without modules_to_save and biases",
        )
    if not layers:
        raise InputError(f"{folder} adapts no layer of {base.name}", "check the adapter's target_modules")
    return CanonicalAdapter(layers, tuple(config.get(INVOCATION) or ()))


def _refuse_what_is_not_additive(folder: Path, config: dict[str, Any]) -> None:
    reasons = {
        "use_dora": "DoRA rescales whole weight rows",
        "modules_to_save": "it replaces whole modules (modules_to_save)",
        "lora_bias": "it trains biases (lora_bias)",
        "use_qalora": "QA-LoRA pools its inputs",
        "trainable_token_indices": "it trains token embeddings",
        "target_parameters": "it adapts parameters outside of linear layers",
        "layer_replication": "it repeats layers of the base",
    }
    for key, reason in reasons.items():
        if config.get(key):
            raise NotAdditive(f"{folder} can't be a separate adapter: {reason}", MERGE_OR_REFIT)
    if config.get("bias", "none") != "none":
        raise NotAdditive(f"{folder} can't be a separate adapter: it trains biases", MERGE_OR_REFIT)
    init = config.get("init_lora_weights", True)
    moves_base = isinstance(init, str) and init.lower().startswith(("pissa", "olora", "loftq", "corda", "lora_ga"))
    if moves_base and init not in REPEATABLE_STARTS:
        raise InputError(
            f"{folder} was initialised with {init}, which changes the base in a way that can't be computed again",
            "save it with PEFT's path_initial_model_for_weight_conversion, which turns it into plain LoRA",
        )


def _adapted_modules(folder: Path, base: Base, *, with_weights: bool) -> dict[str, Any]:
    """Module name -> PEFT's layer for this config on this base; on the meta device unless weights are asked for."""
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora import LoraLayer
    from transformers import AutoConfig, AutoModelForCausalLM

    config = LoraConfig.from_pretrained(str(folder))
    config.modules_to_save = None  # the connector, which the text model alone doesn't have
    if with_weights:
        model = AutoModelForCausalLM.from_pretrained(
            base.folder, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
        )
    else:
        config.init_lora_weights = False
        with torch.device("meta"):
            settings = AutoConfig.from_pretrained(base.folder, trust_remote_code=False)
            model = AutoModelForCausalLM.from_config(settings, trust_remote_code=False)
    try:
        wrapped = get_peft_model(model, config)
    except ValueError as error:
        raise InputError(
            f"{folder} does not fit {base.name} ({str(error).splitlines()[0]})",
            "export it with the base it was trained on",
        ) from None
    return {
        name.removeprefix(PREFIX): module
        for name, module in wrapped.named_modules()
        if isinstance(module, LoraLayer) and "default" in module.scaling
    }


def _take(weights: dict[str, torch.Tensor], key: str, folder: Path) -> torch.Tensor:
    try:
        return weights.pop(key)
    except KeyError:
        raise InputError(f"{folder} has no tensor {key}", "it belongs to another base or is incomplete") from None
