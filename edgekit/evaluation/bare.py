"""Answers of the bare base in torch, asked once: they depend on no adapter."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from edgekit.bases.torch_model import compute_dtype, device
from edgekit.bases.weights import Weights
from edgekit.data import Row
from edgekit.evaluation.torch_model import TorchModel
from edgekit.training.record import versions
from edgekit_exporters.base import Base
from edgekit_exporters.cache import cache_folder, cached

FOLDER = "base-answers"


def bare_answers(
    model: TorchModel, base: Base, weights: Weights, rows: Sequence[Row], system: str | None, max_tokens: int
) -> list[str]:
    """Greedy answers of the base without an adapter, from the cache where they were asked for before.

    Args:
        model: the base, with or without an adapter.
        base: which one it is.
        weights: that it holds.
        rows: the questions.
        system: system prompt of the adapter that the answers are compared with.
        max_tokens: where an answer is cut off.

    Raises:
        InputError: the base computes what are no numbers.
    """
    facts = {
        "base": base.key,
        "precision": [weights.precision, weights.quantization, weights.digest],
        "prompts": [model.encoder.prompt_ids(row, system) for row in rows],
        "images": model.encoder.images is not None and model.encoder.images.key,
        "ends": sorted(model.encoder.end_tokens()),
        "max_tokens": max_tokens,
        "computed": [str(device()), str(compute_dtype())],
        "versions": versions(),
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]

    def ask(file: Path) -> None:
        answers = model.answers(rows, system, max_tokens, with_adapter=False)
        file.write_text(json.dumps(answers), encoding="utf-8")

    answers: list[str] = json.loads(cached(cache_folder(FOLDER) / f"{key}.json", ask).read_text(encoding="utf-8"))
    return answers
