"""Near-duplicates: questions that say nearly the same in nearly the same words.

Two questions are near-duplicates when all else that is given is the same, the same numbers stand in them in the same
order, and their sets of character 5-grams have a Jaccard similarity of at least ``likeness``.  Case, punctuation and
white space don't count.  Candidates come from MinHash with banded LSH (Broder 1997; Leskovec, Rajaraman and Ullman,
Mining of Massive Datasets, ch. 3) of datasketch; each is then compared exactly.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from edgekit.curation.samples import Sample

LIKENESS = 0.9
LEAST_LIKENESS = 0.7  # below, bands that miss none would compare nearly all pairs
_GRAM = 5
_PERMUTATIONS = 256
_MISSED = 1e-6  # chance that the bands miss a pair exactly as alike as is asked for
_FEW = 32  # so many are compared one by one
_NUMBER = re.compile(r"(?<!\w)-?\d+(?:[.,]\d+)*|\d+")


class NearIndex:
    """Samples among which near-duplicates of another one are looked up."""

    def __init__(self, likeness: float = LIKENESS, *, ignore_numbers: bool = False) -> None:
        """Near is what is ``likeness`` (0.7 to 1) alike; with ``ignore_numbers`` any number is as good as another."""
        self._likeness, self._ignore_numbers = likeness, ignore_numbers
        self._grams: list[frozenset[str]] = []
        self._buckets: dict[Hashable, _Bucket] = {}

    def add(self, new: Sample) -> int:
        """Add a sample; returns its number, from 0."""
        number = len(self._grams)
        bucket, grams = self._place(new)
        self._grams.append(grams)
        bucket.add(number, self._grams)
        return number

    def like(self, other: Sample) -> list[tuple[int, float]]:
        """Numbers of the samples that are near ``other``, with their similarity; the most alike first."""
        bucket, grams = self._place(other)
        found = ((number, _jaccard(grams, self._grams[number])) for number in bucket.candidates(grams))
        return sorted((each for each in found if each[1] >= self._likeness), key=lambda each: (-each[1], each[0]))

    def _place(self, one: Sample) -> tuple[_Bucket, frozenset[str]]:
        text = unicodedata.normalize("NFKC", one.question).casefold()
        numbers = () if self._ignore_numbers else tuple(_NUMBER.findall(text))
        plain = " ".join(re.findall(r"\w+", _NUMBER.sub("0", text) if self._ignore_numbers else text)) or text
        bucket = self._buckets.setdefault((one.given, numbers), _Bucket(self._likeness))
        return bucket, frozenset(plain[at : at + _GRAM] for at in range(max(1, len(plain) - _GRAM + 1)))


class _Bucket:
    """Samples that may be near one another: all compared while they are few, by bands of hashes when they are many."""

    def __init__(self, likeness: float) -> None:
        self._likeness = likeness
        self._members: list[int] = []
        self._bands: Any = None

    def add(self, number: int, grams: Sequence[frozenset[str]]) -> None:
        self._members.append(number)
        if self._bands is not None:
            self._bands.insert(number, _hashes(grams[number]))
        elif len(self._members) > _FEW:
            from datasketch import MinHashLSH

            width = _band_width(self._likeness)
            self._bands = MinHashLSH(num_perm=_PERMUTATIONS, params=(_PERMUTATIONS // width, width))
            for each in self._members:
                self._bands.insert(each, _hashes(grams[each]))

    def candidates(self, grams: frozenset[str]) -> Iterable[int]:
        return self._members if self._bands is None else self._bands.query(_hashes(grams))


def _band_width(likeness: float) -> int:
    """The widest bands that still find pairs of this similarity: 1 - (1 - s^width)^bands is their chance."""
    fits = [w for w in range(1, 17) if (1 - likeness**w) ** (_PERMUTATIONS // w) < _MISSED]
    return max(fits, default=1)


def _hashes(grams: frozenset[str]) -> Any:
    from datasketch import MinHash

    made = MinHash(num_perm=_PERMUTATIONS)
    made.update_batch([gram.encode() for gram in grams])
    return made


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


def near_pairs(
    samples: Sequence[Sample], likeness: float = LIKENESS, *, ignore_numbers: bool = False
) -> list[tuple[int, int, float]]:
    """Each sample that is near an earlier one: its number, that of the one it is most alike, and the similarity.

    Exact duplicates are among them, with a similarity of 1.
    """
    index, found = NearIndex(likeness, ignore_numbers=ignore_numbers), []
    first_of: dict[tuple[str, str], int] = {}
    added: list[int] = []  # the index holds no question twice
    for number, each in enumerate(samples):
        first = first_of.setdefault(each.key, number)
        if first != number:
            found.append((number, first, 1.0))
            continue
        near = index.like(each)
        if near:
            found.append((number, added[near[0][0]], near[0][1]))
        index.add(each)
        added.append(number)
    return found


def groups(
    samples: Sequence[Sample],
    keys: Sequence[Hashable] | None = None,
    likeness: float = LIKENESS,
    *,
    ignore_numbers: bool = False,
) -> list[list[int]]:
    """Numbers of the samples that belong together: near ones, those near these, and those of the same key.

    Args:
        samples: what is grouped.
        keys: one a sample; equal ones belong together, None belongs to nobody.
        likeness: from which two samples are near.
        ignore_numbers: any number is as good as another.
    """
    leader = list(range(len(samples)))

    def lead(number: int) -> int:
        while leader[number] != number:
            leader[number] = leader[leader[number]]
            number = leader[number]
        return number

    def join(one: int, other: int) -> None:
        first, second = sorted((lead(one), lead(other)))
        leader[second] = first

    first_of: dict[Hashable, int] = {}
    for number, key in enumerate(keys or ()):
        if key is not None:
            join(number, first_of.setdefault(("key", key), number))
    index, added = NearIndex(likeness, ignore_numbers=ignore_numbers), list[int]()
    for number, each in enumerate(samples):
        first = first_of.setdefault(("question", *each.key), number)
        join(number, first)
        if first == number:
            for near, _ in index.like(each):
                join(number, added[near])
            index.add(each)
            added.append(number)
    found: dict[int, list[int]] = {}
    for number in range(len(samples)):
        found.setdefault(lead(number), []).append(number)
    return list(found.values())
