"""How good answers are: exact and per-field for JSON, token F1 and ROUGE-L for text.

Token F1 is SQuAD's (Rajpurkar et al. 2016): harmonic mean of the precision and recall of the bag of words.  ROUGE-L is
Lin 2004's longest common subsequence F-measure, from the rouge-score package.  Intervals are percentile bootstrap
intervals (Efron 1979) over rows.
"""

from __future__ import annotations

import json
import random
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgekit_runtime.reasoning import answer_part

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
        field_accuracy: mean share of the reference's fields that are right; None for text.
        fields: accuracy of each field; empty for text.
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


def score(references: Sequence[str], answers: Sequence[str]) -> Score:
    """Compare answers with references, row by row; reasoning before an answer doesn't count.

    Raises:
        ValueError: not one answer a reference, or none at all.
    """
    if len(references) != len(answers) or not references:
        raise ValueError(f"{len(answers)} answers to {len(references)} references")
    references, answers = list(map(answer_part, references)), list(map(answer_part, answers))
    objects = [json_object(reference) for reference in references]
    if all(each is not None for each in objects):
        return _score_json([each for each in objects if each is not None], answers)
    return _score_text(references, answers)


def json_object(text: str) -> dict[str, Any] | None:
    """The JSON object that ``text`` is, or None."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def token_f1(reference: str, answer: str) -> float:
    """Token F1 of two texts, case and outer punctuation aside."""
    one, other = Counter(_words(reference)), Counter(_words(answer))
    if not one or not other:
        return float(one == other)
    common = (one & other).total()
    return 2 * common / (one.total() + other.total())


def bootstrap_interval(values: Sequence[float], *, seed: int = 0) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean of ``values``."""
    chosen = random.Random(seed)
    means = sorted(statistics.fmean(chosen.choices(values, k=len(values))) for _ in range(BOOTSTRAP_SAMPLES))
    tail = round((1 - CONFIDENCE) / 2 * BOOTSTRAP_SAMPLES)
    return means[tail], means[-1 - tail]


def _score_json(references: list[dict[str, Any]], answers: Sequence[str]) -> Score:
    given = [json_object(answer) for answer in answers]
    right: dict[str, list[bool]] = {}
    per_row = []
    for reference, answer in zip(references, given, strict=True):
        hits = [answer is not None and key in answer and _same(value, answer[key]) for key, value in reference.items()]
        for key, hit in zip(reference, hits, strict=True):
            right.setdefault(key, []).append(hit)
        per_row.append(statistics.fmean(hits) if hits else float(answer == {}))
    accuracy = statistics.fmean(per_row)
    exact = [_same(reference, answer) for reference, answer in zip(references, given, strict=True)]
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


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: 1 and 1.0 are, True and 1 are not; white space around text doesn't count."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, str) and isinstance(other, str):
        return " ".join(one.split()) == " ".join(other.split())
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _words(text: str) -> list[str]:
    return [word for word in (part.strip(".,;:!?\"'()[]{}").lower() for part in text.split()) if word]
