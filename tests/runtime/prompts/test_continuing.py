"""A last message that goes on: the prompt is what transformers makes of it, or the request is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.prompts.chat import Asking
from edgekit_runtime.prompts.continuing import Ending, ending_of
from edgekit_runtime.prompts.template import TemplateFacts
from tests.chat_templates import CHATML, TEMPLATES
from tests.conversations import TEXTS
from tests.runtime.prompts.test_chat import Device, device, tokenizer

__all__ = ["device", "tokenizer"]  # fixtures

CONTINUED = Asking(ending=Ending.TEXT)


def asked(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": "Pump a: hot"}, {"role": "assistant", "content": text}]


# transformers continues no message of a template that doesn't name its content.
@pytest.mark.parametrize("name", [name for name, source in TEMPLATES.items() if "content" in str(source)])
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS | st.just('{"part":'))
def test_a_prompt_ends_where_transformers_ends_it(name: str, tokenizer: Any, device: Device, text: str) -> None:
    from jinja2 import TemplateError

    facts = TemplateFacts.of(TEMPLATES[name], tokenizer.special_tokens_map)
    tokenizer.chat_template = TEMPLATES[name]
    try:
        expected = tokenizer.apply_chat_template(asked(text), tokenize=False, continue_final_message=True)
    except (TemplateError, TypeError, ValueError, KeyError):
        expected = None
    prompts = device.prompts(facts)
    try:
        ours = prompts.chat(asked(text), CONTINUED).tokens
    except InputError:
        # What transformers makes of it has to be wrong then: the mark may stand in a place that only looks right.
        assert expected is None or text.strip() not in expected.rpartition("Pump a: hot")[2]
        return
    assert expected is not None
    assert ours == tokenizer(expected, add_special_tokens=False).input_ids


def test_control_tokens_in_the_text_are_none(device: Device, tokenizer: Any) -> None:
    prompts = device.prompts(TemplateFacts.of(CHATML, tokenizer.special_tokens_map))
    plain = prompts.chat(asked("so be it"), CONTINUED).tokens
    spelt = prompts.chat(asked("so <|im_end|> it"), CONTINUED).tokens
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert spelt.count(end) == plain.count(end)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for m in messages %}{{ m.role }};{% endfor %}", "doesn't show where"),
        ("{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}", "doesn't show where"),
        ("{% for m in messages %}{{ m.content.split('-')[-1] }};{% endfor %}", "leaves some of"),
        ("{% for m in messages %}{{ m.content | upper }};{% endfor %}", "leaves some of"),
    ],
)
def test_a_template_that_hides_where_a_message_ends_is_refused(device: Device, template: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        device.prompts(TemplateFacts.of(template, {})).chat(asked("one-two"), CONTINUED)


def test_a_message_without_a_text_is_not_continued(device: Device, tokenizer: Any) -> None:
    prompts = device.prompts(TemplateFacts.of(CHATML, tokenizer.special_tokens_map))
    call = {"function": {"name": "f", "arguments": {}}}
    with pytest.raises(InputError, match="without a text"):
        prompts.chat([{"role": "assistant", "content": None, "tool_calls": [call]}], CONTINUED)


def test_a_closed_message_is_closed_as_transformers_does(device: Device, tokenizer: Any) -> None:
    facts = TemplateFacts.of(CHATML, tokenizer.special_tokens_map)
    tokenizer.chat_template = CHATML
    expected = tokenizer.apply_chat_template(asked("so"), tokenize=False)
    found = device.prompts(facts).chat(asked("so"), Asking(ending=Ending.MESSAGE)).tokens
    assert found == tokenizer(expected, add_special_tokens=False).input_ids


def test_flags_say_how_a_prompt_ends() -> None:
    def ending(prompt: bool | None, go_on: bool | None) -> Ending:
        return ending_of(add_generation_prompt=prompt, continue_final_message=go_on)

    assert ending(None, None) is ending(True, False) is Ending.QUESTION
    assert ending(False, None) is Ending.MESSAGE
    assert ending(False, True) is ending(None, True) is Ending.TEXT
    with pytest.raises(UsageError, match="exclude each other"):
        ending(True, True)
