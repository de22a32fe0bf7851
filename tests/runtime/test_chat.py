"""Text for the model is what transformers would have made of the same template."""

from __future__ import annotations

from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from edgekit_runtime.chat import ChatTemplate, apply_system, check_messages, text_of
from edgekit_runtime.errors import InputError

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
INDENTED = """{{- bos_token }}
{% for m in messages %}
    {% if m.role == 'user' %}
        {{- '[INST] ' + m.content | trim + ' [/INST]' }}
    {% elif m.role == 'system' %}
        {% continue %}
    {% else %}
        {{- ' ' + m.content + eos_token }}
    {% endif %}
{% endfor %}
"""
TOOLS = (
    "{{ messages[0] | tojson }}{{ messages | length }}{% if tools %}{{ tools }}{% endif %}"
    "{{ messages[-1]['content'] | upper }}"
)
CONVERSATIONS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "Grüße <b>&amp; 检测"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " hi "}],
    [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c\n"},
    ],
]


@pytest.mark.parametrize("template", [CHATML, INDENTED, TOOLS])
@pytest.mark.parametrize("messages", CONVERSATIONS)
@pytest.mark.parametrize("prompt", [True, False])
def test_rendering_equals_transformers(template: str, messages: list[dict[str, Any]], prompt: bool) -> None:
    (expected,), _ = render_jinja_template(
        [messages], chat_template=template, add_generation_prompt=prompt, bos_token="<s>", eos_token="</s>"
    )
    ours = ChatTemplate(template, "<s>", "</s>").render(messages, add_generation_prompt=prompt)
    assert ours == expected


def test_a_template_can_not_reach_out_of_its_sandbox() -> None:
    for attack in (
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{% for i in range(999999999) %}x{% endfor %}",
    ):
        with pytest.raises(InputError, match="chat template"):
            ChatTemplate(attack).render([{"role": "user", "content": "x"}])


def test_a_refusal_of_the_template_reaches_the_user() -> None:
    with pytest.raises(InputError, match="roles must alternate"):
        ChatTemplate("{{ raise_exception('roles must alternate') }}").render([{"role": "user", "content": "x"}])
    with pytest.raises(InputError, match="broken at line 2"):
        ChatTemplate("ok\n{% if %}")


def test_the_adapters_system_prompt_comes_first_unless_the_caller_brought_one() -> None:
    user = {"role": "user", "content": "x"}
    own = {"role": "system", "content": "mine"}
    assert apply_system([user], "theirs") == [{"role": "system", "content": "theirs"}, user]
    assert apply_system([own, user], "theirs") == [own, user]
    assert apply_system([user], None) == [user]


@pytest.mark.parametrize("messages", [[], ["x"], [{"role": "boss", "content": "x"}], [{"role": "user", "content": 3}]])
def test_messages_that_are_none_are_refused(messages: list[Any]) -> None:
    with pytest.raises(InputError):
        check_messages(messages)


CALL = {"type": "function", "function": {"name": "measure", "arguments": {"part": 3}}}


def test_a_message_that_calls_tools_needs_no_text() -> None:
    checked = check_messages([{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": [CALL]}])
    assert checked[1]["content"] is None
    assert text_of(checked[1]) == ""


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": None},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "assistant", "content": None, "tool_calls": ["measure"]},
        # As OpenAI's clients send it: a template would write this JSON as a text in quotes.
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "measure", "arguments": "{}"}}]},
        {"role": "user", "content": None, "tool_calls": [CALL]},
    ],
)
def test_a_message_without_text_is_refused_unless_it_calls_tools(message: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="message 1 has no text"):
        check_messages([message])
