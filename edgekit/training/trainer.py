"""transformers' Trainer as an adapter's settings want it: steps, optimizer, checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import transformers

from edgekit.bases.torch_model import device, fast_bfloat16
from edgekit.encoding.encoder import IGNORED, Encoded, Encoder
from edgekit.project import Adapter
from edgekit.project.model import ACTIVATED, VIRTUAL
from edgekit.training.evaluations import evaluations, patience
from edgekit.training.optimisation import optimisation, own_optimizer
from edgekit.training.smoothing import SmoothedLoss
from edgekit.training.step import quick_step


def uses_checkpointing() -> bool:
    """Recomputing activations pays on a GPU, whose memory is scarce, and only costs time on a CPU."""
    return device().type == "cuda"


def adapter_trainer(
    model: Any,
    encoder: Encoder,
    datasets: Sequence[list[Encoded]],
    adapter: Adapter,
    work: Path,
    reporting: Mapping[str, Any],
) -> transformers.Trainer:
    """A Trainer for ``model``.

    Args:
        model: wrapped by PEFT.
        encoder: of the rows.
        datasets: for training and evaluation.
        adapter: the settings.
        work: folder of the checkpoints.
        reporting: see :func:`~edgekit.training.trackers.tracking_arguments`; any other argument of transformers'
            TrainingArguments in it goes before that of the settings.

    Raises:
        UsageError: an optimizer that can't be, here or with this method.
    """
    train_set, eval_set = datasets
    collator = transformers.DataCollatorForSeq2Seq(encoder.tokenizer, label_pad_token_id=IGNORED, pad_to_multiple_of=8)
    smoothing = adapter.label_smoothing_factor
    # Of packed rows none has its own place or length, and PEFT puts virtual tokens before each.
    packs = adapter.method not in (ACTIVATED, *VIRTUAL) and adapter.neftune_noise_alpha is None
    step = quick_step(model, collator, train_set, packs=packs, label_smoothing=smoothing)
    return transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(
            **{**training_arguments(adapter, len(train_set), work, pads=step.pads), **reporting}
        ),
        train_dataset=train_set,
        eval_dataset=eval_set,
        data_collator=step.collator,
        optimizers=(own_optimizer(model, adapter), None),
        compute_loss_func=SmoothedLoss(model, smoothing) if smoothing and not step.has_loss else None,
        callbacks=patience(adapter),
    )


def training_arguments(adapter: Adapter, examples: int, work: Path, *, pads: bool = True) -> dict[str, Any]:
    """Arguments of transformers' TrainingArguments, for so many examples.

    Padded batches have rows of like lengths, which wastes no work.  Others are drawn at random: where the
    length tells the kind of the answer, batches of one kind after batches of another undo what was learnt.

    Raises:
        UsageError: an optimizer that can't be here.
    """
    on_gpu = device().type == "cuda"
    steps = adapter.max_steps or max(
        1, round(adapter.epochs * examples / (adapter.batch_size * adapter.gradient_accumulation))
    )
    return {
        "output_dir": str(work),
        "max_steps": adapter.max_steps or -1,
        "num_train_epochs": adapter.epochs,
        "per_device_train_batch_size": adapter.batch_size,
        "per_device_eval_batch_size": adapter.batch_size,
        "gradient_accumulation_steps": adapter.gradient_accumulation,
        "gradient_checkpointing": uses_checkpointing(),
        "bf16": fast_bfloat16(),
        "use_cpu": not on_gpu,
        "train_sampling_strategy": "group_by_length" if pads else "random",
        "logging_steps": max(1, steps // 50),
        "seed": adapter.seed,
        "remove_unused_columns": False,
        "dataloader_pin_memory": on_gpu,
        "label_names": ["labels"],
        **optimisation(adapter),
        **evaluations(adapter, steps),
    }
