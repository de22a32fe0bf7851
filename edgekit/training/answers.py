"""The text that a model has to write after a prompt, for it to have given a row's answer.

Prompt and text together are what stands in the conversation at inference, whatever the template makes of an answer
that has become history.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from edgekit.data import Row
from edgekit_runtime.chat import IMAGE_PART, Message, check_messages, parts_of, text_of
from edgekit_runtime.errors import InputError
from edgekit_runtime.reasoning import DROP, KEEP, Tags, take_apart
from edgekit_runtime.template import REASONING

ASSISTANT = "assistant"
TOOL_CALLS = "tool_calls"


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
    prompt: str, reply: Message, render: Callable[[Message], str | None], tags: Tags, mode: str | None
) -> str:
    """What follows ``prompt``.

    Args:
        prompt: as the template renders it.
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
    # The template opens the reasoning in the prompt and leaves it out of answers, or knows nothing of it.
    tail = tags.tail.search(prompt)
    head = prompt[: tail.start()] if tail else prompt
    whole = plain
    if whole is None or not whole.startswith(head) or not (thought or tail):
        raise InputError(
            "the base's chat template renders the conversation differently when this answer follows",
            "give a template that only appends, as chat_template: in edgekit.yaml",
        )
    said = tags.block.sub("", whole[len(head) :], count=1) if tags.block.match(whole, len(head)) else whole[len(head) :]
    if tail is None:
        block = f"{tags.start}\n{thought}\n{tags.end}\n\n"
    elif tail[1] is None:
        block = f"{'' if prompt.endswith(chr(10)) else chr(10)}{thought}\n{tags.end}\n\n"
    elif thought:
        raise InputError("the base's chat template ends the reasoning in the prompt", "set reasoning: drop")
    else:
        block = ""
    if text_of(bare).strip() and not said.strip():
        raise leaves_answer_out()
    return _checked(block + said, reply)


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
                "choose a base whose template renders tool_calls, or give such a template as chat_template:",
            )
    return text


def _bare(message: Message) -> Message:
    return take_apart(message)[1] if message["role"] == ASSISTANT else message
