"""transformers' Trainer as an adapter's settings want it: steps, optimizer, checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from edgekit.bases.torch_model import device, fast_bfloat16
from edgekit.encoding.encoder import IGNORED, Encoded, Encoder
from edgekit.project import Adapter
from edgekit.project.model import ACTIVATED
from edgekit.training.step import quick_step
from edgekit_exporters.peft.intake import CONNECTOR

MAX_CHECKPOINTS = 2
SAVES_PER_RUN = 10
EVALUATIONS_PER_RUN = 3
CONNECTOR_RATE = 0.1  # of the adapter's: it is trained already, and moves as a whole matrix
LORAPLUS_RATIO = 16  # lr(B) / lr(A), as recommended in the LoRA+ paper (arXiv 2402.12354)


def uses_checkpointing() -> bool:
    """Recomputing activations pays on a GPU, whose memory is scarce, and only costs time on a CPU."""
    return device().type == "cuda"


def adapter_trainer(
    model: Any, encoder: Encoder, datasets: Sequence[list[Encoded]], adapter: Adapter, work: Path
) -> transformers.Trainer:
    """A Trainer for ``model``, with ``datasets`` for training and evaluation; checkpoints go to ``work``."""
    train_set, eval_set = datasets
    on_gpu = device().type == "cuda"
    steps = adapter.max_steps or max(
        1, round(adapter.epochs * len(train_set) / (adapter.batch_size * adapter.gradient_accumulation))
    )
    arguments = transformers.TrainingArguments(
        output_dir=str(work),
        max_steps=adapter.max_steps or -1,
        num_train_epochs=adapter.epochs,
        per_device_train_batch_size=adapter.batch_size,
        per_device_eval_batch_size=adapter.batch_size,
        gradient_accumulation_steps=adapter.gradient_accumulation,
        gradient_checkpointing=uses_checkpointing(),
        learning_rate=adapter.learning_rate,
        warmup_steps=adapter.warmup_ratio,  # below 1 it is a share of all steps
        lr_scheduler_type=adapter.scheduler,
        optim="paged_adamw_8bit" if on_gpu else "adamw_torch",
        bf16=fast_bfloat16(),
        use_cpu=not on_gpu,
        train_sampling_strategy="group_by_length",  # batches of like lengths waste no work on padding
        eval_strategy="steps",
        eval_steps=max(1, -(-steps // EVALUATIONS_PER_RUN)),
        save_strategy="steps",
        save_steps=max(1, -(-steps // SAVES_PER_RUN)),
        save_total_limit=MAX_CHECKPOINTS,
        logging_steps=max(1, steps // 50),
        seed=adapter.seed,
        report_to=[],
        remove_unused_columns=False,
        dataloader_pin_memory=on_gpu,
        label_names=["labels"],
    )
    padded = transformers.DataCollatorForSeq2Seq(encoder.tokenizer, label_pad_token_id=IGNORED, pad_to_multiple_of=8)
    collator = quick_step(model, padded, train_set, packs=adapter.method != ACTIVATED)
    optimizer = None
    if adapter.method == "lora+":
        from peft.optimizers import create_loraplus_optimizer

        optimizer = create_loraplus_optimizer(
            model, torch.optim.AdamW, lr=adapter.learning_rate, loraplus_lr_ratio=LORAPLUS_RATIO
        )
    if adapter.connector:
        optimizer = torch.optim.AdamW(_with_connector(model, adapter.learning_rate), weight_decay=0.0)
    return transformers.Trainer(
        model=model,
        args=arguments,
        train_dataset=train_set,
        eval_dataset=eval_set,
        data_collator=collator,
        optimizers=(optimizer, None),
    )


def _with_connector(model: Any, rate: float) -> list[dict[str, Any]]:
    trained = [(CONNECTOR in name, each) for name, each in model.named_parameters() if each.requires_grad]
    return [
        {"params": [each for connector, each in trained if connector == wanted], "lr": rate * share}
        for wanted, share in ((False, 1.0), (True, CONNECTOR_RATE))
    ]
