"""Answers that a model gives during its training, to a few evaluation rows at each evaluation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from transformers import TrainerCallback

from edgekit.data import Row
from edgekit.encoding.asking import asked
from edgekit.encoding.encoder import Encoder

log = logging.getLogger(__name__)

SLACK = 16  # tokens that an answer may be longer than its reference before it is cut off
SHOWN = 200  # signs of an answer that are shown; the record has all


class Samples(TrainerCallback):
    """Asks ``rows`` at each evaluation, greedily, one after another; it draws no random numbers.

    Attributes:
        taken: what was answered: step, where the row stands, reference and answer.
    """

    def __init__(self, encoder: Encoder, rows: Sequence[Row], system: str | None) -> None:
        self.taken: list[dict[str, Any]] = []
        self._encoder = encoder
        self._asked = [
            (
                row,
                encoder.model_ids(encoder.prompt_ids(row, system)),
                len(encoder.answer_ids(row, system)) + SLACK,
            )
            for row in rows
        ]

    def on_evaluate(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Ask, show and remember."""
        model = more["model"]
        was_training = model.training
        model.eval()
        for row, prompt, tokens in self._asked:
            answer = self._answer(model, prompt, tokens)
            self.taken.append({"step": state.global_step, "where": row.where, "expected": row.answer, "answer": answer})
            log.info("step %d, %s: %s", state.global_step, row.where, _short(answer))
        model.train(was_training)

    def _answer(self, model: Any, prompt: list[int], tokens: int) -> str:
        pad = int(self._encoder.tokenizer.pad_token_id)
        with torch.inference_mode():
            batch = asked(model, [prompt], pad)
            output = batch.model.generate(
                **batch.inputs,
                max_new_tokens=tokens,
                do_sample=False,
                use_cache=True,
                eos_token_id=sorted(self._encoder.end_tokens()),
                pad_token_id=pad,
            )
        return self._encoder.decode(output[0, batch.width :].tolist())


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[:SHOWN]} …"
