"""How good answers are: exact and per-field for JSON, token F1 and ROUGE-L for text.

Of the fields of JSON, free text counts by its token F1, all else is right or wrong (:mod:`edgekit.evaluation.answers`).
Token F1 is SQuAD's (Rajpurkar et al. 2016): harmonic mean of the precision and recall of the bag of words.  ROUGE-L is
Lin 2004's longest common subsequence F-measure, from the rouge-score package.  Intervals are percentile bootstrap
intervals (Efron 1979) over rows.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from edgekit.evaluation.answers import FieldPath, agreement, free_text_fields, json_object, same, token_f1
from edgekit_runtime.prompts.reasoning import answer_part

BOOTSTRAP_SAMPLES = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Score:
    """Means over all rows, each between 0 and 1.

    Attributes:
        kind: "json" when every reference is a JSON object, else "text".
        rows: how many.
        metric: name of the figure that sums it up: "field_accuracy" or "token_f1".
        value: that figure.
        interval: its 95 % interval.
        exact: share of answers that equal the reference (JSON: as objects; text: without outer white space).
        valid_json: share of answers that are a JSON object; None for text.
        field_accuracy: mean share of the reference's fields that are right, free text by its token F1; None for text.
        fields: the same of each field; empty for text.
        token_f1: mean token F1; None for JSON.
        rouge_l: mean ROUGE-L; None for JSON.
        per_row: the summing figure of each row.
    """

    kind: str
    rows: int
    metric: str
    value: float
    interval: tuple[float, float]
    exact: float
    valid_json: float | None
    field_accuracy: float | None
    fields: dict[str, float]
    token_f1: float | None
    rouge_l: float | None
    per_row: tuple[float, ...]


def score(references: Sequence[str], answers: Sequence[str], *, free_text: frozenset[FieldPath] | None = None) -> Score:
    """Compare answers with references, row by row; reasoning before an answer doesn't count.

    Args:
        references: what is right.
        answers: one a reference.
        free_text: fields of JSON that are free text; decided from ``references`` when None.

    Raises:
        ValueError: not one answer a reference, or none at all.
    """
    if len(references) != len(answers) or not references:
        raise ValueError(f"{len(answers)} answers to {len(references)} references")
    references, answers = list(map(answer_part, references)), list(map(answer_part, answers))
    objects = [json_object(reference) for reference in references]
    if all(each is not None for each in objects):
        free = free_text_fields(references) if free_text is None else free_text
        return _score_json([each for each in objects if each is not None], answers, free)
    return _score_text(references, answers)


def bootstrap_interval(values: Sequence[float], *, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean of ``values``; NaNs for none, or where one is no number."""
    if not values or not all(map(math.isfinite, values)):
        return math.nan, math.nan
    if len(set(values)) == 1:  # scipy warns of no spread, and refuses a single row
        return values[0], values[0]
    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=BOOTSTRAP_SAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def _score_json(references: list[dict[str, Any]], answers: Sequence[str], free: frozenset[FieldPath]) -> Score:
    given = [json_object(answer) for answer in answers]
    right: dict[str, list[float]] = {}
    per_row = []
    for reference, answer in zip(references, given, strict=True):
        hits = [
            agreement(value, answer[key], free, (key,)) if answer is not None and key in answer else 0.0
            for key, value in reference.items()
        ]
        for key, hit in zip(reference, hits, strict=True):
            right.setdefault(key, []).append(hit)
        per_row.append(statistics.fmean(hits) if hits else float(answer == {}))
    accuracy = statistics.fmean(per_row)
    exact = [same(reference, answer) for reference, answer in zip(references, given, strict=True)]
    return Score(
        kind="json",
        rows=len(references),
        metric="field_accuracy",
        value=accuracy,
        interval=bootstrap_interval(per_row),
        exact=statistics.fmean(exact),
        valid_json=statistics.fmean(answer is not None for answer in given),
        field_accuracy=accuracy,
        fields={key: statistics.fmean(hits) for key, hits in right.items()},
        token_f1=None,
        rouge_l=None,
        per_row=tuple(per_row),
    )


def _score_text(references: Sequence[str], answers: Sequence[str]) -> Score:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])
    pairs = list(zip(references, answers, strict=True))
    per_row = tuple(token_f1(reference, answer) for reference, answer in pairs)
    value = statistics.fmean(per_row)
    return Score(
        kind="text",
        rows=len(pairs),
        metric="token_f1",
        value=value,
        interval=bootstrap_interval(per_row),
        exact=statistics.fmean(reference.strip() == answer.strip() for reference, answer in pairs),
        valid_json=None,
        field_accuracy=None,
        fields={},
        token_f1=value,
        rouge_l=statistics.fmean(scorer.score(*pair)["rougeL"].fmeasure for pair in pairs),
        per_row=per_row,
    )
