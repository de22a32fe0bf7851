"""Other kinds of PEFT whose update is a product of two small matrices, rewritten as the LoRA that computes the same.

* AdaLoRA (arXiv 2303.10512): ``B (E * A) * alpha / rank``; it has left out singular values, so ranks differ.
* VeRA (arXiv 2310.11454): ``diag(b) B diag(d) A``, where all layers share parts of one A and one B.

Nothing is approximated.  Kinds that multiply weights, as (IA)³ does, are no such product.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from edgekit_exporters.peft.names import PREFIX
from edgekit_runtime.errors import InputError

ADALORA, VERA, LORA = "ADALORA", "VERA", "LORA"
# What PEFT adds to AdaLoRA's rank before it divides by it (peft.tuners.adalora.layer).
RANK_EPSILON = 1e-5
# Keys that say the same in the configuration of LoRA.
SHARED = (
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "fan_in_fan_out", "bias"),
    *("modules_to_save", "base_model_name_or_path", "task_type", "inference_mode", "peft_version"),
)
AGAIN = "save it again with PEFT's save_pretrained"

Tensors = dict[str, torch.Tensor]


def as_lora(
    raw: dict[str, Any], tensors: Tensors, parameters: Mapping[str, tuple[int, ...]], file: Path
) -> tuple[dict[str, Any], Tensors]:
    """Config and tensors of the LoRA that computes what this adapter does; those of any other kind as they are.

    Args:
        raw: what adapter_config.json says, unchecked.
        tensors: by the file's names.
        parameters: shape by name of the base's parameters.
        file: for messages.

    Raises:
        InputError: parts of it are missing, or don't fit together.
    """
    kind = raw.get("peft_type")
    if kind not in (ADALORA, VERA):
        return raw, tensors
    pairs, rest = _adalora(raw, tensors, file) if kind == ADALORA else _vera(raw, tensors, parameters, file)
    rank = max((a.shape[0] for a, _ in pairs.values()), default=1)
    for module, (a, b) in pairs.items():
        missing = rank - a.shape[0]
        rest[f"{module}.lora_A.weight"] = torch.nn.functional.pad(a, (0, 0, 0, missing))
        rest[f"{module}.lora_B.weight"] = torch.nn.functional.pad(b, (0, missing))
    config = {key: raw[key] for key in SHARED if key in raw}
    if config.get("bias") not in (None, "none", "all"):
        raise InputError(f"{file}: bias: {config['bias']!r} can't be exported", "train with bias: none")
    return config | {"peft_type": LORA, "r": rank, "lora_alpha": rank}, rest


def _adalora(raw: Mapping[str, Any], tensors: Tensors, file: Path) -> tuple[dict[str, Any], Tensors]:
    if raw.get("use_dora"):
        raise InputError(f"{file}: use_dora is on, which AdaLoRA doesn't have", "train without it")
    rank, alpha = _number(raw, "init_r", 12, file), _number(raw, "lora_alpha", 8, file)
    scale = (alpha if alpha > 0 else rank) / (rank + RANK_EPSILON)
    found, rest = _by_module(tensors, ("lora_A", "lora_B", "lora_E"))
    pairs = {}
    for module, parts in found.items():
        a, b, singular = _whole(module, parts, ("lora_A", "lora_B", "lora_E"), file)
        singular = singular.reshape(-1, 1)
        if a.dim() != 2 or b.dim() != 2 or not a.shape[0] == b.shape[1] == singular.shape[0]:
            raise InputError(f"{file}: the matrices of {module} don't fit together", AGAIN)
        pairs[module] = ((a * singular * scale).float(), b.float())
    return pairs, rest


def _vera(
    raw: Mapping[str, Any], tensors: Tensors, parameters: Mapping[str, tuple[int, ...]], file: Path
) -> tuple[dict[str, Any], Tensors]:
    found, rest = _by_module(tensors, ("vera_lambda_b", "vera_lambda_d"))
    shared = {
        end: [name for name in rest if name.removesuffix(".default").endswith(end)] for end in ("vera_A", "vera_B")
    }
    if any(len(names) != 1 for names in shared.values()):
        raise InputError(
            f"{file} has no matrices vera_A and vera_B, which are drawn at random",
            "save the adapter with save_projection=True",
        )
    all_a, all_b = (rest.pop(shared[end][0]).double() for end in ("vera_A", "vera_B"))
    pairs = {}
    for module, parts in found.items():
        of_b, of_d = _whole(module, parts, ("vera_lambda_b", "vera_lambda_d"), file)
        inputs = _inputs(module, len(of_b), parameters, bool(raw.get("fan_in_fan_out")), file)
        if not (all_a.shape[0] == all_b.shape[1] == len(of_d) and inputs <= all_a.shape[1] and len(of_b) <= len(all_b)):
            raise InputError(f"{file}: the matrices of {module} don't fit together", AGAIN)
        pairs[module] = ((of_d[:, None] * all_a[:, :inputs]).float(), (of_b[:, None] * all_b[: len(of_b)]).float())
    return pairs, rest


def _inputs(module: str, outputs: int, parameters: Mapping[str, tuple[int, ...]], flipped: bool, file: Path) -> int:
    """How many inputs the base's layer has that a tensor's name ends with."""
    name = f"{module.removeprefix(PREFIX)}.weight"
    known = next((shape for own, shape in parameters.items() if own == name or name.endswith(f".{own}")), None)
    if known is None or len(known) != 2 or outputs not in known:
        raise InputError(
            f"{file}: {module} is no layer of the base, or of another size", "use the base of its training"
        )
    return known[0] if flipped else known[1]


def _by_module(tensors: Tensors, parts: tuple[str, ...]) -> tuple[dict[str, Tensors], Tensors]:
    """Tensors of these parts by their modules, and all others."""
    found: dict[str, Tensors] = {}
    rest: Tensors = {}
    for name, value in tensors.items():
        module, _, part = name.removesuffix(".default").rpartition(".")
        if part in parts:
            found.setdefault(module, {})[part] = value.double()
        else:
            rest[name] = value
    return found, rest


def _whole(module: str, parts: Tensors, wanted: tuple[str, ...], file: Path) -> list[torch.Tensor]:
    missing = [part for part in wanted if part not in parts]
    if missing:
        raise InputError(f"{file} has no {missing[0]} of {module}", AGAIN)
    return [parts[part] for part in wanted]


def _number(raw: Mapping[str, Any], key: str, default: int, file: Path) -> float:
    value = raw.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1 << 16:
        raise InputError(f"{file}: {key}: {value!r} is not a number from 0 to {1 << 16}", "write what was trained with")
    return float(value)
