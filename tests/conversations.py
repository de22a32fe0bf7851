"""Random conversations for chat templates: with tools and their calls, system prompts, reasoning and many turns."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

Message = dict[str, Any]
# No digits behind white space: the demo base's two tokenizers cut white space before a digit differently.
TEXTS = st.text("abc \n\t.,'\"{}<>&ßé检测", max_size=12)
WORDS = st.text("abcdefg ", min_size=1, max_size=12).filter(lambda text: bool(text.strip()))
VALUES = st.one_of(st.integers(-9, 9), st.booleans(), st.none(), TEXTS, st.lists(WORDS, max_size=2))
CALLS = st.builds(
    lambda name, arguments: {"id": "abcdefgh1", "type": "function", "function": {"name": name, "arguments": arguments}},
    st.sampled_from(["measure", "reject"]),
    st.dictionaries(st.sampled_from(["part", "size", "Größe"]), VALUES, max_size=2),
)
TOOLS = st.lists(
    st.builds(
        lambda name, about, kind: {
            "type": "function",
            "function": {
                "name": name,
                "description": about,
                "parameters": {
                    "type": "object",
                    "properties": {"part": {"type": "string"}, "size": {"type": kind, "items": {"type": "string"}}},
                    "required": ["part"],
                },
            },
        },
        st.sampled_from(["measure", "reject"]),
        TEXTS,
        st.sampled_from(["number", "array", "boolean"]),
    ),
    max_size=2,
)


def answers(texts: st.SearchStrategy[str] = TEXTS) -> st.SearchStrategy[Message]:
    """Messages of the assistant: plain, with reasoning in either form, or with calls."""
    return st.one_of(
        st.builds(lambda text: {"role": "assistant", "content": text}, texts),
        st.builds(
            lambda thought, text: {"role": "assistant", "content": f"<think>\n{thought}\n</think>\n\n{text}"},
            WORDS,
            texts,
        ),
        st.builds(
            lambda thought, text: {"role": "assistant", "content": text, "reasoning_content": thought}, WORDS, texts
        ),
        st.builds(
            lambda calls, content: {"role": "assistant", "content": content, "tool_calls": calls},
            st.lists(CALLS, min_size=1, max_size=2),
            st.one_of(st.none(), texts),
        ),
    )


@st.composite
def conversations(draw: st.DrawFn, texts: st.SearchStrategy[str] = TEXTS) -> list[Message]:
    """Messages that end with a question of the user, or with what a tool found."""
    messages: list[Message] = []
    if draw(st.booleans()):
        messages.append({"role": "system", "content": draw(texts)})
    for _ in range(draw(st.integers(0, 2))):
        messages.append({"role": "user", "content": draw(texts)})
        answer = draw(answers(texts))
        messages.append(answer)
        if "tool_calls" in answer and draw(st.booleans()):
            messages.append({"role": "tool", "content": draw(texts), "tool_call_id": "abcdefgh1"})
            messages.append({"role": "assistant", "content": draw(texts)})
    messages.append({"role": "user", "content": draw(texts)})
    return messages
