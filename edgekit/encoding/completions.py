"""The text that a model has to write after a prompt, for it to have given a row's answer.

Prompt and text together are what stands in the conversation at inference, whatever the template makes of an answer
that has become history.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from edgekit.data import Row
from edgekit_runtime.errors import InputError
from edgekit_runtime.prompts.chat import IMAGE_PART, Message, check_messages, parts_of, text_of
from edgekit_runtime.prompts.reasoning import DROP, KEEP, Tags, take_apart
from edgekit_runtime.prompts.template import REASONING

ASSISTANT = "assistant"
TOOL_CALLS = "tool_calls"
_OTHER = "\N{SNOWMAN}"  # an answer that begins as no row's does
_LINE = "\n"
LONGEST_HEADER = 256  # of what stands between a prompt and an answer's first sign


def reply_of(row: Row) -> Message:
    """A row's answer as a message."""
    return dict(row.reply) if row.reply is not None else {"role": ASSISTANT, "content": row.answer}


def default_reasoning(rows: list[Row]) -> str:
    """``keep`` where rows have reasoning, else ``drop``."""
    return KEEP if any(take_apart(reply_of(row))[0] for row in rows) else DROP


def without_reasoning(row: Row) -> Row:
    """A row whose conversation has none of the assistant's reasoning."""
    return replace(row, messages=tuple(_bare(each) for each in row.messages))


def turns_of(row: Row) -> list[Row]:
    """A row for each of the assistant's turns that answers something, the row itself last."""
    messages = check_messages(row.messages, len(row.images))
    turns = []
    for at, message in enumerate(messages):
        if at == 0 or message["role"] != ASSISTANT or not (text_of(message).strip() or message.get(TOOL_CALLS)):
            continue
        before = tuple(messages[:at])
        images = sum(parts_of(each).count(IMAGE_PART) for each in before)
        turns.append(replace(row, messages=before, answer=text_of(message), reply=message, images=row.images[:images]))
    return [*turns, replace(row, messages=tuple(messages))]


def answer_text(
    prompt: str, question: str, reply: Message, render: Callable[[Message], str | None], tags: Tags, mode: str | None
) -> str:
    """What follows ``prompt``.

    Args:
        prompt: as the template renders it.
        question: the text of the last message before the answer.
        reply: the answer.
        render: prompt and an answer as the template renders them; None where it renders the conversation otherwise.
        tags: what the base's reasoning stands between.
        mode: ``keep`` or ``drop``; None is as ``keep``.

    Raises:
        InputError: the template can't be made to say this after its own prompt.
    """
    thought, bare = take_apart(reply)
    if mode == DROP:
        thought = ""
    plain = render(bare)
    mentions = (plain or "").count(thought)  # by chance: in the answer, or in a role's name
    for form in [reply, {**bare, REASONING[0]: thought}] if thought else [bare]:
        whole = render(form)
        if whole is not None and whole.startswith(prompt) and (not thought or whole.count(thought) > mentions):
            return _checked(whole[len(prompt) :], reply)
    # The template opens the reasoning in the prompt and leaves it out of answers, or knows nothing of it, or renders
    # what comes before another way when an answer follows.
    tail = tags.tail.search(prompt)
    head = prompt[: tail.start()] if tail else prompt
    said = _behind(head, plain, render({"role": ASSISTANT, "content": _OTHER}), question)
    if said is None:
        raise InputError(
            "the base's chat template renders the conversation differently when this answer follows",
            "give a template that only appends, as chat_template: in edgekit.yaml",
        )
    said = tags.block.sub("", said, count=1) if tags.block.match(said) else said
    if text_of(bare).strip() and not said.strip():
        raise leaves_answer_out()
    return _checked(_block(prompt, tail, thought, tags) + said, reply)


def _behind(head: str, whole: str | None, other: str | None, question: str) -> str | None:
    """What ``whole`` has behind ``head``; None where that can't be told.

    Some templates take a system prompt out of the last message when an answer follows it: then it is what stands behind
    the same question.

    Args:
        head: a prompt.
        whole: a conversation with an answer.
        other: the same with another answer: where the two part, the answer has begun.
        question: the text of the last message before the answer.
    """
    if whole is not None and whole.startswith(head):
        return whole[len(head) :]
    if whole is None or other is None or not question:
        return None
    parting = _common(whole, other)
    ends = range(max(0, parting - LONGEST_HEADER), parting + 1)
    shared, end = max((_common(head[::-1], whole[end - 1 :: -1] if end else ""), end) for end in ends)
    return whole[end:] if question in head[len(head) - shared :] else None


def _common(one: str, other: str) -> int:
    """How long the beginning is that two texts share."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _block(prompt: str, tail: re.Match[str] | None, thought: str, tags: Tags) -> str:
    """What reasoning makes of the answer's beginning; ``tail`` is what the prompt has begun of it."""
    if tail is None:
        return f"{tags.start}\n{thought}\n{tags.end}\n\n" if thought else ""
    if tail[1] is None:
        return f"{'' if prompt.endswith(_LINE) else _LINE}{thought}\n{tags.end}\n\n"
    if thought:
        raise InputError("the base's chat template ends the reasoning in the prompt", "set reasoning: drop")
    return ""


def leaves_answer_out() -> InputError:
    """The template renders nothing where the answer should be."""
    return InputError(
        "the base's chat template leaves the answer out",
        "give a template that renders answers, as chat_template: in edgekit.yaml",
    )


def _checked(text: str, reply: Message) -> str:
    """Raises InputError where the template has left out what the answer is about."""
    for call in reply.get(TOOL_CALLS) or ():
        name = call.get("function", call).get("name")
        if not isinstance(name, str) or name not in text:
            raise InputError(
                "the base's chat template leaves the answer's tool calls out",
                "leave the text beside the calls out, or give another template as chat_template:",
            )
    return text


def _bare(message: Message) -> Message:
    return take_apart(message)[1] if message["role"] == ASSISTANT else message
