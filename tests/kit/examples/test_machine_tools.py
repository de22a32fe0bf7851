"""The rows with tools follow their documented rules, checked by rules written anew here."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import jsonschema
import pytest

from edgekit.examples.machine_tools import TOOLS, generate

TRAIN, EVALUATION = 400, 100
SENSORS = {
    "temperature": "temperature|heat",
    "pressure": "pressure",
    "speed": "speed|rpm",
    "vibration": "vibration",
    "level": "oil|oil level",
    "current": "current|amps",
}
PROBLEMS = {
    "leak": "leaks|drips",
    "noise": "squeals|rattles",
    "jam": "is jammed|is stuck|it is jammed|it is stuck",
    "smoke": "smokes|smells burnt",
    "crack": "has a crack|is cracked",
    "power": "is dead|has no power",
}
PARAMETERS = ("speed", "pressure", "temperature", "feed", "torque", "flow")
Case = tuple[str, Any]  # the question, and the arguments with the tool's name, or a text


def _cases(rows: list[dict[str, object]]) -> list[Case]:
    return [(row["messages"][0]["content"], _said(row["messages"][1])) for row in rows]  # type: ignore[index]


def _said(message: dict[str, Any]) -> Any:
    if "tool_calls" not in message:
        return message["content"]
    (call,) = message["tool_calls"]
    return call["function"]["arguments"] | {"tool": call["function"]["name"]}


def _named(words: dict[str, str], text: str) -> str:
    (found,) = (name for name, said in words.items() if re.search(rf"\b({said})\b", text, re.IGNORECASE))
    return found


def _expected(text: str) -> Any:
    machine = re.search(r"(press|lathe|mill|saw|oven|robot) \d+", text, re.IGNORECASE)
    percent = re.search(r"(\d+) ?(%|percent)", text)
    if re.search("thank|well done|great", text, re.IGNORECASE):
        return "You're welcome."
    if re.search("switch off|clean|sell|paint", text, re.IGNORECASE):
        return "I have no tool for that."
    if machine is None:
        return "Which machine?"
    named = {"machine": machine[0].lower()}
    if re.search(r"change|another|^new|^set", text, re.IGNORECASE) and percent is None:
        return "How many percent?"
    if percent is not None:
        parameters = {name: SENSORS.get(name, name) for name in PARAMETERS}
        named |= {"tool": "set_parameter", "parameter": _named(parameters, text)}
        return named | {"percent": int(percent[1])}
    if haste := re.search("urgent|at once|right now|no hurry|some day|next week", text):
        urgent = haste[0] in ("urgent", "at once", "right now")
        return named | {"tool": "open_ticket", "problem": _named(PROBLEMS, text), "urgent": urgent}
    return named | {"tool": "read_sensor", "sensor": _named(SENSORS, text)}


def _kind(said: Any) -> str:
    return said["tool"] if isinstance(said, dict) else said


def test_every_answer_follows_from_the_words_of_its_question() -> None:
    for rows in generate(TRAIN, EVALUATION, 7):
        for text, said in _cases(rows):
            assert said == _expected(text), text


def test_calls_keep_to_the_parameters_of_their_tool() -> None:
    parameters = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}
    for rows in generate(TRAIN, EVALUATION, 7):
        for _, said in _cases(rows):
            if isinstance(said, dict):
                arguments = {key: value for key, value in said.items() if key != "tool"}
                jsonschema.validate(arguments, parameters[said["tool"]])


def test_no_question_stands_twice_and_evaluation_has_combinations_and_wordings_that_training_lacks() -> None:
    train, evaluation = map(_cases, generate(TRAIN, EVALUATION, 7))
    assert len({text for text, _ in train + evaluation}) == TRAIN + EVALUATION

    def combinations(cases: list[Case]) -> set[tuple[str, str, str]]:
        subjects = ("sensor", "parameter", "problem")
        called = [said for _, said in cases if isinstance(said, dict)]
        return {
            (each["tool"], str(each["machine"]).split()[0], next(str(each[key]) for key in subjects if key in each))
            for each in called
        }

    assert combinations(evaluation)
    assert not combinations(train) & combinations(evaluation)
    unseen = re.compile(r"^(Can you|I want|I see|I thank|All good)")
    assert not any(unseen.match(text) for text, _ in train)
    assert any(unseen.match(text) for text, _ in evaluation)


@pytest.mark.parametrize("part", [0, 1])
def test_each_tool_is_called_often_and_a_third_of_the_rows_calls_none(part: int) -> None:
    cases = _cases(generate(TRAIN, EVALUATION, 7)[part])
    kinds = Counter(_kind(said) for _, said in cases)
    assert min(kinds[tool["function"]["name"]] for tool in TOOLS) >= len(cases) / 10
    silent = sum(isinstance(said, str) for _, said in cases)
    assert len(cases) / 4 <= silent <= len(cases) / 2


def test_each_row_names_the_tools_and_the_same_seed_gives_the_same_rows() -> None:
    assert generate(20, 5, 3) == generate(20, 5, 3) != generate(20, 5, 4)
    assert all(row["tools"] == list(TOOLS) for rows in generate(20, 5, 3) for row in rows)
