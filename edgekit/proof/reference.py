"""What the trained torch model says, and its bare base: the yardsticks that exported files are held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.data import Row
from edgekit.evaluation.bare import bare_answers
from edgekit.evaluation.evaluate import questions
from edgekit.evaluation.scoring import Yardstick
from edgekit.evaluation.stacked import stacked_model
from edgekit.evaluation.torch_model import TorchModel, trained_model
from edgekit.project import Adapter, Project
from edgekit.proof.alive import Change, Likeliest, token_kl
from edgekit_runtime.errors import InputError

COMPARED_TOKENS = 2048  # answer tokens whose whole distribution is kept: enough for a mean, few enough for memory
LEAST_F16 = float(np.finfo(np.float16).min)  # a log-probability below it stays a number


@dataclass(frozen=True)
class Reference:
    """Answers and token distributions of one adapter or stack in torch, and of its base without it.

    Attributes:
        adapter: its settings.
        runs_on: the precision that it was trained at, and answers at here.
        rows: the evaluation rows asked.
        places: where each row stands, ``file:line`` from the project's folder on.
        max_tokens: where answers are cut off, on every engine alike.
        yardstick: how answers are compared.
        prompts: token ids of each row's prompt.
        answers: greedy answers.
        base_answers: those of the bare base.
        forced: token ids of the reference answers of the first rows, up to ``COMPARED_TOKENS`` tokens.
        logprobs: for each of ``forced``, log-probabilities [tokens, vocabulary], float16.
        likeliest: for each of ``forced``, the likeliest tokens with and without the adapter, float32.
        change: how far the adapter moves its base.
    """

    adapter: Adapter
    runs_on: str
    rows: Sequence[Row]
    places: Sequence[str]
    max_tokens: int
    yardstick: Yardstick
    prompts: Sequence[list[int]]
    answers: Sequence[str]
    base_answers: Sequence[str]
    forced: Sequence[list[int]]
    logprobs: Sequence[NDArray[Any]]
    likeliest: Sequence[Likeliest]
    change: Change


def take_reference(project: Project, adapter: Adapter, limit: int) -> Reference:
    """Ask the trained model and its bare base at most ``limit`` evaluation rows.

    Raises:
        InputError: the adapter isn't trained, changes nothing or computes what are no numbers, or there are no
            evaluation rows.
    """
    base, rows, max_tokens, yardstick = questions(project, adapter, limit)
    model, weights = (stacked_model if adapter.name in project.stacks else trained_model)(project, adapter, base)
    prompts = [model.encoder.prompt_ids(row, adapter.system) for row in rows]
    forced: list[list[int]] = []
    for row in rows:
        ids = model.encoder.answer_ids(row, adapter.system)
        if forced and sum(map(len, forced)) + len(ids) > COMPARED_TOKENS:
            break
        forced.append(ids)
    logprobs, likeliest, change = _distributions(model, rows[: len(forced)], prompts[: len(forced)], forced)
    if not change.alive:
        raise InputError(
            f"adapter {adapter.name} changes nothing: torch gives the same logits with and without it "
            f"(largest difference {change.largest:.1g})",
            "check that its tensors are named after the base's layers and that lora_B is not all zero, or train it",
        )
    answers = model.answers(rows, adapter.system, max_tokens, with_adapter=True)
    return Reference(
        adapter=adapter,
        runs_on=weights.label,
        rows=rows,
        places=[row.where for row in rows],
        max_tokens=max_tokens,
        yardstick=yardstick,
        prompts=prompts,
        answers=answers,
        base_answers=bare_answers(model, base, weights, rows, adapter.system, max_tokens),
        forced=forced,
        logprobs=logprobs,
        likeliest=likeliest,
        change=change,
    )


def _distributions(
    model: TorchModel, rows: Sequence[Row], prompts: Sequence[list[int]], forced: Sequence[list[int]]
) -> tuple[list[NDArray[Any]], list[Likeliest], Change]:
    kept: list[NDArray[Any]] = []
    likeliest: list[Likeliest] = []
    kls: list[NDArray[Any]] = []
    largest: list[float] = []
    bare = model.answer_logprobs(rows, prompts, forced, with_adapter=False)
    adapted = model.answer_logprobs(rows, prompts, forced, with_adapter=True)
    for without, with_it in zip(bare, adapted, strict=True):
        kept.append(np.maximum(with_it, LEAST_F16).astype(np.float16))
        likeliest.append(Likeliest.of(with_it, without))
        kls.append(token_kl(with_it, without))
        largest.append(float(np.abs(with_it - without).max()))
    return kept, likeliest, Change.of(kls, largest)
