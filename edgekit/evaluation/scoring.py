"""How good answers are: per field for JSON, call by call for calls of tools, token F1 and ROUGE-L for text.

Of the fields of JSON, free text counts by its token F1, all else is right or wrong (:mod:`edgekit.evaluation.answers`).
Calls are right as a whole or wrong (:mod:`edgekit.evaluation.calls`).
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

from edgekit.data import Row
from edgekit.evaluation.answers import FieldPath, agreement, free_text_fields, json_object, same, token_f1
from edgekit.evaluation.calls import CallShares, ReadCalls, call_shares, mark_calls
from edgekit_runtime.prompts.reasoning import answer_part
from edgekit_runtime.prompts.tool_syntax import Tools

BOOTSTRAP_SAMPLES = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Yardstick:
    """How the answers of a data set are compared: decided once, from all of its rows.

    Attributes:
        free_text: fields of JSON answers that are free text.
        read_calls: understands an answer where rows call tools; None where none does.
    """

    free_text: frozenset[FieldPath] = frozenset()
    read_calls: ReadCalls | None = None


@dataclass(frozen=True)
class Score:
    """Means over all rows, each between 0 and 1.

    Attributes:
        kind: "calls" when rows call tools, else "json" when every reference is a JSON object, else "text".
        rows: how many.
        metric: name of the figure that sums it up: "tool_accuracy", "field_accuracy" or "token_f1".
        value: that figure.
        interval: its 95 % interval.
        exact: share of answers that equal the reference (calls and JSON: by value; text: without outer white space).
        valid_json: share of answers that are a JSON object; only for JSON.
        field_accuracy: mean share of the reference's fields that are right, free text by its token F1; only for JSON.
        fields: the same of each field.
        token_f1: mean token F1; only for text.
        rouge_l: mean ROUGE-L; only for text.
        per_row: the summing figure of each row.
        calls: what of the calls is right; only for calls.
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
    calls: CallShares | None = None


def score_rows(rows: Sequence[Row], answers: Sequence[str], yardstick: Yardstick) -> Score:
    """:func:`score` of answers to rows."""
    return score([row.answer for row in rows], answers, yardstick, tools=[row.tools for row in rows])


def score(
    references: Sequence[str],
    answers: Sequence[str],
    yardstick: Yardstick | None = None,
    *,
    tools: Sequence[Tools] | None = None,
) -> Score:
    """Compare answers with references, row by row; reasoning before an answer doesn't count.

    Args:
        references: what is right.
        answers: one a reference.
        yardstick: how they are compared; decided from ``references`` when None, where no call is read.
        tools: of each row, where calls are read.

    Raises:
        ValueError: not one answer a reference, or none at all.
    """
    if len(references) != len(answers) or not references:
        raise ValueError(f"{len(answers)} answers to {len(references)} references")
    references, answers = list(map(answer_part, references)), list(map(answer_part, answers))
    if yardstick is not None and yardstick.read_calls is not None:
        return _score_calls(references, answers, tools or [()] * len(answers), yardstick.read_calls)
    objects = [json_object(reference) for reference in references]
    if all(each is not None for each in objects):
        free = free_text_fields(references) if yardstick is None else yardstick.free_text
        return _score_json([each for each in objects if each is not None], answers, free)
    return _score_text(references, answers)


def points_between(one: Score, other: Score) -> list[float]:
    """How many points (0-100) ``one`` has more than ``other``, row by row of the same rows."""
    return [100 * (first - second) for first, second in zip(one.per_row, other.per_row, strict=True)]


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


def _score_calls(references: Sequence[str], answers: Sequence[str], tools: Sequence[Tools], read: ReadCalls) -> Score:
    asked = zip(references, answers, tools, strict=True)
    marks = [mark_calls(read(reference, known), read(answer, known)) for reference, answer, known in asked]
    per_row = tuple(each.value for each in marks)
    return Score(
        kind="calls",
        rows=len(marks),
        metric="tool_accuracy",
        value=statistics.fmean(per_row),
        interval=bootstrap_interval(per_row),
        exact=statistics.fmean(each.exact for each in marks),
        valid_json=None,
        field_accuracy=None,
        fields={},
        token_f1=None,
        rouge_l=None,
        per_row=per_row,
        calls=call_shares(marks),
    )


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
