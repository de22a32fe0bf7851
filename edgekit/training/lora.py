"""The PEFT configuration of each training method, and wrapping the base with it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import (
    LoraConfig,
    get_peft_model,
    get_peft_model_state_dict,
    prepare_model_for_kbit_training,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file

from edgekit.bases.quantized.experts import QuantizedExperts, shown_as_parameters
from edgekit.project import Adapter
from edgekit.training.targets import Targets, targets_on
from edgekit_exporters.peft.as_named import as_named
from edgekit_exporters.peft.base_modules import expert_parameters
from edgekit_exporters.peft.files import WEIGHTS_FILE
from edgekit_exporters.peft.intake import CONNECTOR
from edgekit_runtime.errors import InputError
from edgekit_runtime.hints import did_you_mean

# Methods that also change the base's weights: what is saved is the difference to the original base.
CHANGES_BASE = {"pissa": "pissa_niter_16", "loftq": "loftq"}
WITH_CONNECTOR = ("qlora", "lora", "rslora")  # methods that can train it too: those of plain pairs, at one rate


def lora_config(
    adapter: Adapter, targets: Targets, invocation: Sequence[int] = (), left_out: Sequence[str] = ()
) -> LoraConfig:
    """PEFT's configuration of ``adapter``.

    Args:
        adapter: its settings.
        targets: what they mean on the base.
        invocation: the token ids from which an activated LoRA works.
        left_out: ends of layers' names that the targets don't mean.
    """
    options: dict[str, Any] = {"exclude_modules": list(left_out)} if left_out else {}
    if invocation:
        options["alora_invocation_tokens"] = list(invocation)
    if adapter.method in CHANGES_BASE:
        options["init_lora_weights"] = CHANGES_BASE[adapter.method]
    if adapter.method == "loftq":
        from peft import LoftQConfig

        options["loftq_config"] = LoftQConfig(loftq_bits=4)
    return LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.lora_alpha,
        lora_dropout=adapter.dropout,
        target_modules=targets.layers,
        target_parameters=targets.experts or None,
        rank_pattern=dict(adapter.rank_pattern),
        alpha_pattern=dict(adapter.alpha_pattern),
        use_rslora=adapter.method == "rslora",
        use_dora=adapter.method == "dora",
        task_type="CAUSAL_LM",
        bias="none",
        modules_to_save=[CONNECTOR] if adapter.connector else None,
        **options,
    )


def wrap(
    model: Any,
    adapter: Adapter,
    precision: str,
    *,
    checkpointing: bool,
    invocation: Sequence[int] = (),
    left_out: Sequence[str] = (),
    reads_images: bool = False,
) -> Any:
    """Freeze ``model`` and put trainable LoRA layers (float32) around its targets, ``left_out`` excepted.

    Raises:
        InputError: a method that changes the base on a base that is packed, or that trains no connector; targets that
            match nothing.
    """
    if adapter.connector and adapter.method not in WITH_CONNECTOR:
        raise InputError(f"{adapter.method} doesn't go with connector: true", f"use one of {', '.join(WITH_CONNECTOR)}")
    if adapter.method in CHANGES_BASE and precision not in ("bf16", "fp16", "fp32"):
        raise InputError(
            f"{adapter.method} starts by changing the base's weights, which a {precision} base doesn't allow",
            "set base_precision: fp32 (or bf16), or use method: qlora",
        )
    if adapter.method == "loftq" and not (torch.cuda.is_available() or torch.xpu.is_available()):
        raise InputError("PEFT computes loftq's start on a GPU, and there is none here", "use method: qlora or pissa")
    experts = _experts(model)
    targets = targets_on(adapter.targets, (name for name, _ in model.named_modules() if name not in experts), experts)
    _check_targets(model, targets.layers, experts, reads_images=reads_images)
    model = trainable_base(model, precision, checkpointing=checkpointing)
    try:
        with as_named(), shown_as_parameters(model):
            wrapped = get_peft_model(model, lora_config(adapter, targets, invocation, left_out))
    except ValueError as error:
        if isinstance(targets.layers, str) and "not found in the base model" in str(error):
            raise InputError(
                f"the pattern {targets.layers!r} fits no layer's whole name",
                "write a list of names, [q_proj, v_proj] say",
            ) from None
        raise InputError(
            f"the targets fit no layer ({str(error).splitlines()[0]})", "try targets: all-linear"
        ) from None
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return wrapped


def trainable_base(model: Any, precision: str, *, checkpointing: bool) -> Any:
    """``model``, frozen where bitsandbytes has packed it, such that gradients reach the adapters around it."""
    if precision in ("nf4", "int8"):
        return prepare_model_for_kbit_training(model, use_gradient_checkpointing=checkpointing)
    if checkpointing:
        model.enable_input_require_grads()
    return model


def load_pairs(model: Any, folder: Path) -> None:
    """Give PEFT's ``model`` the pairs of a trained adapter; pairs of layers that it doesn't adapt are left out.

    Raises:
        InputError: the adapter lacks a pair, or has it at another rank.
    """
    trained = load_file(folder / WEIGHTS_FILE)
    for name, wanted in get_peft_model_state_dict(model, save_embedding_layers=False).items():
        if name not in trained or trained[name].shape != wanted.shape:
            raise InputError(f"{folder} has no {name} of shape {list(wanted.shape)}", "train it again from the start")
        trained[name] = trained[name].to(wanted.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is left out
        set_peft_model_state_dict(model, trained)


def _experts(model: Any) -> tuple[str, ...]:
    """Names of parameters that hold the matrices of all experts of a layer, packed ones too."""
    packed = (name for name, module in model.named_modules() if isinstance(module, QuantizedExperts))
    return (*expert_parameters(model), *packed)


def _check_targets(model: Any, targets: str | list[str], experts: Sequence[str], *, reads_images: bool) -> None:
    """Each of a list fits something; PEFT passes over those that don't."""
    names = [f".{name}" for name, _ in model.named_modules()]
    for target in () if isinstance(targets, str) else targets:
        if not any(name.endswith(f".{target}") for name in names):
            raise InputError(
                f"the target {target} fits no layer of the text model",
                _instead(model, target, experts, reads_images=reads_images),
            )


def _instead(model: Any, target: str, experts: Sequence[str], *, reads_images: bool) -> str:
    layers = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    layers |= {".".join(name.split(".")[-2:]) for name in experts}
    hint = f"{did_you_mean(target, sorted(layers), 'its layers are')}; targets: all-linear takes all but the output"
    return f"{hint}; of what reads images, connector: true trains that alone" if reads_images else hint
