"""Preference tuning: TRL's DPO on rows as the device's encoder makes them, with the model's own logits."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.utils import ModelOutput

from edgekit.data import Row
from edgekit.encoding.encoder import IGNORED, Encoded, Encoder
from edgekit.project import Adapter
from edgekit.training.evaluations import patience
from edgekit.training.trainer import training_arguments
from edgekit_runtime.errors import UsageError

BETA = 0.1  # of the DPO paper (arXiv 2305.18290)
MULTIPLE = 8  # of padded lengths


def preference_example(encoder: Encoder, row: Row, system: str | None, max_length: int) -> Encoded:
    """A prompt with both answers as token ids, for TRL's collator.

    ``input_ids`` and ``labels`` are both conversations one after the other: what a step computes.

    Raises:
        InputError: as :meth:`~edgekit.encoding.encoder.Encoder.encode`.
    """
    assert row.rejected is not None
    (chosen,), (rejected,) = (encoder.encode(each, system, max_length) for each in (row, row.rejected))
    asked = chosen["labels"].count(IGNORED)
    return {
        "prompt_ids": chosen["input_ids"][:asked],
        "chosen_ids": chosen["input_ids"][asked:],
        "rejected_ids": rejected["input_ids"][asked:],
        "input_ids": chosen["input_ids"] + rejected["input_ids"],
        "labels": chosen["labels"] + rejected["labels"],
    }


def preference_trainer(
    model: Any,
    encoder: Encoder,
    datasets: Sequence[list[Encoded]],
    adapter: Adapter,
    work: Path,
    reporting: Mapping[str, Any],
) -> transformers.Trainer:
    """TRL's DPOTrainer for ``model``; the reference is the base without the adapter.

    Arguments are those of :func:`~edgekit.training.trainer.adapter_trainer`; dropout is off, as in TRL.

    Raises:
        UsageError: an optimizer that can't be here, or an adapter of the output matrix, which TRL refuses.
    """
    from datasets import Dataset
    from peft.tuners.tuners_utils import BaseTunerLayer
    from trl import DPOConfig, DPOTrainer
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    if isinstance(model.get_output_embeddings(), BaseTunerLayer):
        raise UsageError("TRL's DPO trains no adapter of the output matrix", "leave lm_head out of targets")

    class Preferences(DPOTrainer):  # type: ignore[misc]  # TRL is optional: mypy doesn't follow it
        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset  # it is token ids already

        def _save_checkpoint(self, *given: Any) -> None:
            transformers.Trainer._save_checkpoint(self, *given)  # without TRL's model card

    train_set, eval_set = datasets
    text = model.get_base_model()
    forward = text.forward
    padding = int(encoder.tokenizer.pad_token_id)
    trainer: transformers.Trainer = Preferences(
        model=model,
        args=DPOConfig(
            **training_arguments(adapter, len(train_set), work), **reporting, beta=adapter.beta or BETA, max_length=None
        ),
        train_dataset=Dataset.from_list(train_set),
        eval_dataset=Dataset.from_list(eval_set),
        processing_class=encoder.tokenizer,
        data_collator=DataCollatorForPreference(pad_token_id=padding, pad_to_multiple_of=MULTIPLE),
        callbacks=patience(adapter),
    )
    # A new adapter changes nothing, so the base is the reference; TRL has made a copy, which takes memory only.
    model.delete_adapter("ref")
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # TRL has made them bfloat16 on some bases
    # TRL multiplies by the output's weight itself, which packed blocks don't let it, and not all models do so.
    text.forward = _scoring(forward, type(text).forward)
    return trainer


@dataclass
class _Scored(ModelOutput):  # type: ignore[misc]
    """Per token [batch, length - 1]: what TRL reads, zero where there is no label."""

    log_probs: torch.Tensor | None = None
    entropy: torch.Tensor | None = None
    mean_logits: torch.Tensor | None = None
    is_top1: torch.Tensor | None = None


def _scoring(forward: Callable[..., Any], signature: Callable[..., Any]) -> Callable[..., Any]:
    """A forward that gives TRL the log-probabilities of labels where it asks for them, from the model's own logits."""

    @functools.wraps(signature)  # generate looks at it
    def scoring(*given: Any, fused_lm_head: bool = False, labels: torch.Tensor | None = None, **options: Any) -> Any:
        if not fused_lm_head or labels is None:
            return forward(*given, **options, **({} if labels is None else {"labels": labels}))
        targets = labels[:, 1:]
        learnt = targets != IGNORED
        logits = forward(*given, **options).logits[:, :-1][learnt].float()
        log_probs = torch.log_softmax(logits, -1)

        def placed(values: torch.Tensor) -> torch.Tensor:
            return values.new_zeros(targets.shape).masked_scatter(learnt, values)

        with torch.no_grad():
            entropy = -(log_probs.exp() * log_probs).sum(-1)
            is_top1 = logits.argmax(-1) == targets[learnt]
        return _Scored(
            log_probs=placed(log_probs.gather(-1, targets[learnt][:, None])[:, 0]),
            entropy=placed(entropy),
            mean_logits=placed(logits.detach().mean(-1)),
            is_top1=placed(is_top1),
        )

    return scoring
