"""Greedy answers of the trained torch model."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from edgekit.data import Row
from edgekit.project import Adapter, Project
from edgekit.seeing import RowImages, let_see, row_images
from edgekit.trained import TrainedAt, trained_at, trained_folder
from edgekit.training.base_model import compute_dtype, load_base, load_dense
from edgekit.training.tokens import Encoder
from edgekit_exporters.base import Base
from edgekit_exporters.connector import trained_connector
from edgekit_exporters.peft_folder import attach

log = logging.getLogger(__name__)

BATCH_ROWS = 32


def trained_model(project: Project, adapter: Adapter, base: Base) -> tuple[TorchModel, TrainedAt]:
    """An adapter of the project on the base as it was in training.

    Raises:
        InputError: it isn't trained, or not for this base and its blocks.
    """
    folder, trained = trained_folder(project, adapter), trained_at(project, adapter, base)
    images = row_images(project, base, connector=trained_connector(folder) is not None)
    return TorchModel(base, trained, folder, images), trained


class TorchModel:
    """The base at its training precision, with or without one adapter."""

    def __init__(self, base: Base, trained: TrainedAt, adapter: Path | None, images: RowImages | None = None) -> None:
        """Load base and adapter; a packed base is unpacked to the same values, which answers faster."""
        self.encoder = Encoder(base.folder, images=images, reasoning=trained.reasoning)
        if trained.blocks is not None:
            model = load_dense(base, trained.blocks, compute_dtype())
        else:
            model = load_base(base, trained.precision)
        model = let_see(model, images)
        self._model: Any = (model if adapter is None else attach(model, adapter)).eval()

    def answers(self, rows: Sequence[Row], system: str | None, max_tokens: int, *, with_adapter: bool) -> list[str]:
        """One greedy answer a row, in the order of ``rows``.

        Args:
            rows: the questions.
            system: system prompt of the adapter.
            max_tokens: where an answer is cut off.
            with_adapter: False asks the bare base.
        """
        prompts = [self.encoder.model_ids(self.encoder.prompt_ids(row, system)) for row in rows]
        order = sorted(range(len(rows)), key=lambda index: len(prompts[index]))
        answers = [""] * len(rows)
        for start in range(0, len(order), BATCH_ROWS):
            batch = order[start : start + BATCH_ROWS]
            for index, text in zip(
                batch, self._batch([prompts[i] for i in batch], max_tokens, with_adapter), strict=True
            ):
                answers[index] = text
            log.info("answered %d of %d rows", min(start + BATCH_ROWS, len(order)), len(order))
        return answers

    def answer_logprobs(self, prompts: Sequence[list[int]], answers: Sequence[list[int]]) -> Iterator[Any]:
        """Teacher-forced log-probabilities, one float32 array [answer tokens, vocabulary] a row, with the adapter."""
        for prompt, answer in zip(prompts, answers, strict=True):
            ids = torch.tensor([self.encoder.model_ids(prompt) + answer], device=self._model.device)
            with torch.inference_mode():
                logits = self._model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
            yield torch.log_softmax(logits.float(), -1).cpu().numpy()

    def _batch(self, prompts: list[list[int]], max_tokens: int, with_adapter: bool) -> list[str]:
        pad = int(self.encoder.tokenizer.pad_token_id)
        width = max(map(len, prompts))
        ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        bare = not with_adapter and hasattr(self._model, "disable_adapter")
        with torch.inference_mode(), self._model.disable_adapter() if bare else nullcontext():
            output = self._model.generate(
                input_ids=ids.to(self._model.device),
                attention_mask=mask.to(self._model.device),
                max_new_tokens=max_tokens,
                do_sample=False,
                eos_token_id=sorted(self.encoder.end_tokens()),
                pad_token_id=pad,
            )
        return [self.encoder.decode(row[width:]) for row in output.tolist()]
