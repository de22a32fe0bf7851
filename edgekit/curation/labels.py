"""What answers can be told apart by: fields of JSON answers with few values, or short answers as a whole."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.curation.samples import Sample

ANSWER = "answer"  # the name of a label that is the whole answer
MOST_VALUES = 20
_OBJECTS = 0.9  # share of answers that are JSON objects, from which the others are mistakes
_ROWS_A_VALUE = 2  # on average; with fewer it is free text that happens to be short
_LONGEST = 40  # characters of a value


@dataclass(frozen=True)
class Label:
    """A field of answers (or the :data:`ANSWER`) and how often each value is there, the most frequent first."""

    name: str
    counts: Mapping[str, int]


def find_labels(samples: Sequence[Sample]) -> list[Label]:
    """The labels that answers have; none where all is free text."""
    objects = [each.value for each in samples if isinstance(each.value, dict)]
    if samples and len(objects) >= _OBJECTS * len(samples):
        names = list(dict.fromkeys(name for each in objects for name in each))
        found = [(name, [each[name] for each in objects if name in each]) for name in names]
    else:
        found = [(ANSWER, [each.row.answer.strip() for each in samples])]
    return [counted(name, values) for name, values in found if _is_label(values)]


def counted(name: str, values: Sequence[Any]) -> Label:
    """The label of these values."""
    return Label(name, dict(Counter(map(value_text, values)).most_common()))


def value_text(value: Any) -> str:
    """A value as tables show it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _is_label(values: Sequence[Any]) -> bool:
    if not all(value is None or isinstance(value, (str, bool, int)) for value in values):
        return False
    texts = set(map(value_text, values))
    few = 2 <= len(texts) <= min(MOST_VALUES, max(2, len(values) // _ROWS_A_VALUE))
    return few and all(len(text) <= _LONGEST for text in texts)
