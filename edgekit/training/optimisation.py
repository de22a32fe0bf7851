"""How weights move: the optimizer and its schedule, as transformers' arguments or as an optimizer of our own."""

from __future__ import annotations

from typing import Any

import torch

from edgekit.bases.torch_model import device
from edgekit.project import Adapter
from edgekit_exporters.peft.intake import CONNECTOR
from edgekit_runtime.errors import UsageError

CONNECTOR_RATE = 0.1  # of the adapter's: it is trained already, and moves as a whole matrix
LORAPLUS_RATIO = 16  # lr(B) / lr(A), as recommended in the LoRA+ paper (arXiv 2402.12354)
OF_BITSANDBYTES = ("adamw_8bit", "paged_adamw_8bit", "lion_8bit")


def optimisation(adapter: Adapter) -> dict[str, Any]:
    """Arguments of transformers' TrainingArguments.

    Raises:
        UsageError: an optimizer that this machine can't run.
    """
    on_gpu = device().type == "cuda"
    if adapter.optim in OF_BITSANDBYTES and not on_gpu:
        raise UsageError(f"optim: {adapter.optim} needs a GPU, and there is none here", "use adamw_torch")
    return {
        "learning_rate": adapter.highest_rate,
        "lr_scheduler_type": adapter.scheduler,
        "lr_scheduler_kwargs": dict(adapter.lr_scheduler_kwargs),
        # below 1 it is a share of all steps
        "warmup_steps": adapter.warmup_ratio if adapter.warmup_steps is None else adapter.warmup_steps,
        "optim": adapter.optim or ("paged_adamw_8bit" if on_gpu else "adamw_torch"),
        "weight_decay": adapter.weight_decay,
        "max_grad_norm": adapter.max_grad_norm,
        "neftune_noise_alpha": adapter.neftune_noise_alpha,
    }


def own_optimizer(model: Any, adapter: Adapter) -> torch.optim.Optimizer | None:
    """The optimizer of an adapter whose matrices learn at rates of their own; None where they don't.

    Raises:
        UsageError: the project names another optimizer for it.
    """
    if adapter.method != "lora+" and not adapter.connector:
        return None
    if adapter.optim not in (None, "adamw_torch"):
        why = "connector: true" if adapter.connector else f"method: {adapter.method}"
        raise UsageError(f"optim: {adapter.optim} doesn't go with {why}", "leave optim out")
    if adapter.connector:
        groups = _with_connector(model, adapter.highest_rate)
        return torch.optim.AdamW(groups, weight_decay=adapter.weight_decay)
    from peft.optimizers import create_loraplus_optimizer

    made: torch.optim.Optimizer = create_loraplus_optimizer(
        model,
        torch.optim.AdamW,
        lr=adapter.highest_rate,
        loraplus_lr_ratio=LORAPLUS_RATIO,
        loraplus_weight_decay=adapter.weight_decay,
    )
    return made


def _with_connector(model: Any, rate: float) -> list[dict[str, Any]]:
    trained = [(CONNECTOR in name, each) for name, each in model.named_parameters() if each.requires_grad]
    return [
        {"params": [each for connector, each in trained if connector == wanted], "lr": rate * share}
        for wanted, share in ((False, 1.0), (True, CONNECTOR_RATE))
    ]
