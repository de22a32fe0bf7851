"""Greedy answers of the trained torch model."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from edgekit.bases.folded_layers import fold_layers
from edgekit.bases.folding import Folding
from edgekit.bases.torch_model import compute_dtype, load_base, load_dense
from edgekit.bases.weights import Weights
from edgekit.data import Row
from edgekit.encoding.asking import asked
from edgekit.encoding.encoder import Encoder
from edgekit.encoding.images import RowImages, let_see, row_images
from edgekit.evaluation.finite import not_finite
from edgekit.project import Adapter, Project
from edgekit.project.folders import trained_folder
from edgekit.training.finished import trained_folding, trained_reasoning, trained_weights
from edgekit_exporters.base import Base
from edgekit_exporters.gguf.connector import trained_connector
from edgekit_exporters.peft.intake import attach, take_in_any
from edgekit_exporters.progress import Stage, stage, staged

BATCH_ROWS = 32


def trained_model(project: Project, adapter: Adapter, base: Base) -> tuple[TorchModel, Weights]:
    """An adapter of the project on the base as it was in training.

    Raises:
        InputError: it isn't trained, or not for this base and its blocks.
    """
    folder, weights = trained_folder(project, adapter), trained_weights(project, adapter, base)
    images = row_images(project, base, connector=trained_connector(folder, base) is not None)
    reasoning = trained_reasoning(project, adapter)
    folding = trained_folding(project, adapter, base)
    model = TorchModel(base, weights, folder, images, name=adapter.name, reasoning=reasoning, folding=folding)
    return model, weights


class TorchModel:
    """The base at its training precision, with or without one adapter."""

    def __init__(
        self,
        base: Base,
        weights: Weights,
        adapter: Path | None,
        images: RowImages | None = None,
        *,
        name: str | None = None,
        reasoning: str | None = None,
        folding: Folding | None = None,
    ) -> None:
        """Load base and adapter (``name``); a packed base is unpacked to the same values, which answers faster.

        With ``folding``, the adapter's layers are the blocks that it was trained merged into.
        """
        self._name, self._base, self._reasoning = name, base, reasoning
        taken = None if adapter is None else take_in_any(adapter, base)  # before anything is loaded
        self.encoder = Encoder(base.folder, images=images, reasoning=reasoning)
        with stage(f"loading {name or 'the base'} in torch at {weights.label}"):
            if weights.blocks is not None:
                model = load_dense(base, weights.blocks, compute_dtype())
            else:
                model = load_base(base, weights)
            model = let_see(model, images)
            self._model: Any = (model if taken is None else attach(model, taken)).eval()
            if folding is not None:
                for layer in fold_layers(self._model, folding).values():
                    layer.keep(compute_dtype())

    def carry(self, adapter: Path, *, name: str, reasoning: str | None) -> None:
        """Put another LoRA in the place of the one it has; ``reasoning`` is how prompts are written from now on.

        Raises:
            InputError: it is no sound adapter of this base.
        """
        taken = take_in_any(adapter, self._base)
        bare = self._model.unload() if hasattr(self._model, "peft_config") else self._model
        self._model, self._name = attach(bare, taken).eval(), name
        if reasoning != self._reasoning:
            self.encoder = Encoder(self._base.folder, images=self.encoder.images, reasoning=reasoning)
            self._reasoning = reasoning

    def answers(self, rows: Sequence[Row], system: str | None, max_tokens: int, *, with_adapter: bool) -> list[str]:
        """One greedy answer a row, in the order of ``rows``.

        Args:
            rows: the questions.
            system: system prompt of the adapter.
            max_tokens: where an answer is cut off.
            with_adapter: False asks the bare base.

        Raises:
            InputError: what it computes are no numbers.
        """
        prompts = [self.encoder.model_ids(self.encoder.prompt_ids(row, system)) for row in rows]
        order = sorted(range(len(rows)), key=lambda index: len(prompts[index]))
        answers = [""] * len(rows)
        name = self._name if with_adapter else None
        with stage(f"asking {name or 'the base'} in torch", len(rows)) as shown:
            for start in range(0, len(order), BATCH_ROWS):
                batch = order[start : start + BATCH_ROWS]
                tell = functools.partial(_reach, shown, start)
                texts = self._batch([prompts[index] for index in batch], max_tokens, with_adapter, tell)
                for index, text in zip(batch, texts, strict=True):
                    if text is None:
                        raise not_finite("torch", name, rows[index])
                    answers[index] = text
                shown.reach(start + len(batch))
        return answers

    def answer_logprobs(
        self, rows: Sequence[Row], prompts: Sequence[list[int]], answers: Sequence[list[int]], *, with_adapter: bool
    ) -> Iterator[Any]:
        """Teacher-forced log-probabilities, one float32 array [answer tokens, vocabulary] a row.

        Raises:
            InputError: a logit of a row, of its prompt too, is no number.
        """
        name = self._name if with_adapter else None
        known = zip(rows, prompts, answers, strict=True)
        for row, prompt, answer in staged(
            known, f"reading the answers with {name or 'the base'} in torch", len(prompts)
        ):
            ids = torch.tensor([self.encoder.model_ids(prompt) + answer], device=self._model.device)
            with torch.inference_mode(), self._with(with_adapter):
                logits = self._model(input_ids=ids).logits[0, -ids.shape[1] :].float()  # none of virtual tokens
            if not torch.isfinite(logits).all():
                raise not_finite("torch", name, row)
            yield torch.log_softmax(logits[len(prompt) - 1 : -1], -1).cpu().numpy()

    def _with(self, adapter: bool) -> AbstractContextManager[Any]:
        bare = not adapter and hasattr(self._model, "disable_adapter")
        context: AbstractContextManager[Any] = self._model.disable_adapter() if bare else nullcontext()
        return context

    def _batch(
        self, prompts: list[list[int]], max_tokens: int, with_adapter: bool, tell: Callable[[int], None]
    ) -> list[str | None]:
        """Answers; None in the place of one that was computed from what are no numbers."""
        pad = int(self.encoder.tokenizer.pad_token_id)
        watch = _Watch()
        with torch.inference_mode(), self._with(with_adapter):
            batch = asked(self._model, prompts, pad, with_adapter=with_adapter)
            output = batch.model.generate(
                **batch.inputs,
                max_new_tokens=max_tokens,
                do_sample=False,
                eos_token_id=sorted(self.encoder.end_tokens()),
                pad_token_id=pad,
                logits_processor=LogitsProcessorList([watch]),
                stopping_criteria=StoppingCriteriaList([_Answered(batch.width, self.encoder.end_tokens(), tell)]),
            )
        broken = watch.broken(len(prompts))
        texts = (self.encoder.decode(row[batch.width :]) for row in output.tolist())
        return [None if bad else text for text, bad in zip(texts, broken, strict=True)]


class _Watch(LogitsProcessor):
    """Notes which rows of a batch have logits that are no numbers.  -inf is one: processors forbid tokens so."""

    def __init__(self) -> None:
        self._bad: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        bad = (torch.isnan(scores) | torch.isposinf(scores)).any(-1)
        self._bad = bad if self._bad is None else self._bad | bad
        return scores

    def broken(self, rows: int) -> list[bool]:
        """For each row, whether there were any."""
        return [False] * rows if self._bad is None else self._bad.tolist()


class _Answered(StoppingCriteria):
    """Stops nothing, and tells after each token how many rows of the batch have come to their end."""

    def __init__(self, width: int, ends: frozenset[int], tell: Callable[[int], None]) -> None:
        self._width, self._ends, self._tell = width, sorted(ends), tell

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        ends = torch.tensor(self._ends, device=input_ids.device)
        self._tell(int(torch.isin(input_ids[:, self._width :], ends).any(-1).sum()))
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def _reach(shown: Stage, before: int, done: int) -> None:
    shown.reach(before + done)
