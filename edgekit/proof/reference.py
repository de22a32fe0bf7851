"""What the trained torch model says: the yardstick that exported files are held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.data import Row
from edgekit.evaluation.evaluate import questions
from edgekit.evaluation.torch_model import trained_model
from edgekit.project import Adapter, Project

COMPARED_TOKENS = 2048  # answer tokens whose whole distribution is kept: enough for a mean, few enough for memory


@dataclass(frozen=True)
class Reference:
    """Answers and token distributions of one adapter in torch.

    Attributes:
        adapter: its settings.
        runs_on: the precision that it was trained at, and answers at here.
        rows: the evaluation rows asked.
        max_tokens: where answers are cut off, on every engine alike.
        prompts: token ids of each row's prompt.
        answers: greedy answers.
        forced: token ids of the reference answers of the first rows, up to ``COMPARED_TOKENS`` tokens.
        logprobs: for each of ``forced``, log-probabilities [tokens, vocabulary], float16.
    """

    adapter: Adapter
    runs_on: str
    rows: Sequence[Row]
    max_tokens: int
    prompts: Sequence[list[int]]
    answers: Sequence[str]
    forced: Sequence[list[int]]
    logprobs: Sequence[NDArray[Any]]


def take_reference(project: Project, adapter: Adapter, limit: int) -> Reference:
    """Ask the trained model at most ``limit`` evaluation rows.

    Raises:
        InputError: the adapter isn't trained, or there are no evaluation rows.
    """
    base, rows, max_tokens = questions(project, adapter, limit)
    model, trained = trained_model(project, adapter, base)
    prompts = [model.encoder.prompt_ids(row, adapter.system) for row in rows]
    forced: list[list[int]] = []
    for row in rows:
        ids = model.encoder.answer_ids(row, adapter.system)
        if forced and sum(map(len, forced)) + len(ids) > COMPARED_TOKENS:
            break
        forced.append(ids)
    logprobs = model.answer_logprobs(prompts[: len(forced)], forced)
    return Reference(
        adapter=adapter,
        runs_on=trained.label,
        rows=rows,
        max_tokens=max_tokens,
        prompts=prompts,
        answers=model.answers(rows, adapter.system, max_tokens, with_adapter=True),
        forced=forced,
        logprobs=[each.astype(np.float16) for each in logprobs],
    )
