"""Which questions are nearly the same."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.curation.similar import NearIndex, groups, near_pairs
from tests.kit.curation.rows import asked

LONG = "the delivery came two days late and the box was open when the driver put it down at our back door"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (LONG, LONG.upper()),
        (LONG, LONG.replace(" and", ",  and") + "!"),
        (LONG, LONG.replace("our back door", "our front door")),
        (
            "送货晚了两天,司机把箱子放在后门口时箱子是开着的,里面的零件有划痕",
            "送货晚了两天, 司机把箱子放在后门口时箱子是开着的,里面的零件有划痕。",
        ),
        ("?", "?"),
    ],
    ids=["case", "punctuation", "a word", "Chinese", "only a sign"],
)
def test_near(one: str, other: str) -> None:
    assert near_pairs([asked(one), asked(other)], 0.8) != []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (LONG, "Scratch on the flange of the housing, reported by the camera of station four in the morning shift"),
        (f"{LONG} 0.40 mm", f"{LONG} 0.41 mm"),
        (f"{LONG} at -5 degrees", f"{LONG} at 5 degrees"),
        ("?", "!"),
    ],
    ids=["other words", "another number", "another sign", "only signs"],
)
def test_not_near(one: str, other: str) -> None:
    assert near_pairs([asked(one), asked(other)], 0.9) == []


def test_numbers_can_be_ignored() -> None:
    pair = [asked(f"{LONG}, order 4711"), asked(f"{LONG}, order 815")]
    assert near_pairs(pair) == []
    assert [each[:2] for each in near_pairs(pair, ignore_numbers=True)] == [(1, 0)]


def test_another_system_prompt_is_another_question() -> None:
    assert near_pairs([asked(LONG, system="English"), asked(LONG, system="French")]) == []


def _jaccard(one: str, other: str) -> float:
    a, b = ({text[at : at + 5] for at in range(max(1, len(text) - 4))} for text in (one, other))
    return len(a & b) / len(a | b)


@pytest.mark.parametrize("likeness", [0.7, 0.8, 0.9, 1.0])
def test_bands_miss_no_pair_that_a_comparison_of_all_finds(likeness: float) -> None:
    chosen = random.Random(1)
    words = ["alpha", "bravo", "delta", "gamma", "sigma", "omega", "theta", "kappa"]
    texts = [" ".join(chosen.choices(words, k=14)) for _ in range(60)]
    texts += [f"{text[:-5]}{chosen.choice(words)}" for text in texts for _ in range(3)]
    index = NearIndex(likeness)
    for text in texts:
        index.add(asked(text))
    for text in texts[:80]:
        wanted = {n for n, other in enumerate(texts) if _jaccard(text, other) >= likeness}
        assert {number for number, _ in index.like(asked(text))} == wanted
        assert wanted


@given(st.lists(st.sampled_from(["a b c d e f", "A b c d e f!", "g h i j k l", "m", "n"]), max_size=12))
def test_groups_part_the_rows_and_join_the_near(texts: list[str]) -> None:
    found = groups([asked(text) for text in texts])
    assert sorted(number for group in found for number in group) == list(range(len(texts)))
    same = [{texts[number].lower().strip("!") for number in group} for group in found]
    assert all(len(each) == 1 for each in same)
    assert len(same) == len({text.lower().strip("!") for text in texts})


def test_groups_join_what_has_the_same_key() -> None:
    samples = [asked(text) for text in ("one thing", "two things", "three things", "something else")]
    assert groups(samples, ["x", "y", "x", None]) == [[0, 2], [1], [3]]
