"""Reasoning of a request: the switch of each template, and reasoning told from the answer however it is cut."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.prompts.reasoning import KNOWN_TAGS, split_reasoning
from edgekit_runtime.prompts.template import ChatTemplate
from edgekit_runtime.prompts.thinking import Splitter, Thinking, split, thinking_arguments, thinking_in

TAGS = KNOWN_TAGS[0]
SHUT, OPEN = Thinking(*TAGS, open=False), Thinking(*TAGS, open=True)
PARTS = st.lists(
    st.sampled_from(["<think>", "</think>", "a", "b c", " ", "\n", "<", "</", "<th", "ink>", "é"]), max_size=12
)

NO_SWITCH, SWITCH = ChatTemplate("{{ messages }}"), ChatTemplate("{% if enable_thinking %}<think>{% endif %}")
OTHER_SWITCH = ChatTemplate("{% if thinking %}<think>{% endif %}{{ documents_title }}")
EFFORTS = ChatTemplate("{{ reasoning_effort }}{{ '</think>' }}")


@given(parts=PARTS, thinking=st.sampled_from([SHUT, OPEN]))
def test_pieces_add_up_to_what_the_whole_text_is(parts: list[str], thinking: Thinking) -> None:
    splitter = Splitter(thinking)
    told = [splitter.feed(part) for part in parts] + [splitter.feed("", last=True)]
    assert ("".join(each for each, _ in told), "".join(each for _, each in told)) == split("".join(parts), thinking)


@given(before=PARTS, after=PARTS)
def test_a_block_is_told_as_it_is_in_training(before: list[str], after: list[str]) -> None:
    reasoning, answer = "".join(before).replace(TAGS.end, ""), "".join(after)
    text = f"{TAGS.start}{reasoning}{TAGS.end}{answer}"
    expected, rest = split_reasoning(text)
    for found in (split(text, SHUT), split(text.removeprefix(TAGS.start), OPEN)):
        assert found[0] == expected
        assert found[1].strip() == rest


@pytest.mark.parametrize("text", ["", " x", "so <think>no</think>", "<thin", "\n<b>"])
def test_a_text_that_begins_otherwise_is_an_answer_to_the_letter(text: str) -> None:
    assert split(text, SHUT) == ("", text)


def test_reasoning_that_does_not_end_leaves_no_answer() -> None:
    assert split("<think>\nwhy </th", SHUT) == ("why </th", "")


@pytest.mark.parametrize(
    ("template", "kwargs", "effort", "expected"),
    [
        (NO_SWITCH, None, None, {}),
        (NO_SWITCH, {"enable_thinking": False}, None, {}),
        (NO_SWITCH, None, "none", {}),
        (SWITCH, {"enable_thinking": True}, None, {"enable_thinking": True}),
        (SWITCH, None, "none", {"enable_thinking": False}),
        (SWITCH, {"thinking": False}, "none", {"enable_thinking": False}),
        (OTHER_SWITCH, {"enable_thinking": True}, None, {"thinking": True}),
        (OTHER_SWITCH, {"documents_title": "x"}, None, {"documents_title": "x"}),
        (EFFORTS, None, "high", {"reasoning_effort": "high"}),
    ],
)
def test_a_template_is_told_by_its_own_names(
    template: ChatTemplate, kwargs: dict[str, Any] | None, effort: str | None, expected: dict[str, Any]
) -> None:
    assert thinking_arguments(template, kwargs, effort) == expected


@pytest.mark.parametrize(
    ("template", "kwargs", "effort"),
    [
        (NO_SWITCH, {"enable_thinking": True}, None),
        (NO_SWITCH, {"odd": 1}, None),
        (NO_SWITCH, {"messages": []}, None),
        (NO_SWITCH, None, "low"),
        (SWITCH, None, "high"),
        (SWITCH, None, "huge"),
        (SWITCH, {"enable_thinking": "yes"}, None),
        (SWITCH, {"enable_thinking": True}, "none"),
        (EFFORTS, None, "none"),
        (EFFORTS, {"enable_thinking": False}, None),
    ],
)
def test_what_a_template_does_not_know_is_refused(
    template: ChatTemplate, kwargs: dict[str, Any] | None, effort: str | None
) -> None:
    with pytest.raises((InputError, UsageError)):
        thinking_arguments(template, kwargs, effort)


def test_a_prompt_may_end_within_reasoning() -> None:
    for end, continued, within in (
        ("assistant\n", None, False),
        ("assistant\n<think>\n", None, True),
        ("assistant\n<think>\n\n</think>\n\n", None, False),
        ("assistant\n<think>why", "<think>why", True),
        ("assistant\n<think>why</think>so", "<think>why</think>so", False),
    ):
        assert thinking_in(TAGS, end, continued).open is within
