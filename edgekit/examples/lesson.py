"""Example data: answers of a physics lesson, and what a tutor says to them.

A row is a question of the lesson with a learner's answer, and the answer is one line of JSON: topic, mark, hint.

The rules, all of which a model has to learn from examples:

* Each topic has a question, a right answer, and two usual mistakes with a hint each (``TOPICS``).
* The right answer is marked "right", and its hint is ``PRAISE``.  A mistake is marked "wrong", and gets its hint.
* No answer ("I don't know") is marked "open", and gets the topic's first hint.

Evaluation rows use (topic, kind of answer, wording of answer) combinations and wordings that training lacks.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.examples.answers import TEXT, answer_schema, one_line, one_of
from edgekit.examples.drawing import Recipe

SYSTEM = "Mark."
TRAIN_ROWS, EVAL_ROWS = 400, 100


@dataclass(frozen=True)
class Topic:
    """``mistakes`` are usual wrong answers, each with the hint that helps."""

    question: str
    right: str
    mistakes: dict[str, str]


TOPICS = {
    "ice": Topic("Why does ice float?", "it is lighter than water", {
        "it is cold": "Compare densities.", "it is heavy": "Does heavy sink?"}),
    "sky": Topic("Why is the sky blue?", "air scatters blue light", {
        "it mirrors the sea": "Look over land.", "space is blue": "Look at night."}),
    "moon": Topic("Why does the moon shine?", "it reflects the sun", {
        "it burns": "Who lights it?", "it is a star": "Compare its size."}),
    "rust": Topic("Why does iron rust?", "it reacts with oxygen", {
        "it is old": "Think of air.", "it is dirty": "Clean iron rusts too."}),
    "sound": Topic("Why is there no sound in space?", "there is no air", {
        "it is too cold": "What carries sound?", "it is too far": "Distance is not it."}),
    "season": Topic("Why do we have summer?", "the axis is tilted", {
        "the sun is closer": "Think of Australia.", "the sun is hotter": "The sun is constant."}),
    "salt": Topic("Why does salt melt ice?", "it lowers the freezing point", {
        "salt is warm": "Measure the salt.", "salt is heavy": "Weight is not it."}),
    "bulb": Topic("Why does a bulb glow?", "current heats the wire", {
        "it stores light": "Switch it off.", "the glass burns": "Which part is hot?"}),
}  # fmt: skip
PRAISE = "Well done."
MARKS = ("right", "wrong", "open")
NOTHING = "I don't know"
# The last ones are kept for evaluation.
FRAMES = (
    "{question} {reply}.",
    "Question: {question} Answer: {reply}.",
    "{question} / {reply}",
    "Task {number}. {question} The pupil writes: {reply}.",
    "{question} My guess is: {reply}.",
    "Asked: {question} Said: {reply}.",
    "{question} My answer is: {reply}.",
    "Lesson {number}: {question} A learner says {reply}.",
)
UNSEEN_FRAMES = 2
STYLES = ("{reply}", "hm, {reply}", "well, {reply}", "er, {reply}")
KINDS = ("right", "first", "second", "none")
HELD_OUT_SHARE = 0.2

SCHEMA = answer_schema(topic=one_of(TOPICS), mark=one_of(MARKS), hint=TEXT)


def judge(topic: str, reply: str) -> tuple[str, str]:
    """Mark and hint for what a learner says, by the rules above; ``reply`` is one of the topic's, or ``NOTHING``."""
    known = TOPICS[topic]
    if reply == NOTHING:
        return "open", next(iter(known.mistakes.values()))
    return ("right", PRAISE) if reply == known.right else ("wrong", known.mistakes[reply])


def answer(topic: str, reply: str) -> str:
    """The reference answer."""
    mark, hint = judge(topic, reply)
    return one_line({"topic": topic, "mark": mark, "hint": hint})


def _row(chosen: random.Random, combination: tuple[str, str, str], frames: Sequence[str]) -> tuple[str, str]:
    topic, kind, style = combination
    known = TOPICS[topic]
    first, second = known.mistakes
    reply = {"right": known.right, "first": first, "second": second, "none": NOTHING}[kind]
    text = chosen.choice(frames).format(
        question=known.question, reply=style.format(reply=reply), number=chosen.randint(1, 99)
    )
    return text, answer(topic, reply)


COMBINATIONS = tuple(itertools.product(TOPICS, KINDS, STYLES))
generate = Recipe(_row, COMBINATIONS, FRAMES, HELD_OUT_SHARE, UNSEEN_FRAMES).generate
