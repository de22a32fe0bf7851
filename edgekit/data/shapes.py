"""Kinds of rows: which one an object is, and the conversation in it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from edgekit.data.columns import Columns, ignoring, refuse_unknown
from edgekit.data.row import IMAGE
from edgekit.data.values import names, unpacked
from edgekit_runtime.errors import InputError

MESSAGES = "messages"
CONVERSATIONS = ("conversations", "conversation")
QUESTIONS = ("prompt", "question", "query", "instruction", "input")
ANSWERS = ("completion", "response", "answer", "output")
_INSTRUCTION = "instruction"
_GIVEN = ("input", "context")  # beside an instruction
_SYSTEM = ("system", "system_prompt")
_TOOLS = ("tools", "functions")
_HISTORY = "history"
_RENDERED = "text"  # Alpaca's fourth key: the row once more, as its prompt template writes it
_ALPACA = "Below is"  # how that template begins
_KINDS = 'use {"messages"}, {"conversations"}, {"prompt", "completion"} or {"instruction", "input", "output"}'
_PREFERRED = ("chosen", "rejected")


@dataclass(frozen=True)
class Draft:
    """A conversation as it stands in the file: the answer is its last message."""

    messages: list[Any]
    system: str | None = None
    tools: Any = None


def read_shape(document: dict[str, Any], where: str, columns: Columns) -> Draft:
    """Recognise an object (without nulls and images) by its keys.

    Raises:
        InputError: no kind of row has these keys, or two have.
    """
    _refuse_preferences(document, where)
    kinds = [kind for kind in _ALL if kind.fits(document)]
    if not kinds:
        raise _unknown_kind(document, where)
    if len(kinds) > 1:
        exact = [kind for kind in kinds if not kind.extra(document)]
        if len(exact) != 1 and columns.everything:
            raise InputError(f"{where}: it could be several kinds of rows ({names(document)})", "ignore one by name")
        kinds = exact or kinds
    kind = kinds[0]
    extra = kind.extra(document)
    if extra and not columns.everything:
        raise refuse_unknown(extra, [*kind.keys(document), IMAGE], where)
    return kind.read({key: value for key, value in document.items() if key not in extra}, where)


@dataclass(frozen=True)
class _Kind:
    fits: Callable[[dict[str, Any]], bool]
    keys: Callable[[dict[str, Any]], Collection[str]]  # that such a row may have
    read: Callable[[dict[str, Any], str], Draft]

    def extra(self, document: dict[str, Any]) -> list[str]:
        known = self.keys(document)
        return [key for key in document if key not in known]


def with_each_answer(document: dict[str, Any], where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """An object with a chosen and a rejected answer as two with one answer each.

    Both are answers to ``prompt``, or without one whole conversations.

    Raises:
        InputError: it has not both.
    """
    missing = [key for key in _PREFERRED if key not in document]
    if missing:
        raise InputError(f"{where}: {' and '.join(missing)} is missing", 'use {"prompt", "chosen", "rejected"}')
    kind = ANSWERS[0] if _questions(document) else MESSAGES
    rest = {key: value for key, value in document.items() if key not in _PREFERRED}
    chosen, rejected = ({**rest, kind: document[key]} for key in _PREFERRED)
    return chosen, rejected


def _read_conversation(document: dict[str, Any], where: str) -> Draft:
    key = next(key for key in (MESSAGES, *CONVERSATIONS) if key in document)
    messages = unpacked(document[key], key, where)
    if not isinstance(messages, list):
        raise InputError(f"{where}: {key} has to be a list", "see docs/formats.md")
    return _draft(document, messages, where)


def _read_pair(document: dict[str, Any], where: str) -> Draft:
    question_key, answer_key = _one(document, _questions(document), where), _one(document, _answers(document), where)
    question, answer = document[question_key], document[answer_key]
    given = _one(document, [key for key in _GIVEN if key in document and key != question_key], where, optional=True)
    if given:
        question = _joined(_text(document, question_key, where), _text(document, given, where))
    if isinstance(question, list):
        asked = question
    elif _text_in(question, question_key, where).strip():
        asked = [{"role": "user", "content": question}]
    else:
        raise InputError(f"{where}: {question_key} is empty", "write one, or drop the row")
    if isinstance(answer, list):
        _check_completion(answer, answer_key, where)
        said = answer
    else:
        said = [{"role": "assistant", "content": _text_in(answer, answer_key, where)}]
    _check_rendered(document, question_key, answer_key, where)
    return _draft(document, [*_history(document, where), *asked, *said], where)


def _draft(document: dict[str, Any], messages: list[Any], where: str) -> Draft:
    system = _one(document, [key for key in _SYSTEM if key in document], where, optional=True)
    tools = _one(document, [key for key in _TOOLS if key in document], where, optional=True)
    text = _text(document, system, where) if system else ""
    return Draft(messages, text or None, document[tools] if tools else None)


def _joined(instruction: str, given: str) -> str:
    return f"{instruction}\n\n{given}" if given and instruction.strip() else instruction


def _history(document: dict[str, Any], where: str) -> list[Any]:
    turns = unpacked(document.get(_HISTORY), _HISTORY, where) or []
    well = isinstance(turns, list) and all(
        isinstance(turn, list) and len(turn) == 2 and all(isinstance(text, str) for text in turn) for turn in turns
    )
    if not well:
        raise InputError(
            f"{where}: {_HISTORY} has to be a list of [question, answer]", "write pairs of texts, [] for none"
        )
    roles = ("user", "assistant")
    return [{"role": role, "content": text} for turn in turns for role, text in zip(roles, turn, strict=True)]


def _check_completion(answer: list[Any], key: str, where: str) -> None:
    first = answer[0] if answer else None
    if not isinstance(first, dict) or first.get("role") != "assistant":
        raise InputError(
            f"{where}: {key} does not begin with a message of role assistant",
            "a whole conversation goes under messages (columns: {messages: " + key + "})",
        )


def _check_rendered(document: dict[str, Any], question: str, answer: str, where: str) -> None:
    """Alpaca's ``text`` says the same once more; another text would be lost without a word."""
    if _RENDERED not in document:
        return
    text = document[_RENDERED]
    same = isinstance(text, str) and (
        text.startswith(_ALPACA) or all(str(document[key]).strip() in text for key in (question, answer))
    )
    if not same:
        raise InputError(
            f"{where}: {_RENDERED} says something else than {question} and {answer}",
            ignoring([_RENDERED]),
        )


