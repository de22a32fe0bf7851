"""The example data follow their documented rules, checked by rules written anew here."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import jsonschema
import pytest

from edgekit.examples import contract, finance, inspection, lesson, monitoring, service_desk, triage

Answer = dict[str, Any]
TRAIN, EVALUATION = 400, 100


def _has(text: str, *words: str) -> bool:
    return any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) for word in words)


def _inspection(text: str, answer: Answer) -> None:
    looks = 0 if _has(text, "faint", "slight", "barely visible") else 1 if _has(text, "clear", "plain", "marked") else 2
    crack = _has(text, "crack", "fracture")
    functional = _has(text, "sealing face", "bore", "thread", "bearing seat")
    badness = 2 if crack else looks
    assert answer["severity"] == ("minor", "major", "critical")[badness]
    assert answer["check"] == ("gauge" if functional else "eye")
    assert answer["verdict"] == ("accept", "rework", "scrap")[badness]
    assert (answer["defect"] == "crack") == crack
    assert _has(text, answer["part"])
    assert _has(text, answer["place"])
    size = re.search(r"(\d)[.,](\d) ?mm", text)
    assert answer["mm"] == (float(f"{size[1]}.{size[2]}") if size else None)
    assert answer["report"] == f"{answer['severity']} {answer['defect']} on {answer['place']}: {answer['verdict']}"


def _monitoring(text: str, answer: Answer) -> None:
    signs = {
        "bearing": ("hums", "grinds", "vibrates"),
        "cooling": ("runs hot", "overheats", "smells burnt"),
        "valve": ("loses pressure", "leaks", "drips"),
        "belt": ("slips", "squeals", "loses speed"),
        "sensor": ("sends no signal", "shows wrong values", "is offline"),
    }
    (cause,) = (cause for cause, words in signs.items() if _has(text, *words))
    if _has(text, "no more", "no longer"):
        expected = ("ok", "none", "none")
    elif _has(text, "and has tripped", "and has stopped"):
        expected = ("alarm", cause, f"keep it off, repair the {cause}")
    elif _has(text, "badly", "all the time"):
        expected = ("warning", cause, f"check the {cause} today")
    else:
        expected = ("watch", cause, f"check the {cause} at next service")
    assert (answer["state"], answer["cause"], answer["action"]) == expected
    assert _has(text, answer["machine"])


def _service_desk(text: str, answer: Answer) -> None:
    chinese = not text.isascii()
    assert answer["language"] == ("zh" if chinese else "en")
    assert answer["reply"].isascii() != chinese
    order = re.search(r"[A-D]\d{3}", text)
    assert answer["order"] == (order[0] if order else None)
    assert (answer["reply"] in ("Please send us the order number.", "请告诉我们订单号。")) == (order is None)
    product = service_desk.PRODUCTS[answer["product"]] if chinese else answer["product"]
    assert product in text
    words = {
        "track": ("where is", "arrive", "在哪里", "什么时候"),
        "return": ("return", "back", "退", "收回"),
        "repair": ("broken", "not work", "坏了", "不能用"),
        "cancel": ("cancel", "any more", "取消", "不要"),
        "invoice": ("invoice", "bill", "发票"),
    }
    assert [intent for intent, found in words.items() if any(word in text.lower() for word in found)] == [
        answer["intent"]
    ]


def _finance(text: str, answer: Answer) -> None:
    fact = {"default": 3, "fraud": 3, "covenant": 2, "downgrade": 2, "lawsuit": 1, "resignation": 1}[answer["event"]]
    less = 0 if _has(text, "reports", "confirms") else 1 if _has(text, "expects", "warns of") else 3
    assert answer["risk"] == ("low", "medium", "high", "severe")[max(fact - less, 0)]
    assert answer["reason"].startswith(answer["event"])
    assert _has(text, answer["company"])


def _triage(text: str, answer: Answer) -> None:
    baby = _has(text, "my baby", "our newborn")
    signs = (("breath", "fainted", "blacks"), ("worse",), ("weeks", "month"), ("mild", "little"))
    words = text.lower()
    rank = next(n for n, found in enumerate(signs) if any(word in words for word in found) or "breathe" in words)
    urgency = max(rank - baby, 0)
    assert answer["triage"] == ("emergency", "today", "appointment", "self-care")[urgency]
    assert answer["safety"].startswith(("Call the emergency", "See a doctor", "Make an appointment", "Rest")[urgency])
    assert (answer["who"] == "baby") == baby


def _contract(text: str, answer: Answer) -> None:
    hard = _has(text, "must", "shall in any case")
    (party,) = re.findall(r"the (buyer|supplier)", text, re.IGNORECASE)
    assert answer["party"] == party
    assert answer["flag"] == ("yellow" if not hard else "red" if party == "buyer" else "green")
    assert _has(text, f"{answer['days']} days")


def _lesson(text: str, answer: Answer) -> None:
    known = lesson.TOPICS[answer["topic"]]
    assert known.question in text
    if _has(text, "I don't know"):
        assert answer["mark"] == "open"
    else:
        assert (answer["mark"] == "right") == _has(text, known.right)
    assert (answer["hint"] == "Well done.") == (answer["mark"] == "right")


@dataclass(frozen=True)
class Recipe:
    """``follows`` checks one answer; ``key`` is the combination that a row is about; ``label`` has to be balanced."""

    module: ModuleType
    follows: Callable[[str, Answer], None]
    key: Callable[[str, Answer], tuple[object, ...]]
    label: str
    rarest: float = 0.1
    most: float = 0.5


def _said(words: dict[str, tuple[str, ...]], text: str) -> str:
    return next(word for group in words.values() for word in group if word in text.lower())


def _style(text: str) -> str:
    return next((word for word in ("hm", "well", "er") if re.search(rf"\b{word}, ", text, re.IGNORECASE)), "")


RECIPES = {
    "inspection": Recipe(inspection, _inspection, lambda _, a: (a["part"], a["defect"], a["place"]), "verdict"),
    "monitoring": Recipe(
        monitoring,
        _monitoring,
        lambda text, a: (a["machine"].split()[0], _said(monitoring.SYMPTOMS, text), a["state"]),
        "state",
    ),
    "service-desk": Recipe(service_desk, _service_desk, lambda _, a: (a["intent"], a["product"]), "intent"),
    "finance": Recipe(finance, _finance, lambda _, a: (a["company"], a["event"], a["status"]), "risk"),
    "triage": Recipe(triage, _triage, lambda _, a: (a["who"], a["symptom"], a["sign"]), "triage"),
    "contract": Recipe(contract, _contract, lambda _, a: (a["type"], a["party"], a["force"]), "flag", most=0.55),
    "lesson": Recipe(
        lesson, _lesson, lambda text, a: (a["topic"], a["mark"], a["hint"], _style(text)), "mark", most=0.6
    ),
}
EACH = pytest.mark.parametrize("name", RECIPES)


def _pairs(rows: list[dict[str, object]]) -> list[tuple[str, Answer]]:
    messages: Any = [row["messages"] for row in rows]
    return [(each[0]["content"], json.loads(each[1]["content"])) for each in messages]


def _rows(name: str) -> tuple[list[tuple[str, Answer]], list[tuple[str, Answer]]]:
    train, evaluation = RECIPES[name].module.generate(TRAIN, EVALUATION, 7)
    return _pairs(train), _pairs(evaluation)


@EACH
def test_every_answer_follows_from_the_words_of_its_question(name: str) -> None:
    train, evaluation = _rows(name)
    for text, answer in train + evaluation:
        try:
            RECIPES[name].follows(text, answer)
        except (AssertionError, ValueError) as error:
            raise AssertionError(f"{text} -> {answer}") from error


@EACH
def test_answers_are_one_line_that_the_schema_takes(name: str) -> None:
    recipe = RECIPES[name]
    for row in recipe.module.generate(TRAIN, EVALUATION, 7)[1]:
        text = row["messages"][1]["content"]
        assert "\n" not in text
        jsonschema.validate(json.loads(text), recipe.module.SCHEMA)


@EACH
def test_no_question_stands_twice_and_evaluation_has_combinations_that_training_lacks(name: str) -> None:
    train, evaluation = _rows(name)
    assert len(train) == TRAIN
    assert len(evaluation) == EVALUATION
    assert len({text for text, _ in train + evaluation}) == TRAIN + EVALUATION
    key = RECIPES[name].key
    assert not {key(*pair) for pair in train} & {key(*pair) for pair in evaluation}


@EACH
def test_labels_are_balanced_in_training_and_all_asked_in_evaluation(name: str) -> None:
    recipe = RECIPES[name]
    train, evaluation = (Counter(answer[recipe.label] for _, answer in rows) for rows in _rows(name))
    assert max(train.values()) <= recipe.most * TRAIN
    assert min(train.values()) >= recipe.rarest * TRAIN
    assert train.keys() == evaluation.keys()


@EACH
def test_the_same_seed_gives_the_same_rows_and_another_others(name: str) -> None:
    generate = RECIPES[name].module.generate
    assert generate(40, 10, 3) == generate(40, 10, 3)
    assert generate(40, 10, 3) != generate(40, 10, 4)


def test_each_answer_of_triage_has_a_sentence_of_safety_that_the_schema_asks_for() -> None:
    assert set(triage.SCHEMA["properties"]["safety"]["enum"]) == set(triage.SAFETY.values())
    assert "safety" in triage.SCHEMA["required"]