def _questions(document: dict[str, Any]) -> list[str]:
    found = [key for key in QUESTIONS if key in document]
    return [key for key in found if key not in _GIVEN] if _INSTRUCTION in found else found


def _answers(document: dict[str, Any]) -> list[str]:
    return [key for key in ANSWERS if key in document]


def _pair_keys(document: dict[str, Any]) -> Collection[str]:
    beside = (*_GIVEN, _RENDERED) if _INSTRUCTION in document else ()
    return (*QUESTIONS, *ANSWERS, *beside, *_SYSTEM, *_TOOLS, _HISTORY)


def _one(document: dict[str, Any], found: list[str], where: str, *, optional: bool = False) -> str:
    """The one key of several that mean the same; empty ones count as missing where they may be."""
    present = [key for key in found if document[key] not in ("", [])] if optional else found
    if len(present) > 1:
        raise InputError(f"{where}: {' and '.join(present)} would be the same part of the row", ignoring([present[1]]))
    return present[0] if present else ""


def _text(document: dict[str, Any], key: str, where: str) -> str:
    return _text_in(document[key], key, where)


def _text_in(value: Any, key: str, where: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{where}: {key} has to be text", "put it in quotes")
    return value


def _refuse_preferences(document: dict[str, Any], where: str) -> None:
    if all(key in document for key in _PREFERRED):
        wanted = "completion" if "prompt" in document else MESSAGES
        raise InputError(
            f"{where}: it has a chosen and a rejected answer, and this method trains on one",
            f"use method: dpo, or write columns: {{{wanted}: chosen}} and ignore: [rejected] under data:",
        )
    if isinstance(document.get("label"), bool) and _answers(document):
        raise InputError(
            f"{where}: label tells good answers from bad ones, and edgekit trains on all",
            "keep the good ones, and write ignore: [label] under data: in edgekit.yaml",
        )


def _unknown_kind(document: dict[str, Any], where: str) -> InputError:
    """The error for keys of no kind, with the nearest one."""
    problem = f"{where}: the keys {names(document) or '(none)'} are no known kind of row"
    question, answer = _questions(document), _answers(document)
    if set(document) == {_RENDERED}:
        return InputError(problem, "text alone has no question and answer; cut it into prompt and completion")
    partners = {"completion": "prompt", "response": "instruction", "answer": "question", "output": "instruction"}
    meant = _near_miss(document)
    if meant:
        return InputError(problem, f"did you mean {meant}?")
    if question:
        partner = next((theirs for theirs, ours in partners.items() if ours == question[0]), "completion")
        return InputError(problem, f"{question[0]} needs an answer beside it ({partner})")
    if answer:
        return InputError(problem, f"{answer[0]} needs a question beside it ({partners[answer[0]]})")
    return InputError(problem, f"{_KINDS}, or name its columns with columns: {{prompt: …, completion: …}}")


def _near_miss(document: dict[str, Any]) -> str | None:
    known = (MESSAGES, *CONVERSATIONS, *QUESTIONS, *ANSWERS)
    unknown = [key for key in document if key not in (*known, *_SYSTEM, *_TOOLS, _HISTORY, _RENDERED)]
    close = (difflib.get_close_matches(str(key), known, 1, cutoff=0.75) for key in unknown)
    return next((found[0] for found in close if found), None)


_ALL = (
    _Kind(lambda row: MESSAGES in row, lambda row: (MESSAGES, *_SYSTEM, *_TOOLS), _read_conversation),
    _Kind(
        lambda row: any(key in row for key in CONVERSATIONS),
        lambda row: (*CONVERSATIONS, *_SYSTEM, *_TOOLS),
        _read_conversation,
    ),
    _Kind(lambda row: bool(_questions(row) and _answers(row)), _pair_keys, _read_pair),
)

ROW_KEYS = (MESSAGES, *CONVERSATIONS, *QUESTIONS, *ANSWERS, "context", *_SYSTEM, *_TOOLS, _HISTORY, IMAGE)
