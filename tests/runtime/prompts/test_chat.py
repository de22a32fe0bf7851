"""Text for the model is what transformers would have made of the same template."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit_exporters.base import Base
from edgekit_runtime.engines.llama.vocabulary import LlamaVocabulary
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.gguf import GgufFile, read_gguf
from edgekit_runtime.prompts.chat import Asking, TextTemplate, apply_system, check_messages, text_of
from edgekit_runtime.prompts.rendering import Prompts
from edgekit_runtime.prompts.system import folded, takes_system
from edgekit_runtime.prompts.template import KEY_TOKENS, ChatTemplate, TemplateFacts, stopped_clock
from tests.chat_templates import LLAMA3, TEMPLATES
from tests.conversations import TOOLS, conversations

KINDS = [{}, {"enable_thinking": True}, {"enable_thinking": False}, {"thinking": True}]


@pytest.fixture(scope="module")
def tokenizer(demo_base: Base) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(demo_base.folder)


class Device:
    """The demo base as a device reads it, with any template."""

    def __init__(self, path: Path) -> None:
        self.header, self.vocabulary = read_gguf(path), LlamaVocabulary.open(path)

    def holding(self, metadata: dict[str, Any]) -> GgufFile:
        return dataclasses.replace(self.header, metadata={**self.header.metadata, **metadata})

    def prompts(self, facts: TemplateFacts) -> Prompts:
        return Prompts(self.holding(facts.metadata()), self.vocabulary.tokenize)


@pytest.fixture(scope="module")
def device(demo_base: Base) -> Device:
    assert demo_base.gguf is not None
    return Device(demo_base.gguf)


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=conversations(), tools=TOOLS, arguments=st.sampled_from(KINDS), prompt=st.booleans())
def test_families_templates_give_the_text_and_tokens_of_transformers(
    name: str,
    tokenizer: Any,
    device: Device,
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]],
    arguments: dict[str, Any],
    prompt: bool,
) -> None:
    from jinja2 import TemplateError

    facts = TemplateFacts.of(TEMPLATES[name], tokenizer.special_tokens_map)
    template = ChatTemplate.of(TemplateFacts.read(device.holding(facts.metadata())))
    tokenizer.chat_template = TEMPLATES[name]
    try:
        options: dict[str, Any] = {"tools": tools or None, "add_generation_prompt": prompt, **arguments}
        expected = tokenizer.apply_chat_template(messages, tokenize=False, **options)
    except (TemplateError, TypeError, ValueError, KeyError):
        with pytest.raises(InputError, match="chat template"):
            template.render(messages, tools=tools, arguments=arguments, add_generation_prompt=prompt)
        return
    ours = template.render(messages, tools=tools, arguments=arguments, add_generation_prompt=prompt)
    assert ours == expected
    if prompt:
        asked = device.prompts(facts).chat(messages, Asking(None, arguments, tools)).tokens
        given, told = TextTemplate(template).tools.given(messages, tools)  # what the template leaves out, in messages
        if not takes_system(template.render):
            given = folded(given)
        if given != messages or told != tools:
            expected = tokenizer.apply_chat_template(given, tokenize=False, **{**options, "tools": told or None})
        assert asked == tokenizer(expected, add_special_tokens=False).input_ids


def test_tokens_that_a_base_lacks_are_undefined_and_others_files_tell_theirs_by_number(
    device: Device, tokenizer: Any
) -> None:
    shown = ChatTemplate("{{ bos_token is defined }}{{ unk_token is defined }}{{ eos_token }}", {"eos_token": "<e>"})
    assert shown.render([{"role": "user", "content": "x"}]) == "FalseFalse<e>"
    assert KEY_TOKENS not in device.header.metadata
    found = TemplateFacts.read(device.header).tokens
    assert found == {name: text for name, text in tokenizer.special_tokens_map.items() if name in found}
    assert {"bos_token", "eos_token", "unk_token"} <= set(found)


@pytest.mark.parametrize("tokens", ["[]", "{", '{"bos_token": 3}', 7, '{"bos_token": "\\ud800"}'])
def test_tokens_that_are_none_are_refused(device: Device, tokens: Any) -> None:
    with pytest.raises(InputError, match="no JSON object of texts"):
        TemplateFacts.read(device.holding({KEY_TOKENS: tokens}))


def test_of_several_templates_one_is_taken_as_transformers_takes_it() -> None:
    asked = [{"role": "user", "content": "x"}]
    several = ChatTemplate({"default": "plain", "tool_use": "with {{ tools | length }}", "rag": "{% broken"})
    assert several.render(asked) == "plain"
    assert several.render(asked, tools=[{"type": "function"}]) == "with 1"
    assert ChatTemplate({"default": "plain"}).render(asked, tools=[{"type": "function"}]) == "plain"
    with pytest.raises(InputError, match="chat templates rag, tool_use, and none is called default"):
        ChatTemplate({"tool_use": "x", "rag": "y"})


def test_another_template_leaves_nothing_of_the_old_one_in_a_file(tmp_path: Path, demo_base: Base) -> None:
    from edgekit_exporters.gguf.metadata import rewrite_metadata

    assert demo_base.gguf is not None
    files = [tmp_path / "one.gguf", tmp_path / "two.gguf"]
    several = TemplateFacts({"default": "a", "tool_use": "b"}, {"eos_token": "<e>"})
    alone = TemplateFacts({"default": "c"}, {})
    rewrite_metadata(demo_base.gguf, files[0], several.metadata())
    rewrite_metadata(files[0], files[1], alone.metadata())
    assert [TemplateFacts.read(read_gguf(file)) for file in files] == [several, alone]
    assert not [key for key in read_gguf(files[1]).metadata if key.startswith("tokenizer.chat_template.")]


def test_what_reads_the_clock_sees_one_moment_while_it_is_stopped() -> None:
    template = ChatTemplate("{{ strftime_now('%H:%M:%S.%f') }}")
    asked = [{"role": "user", "content": "x"}]
    assert template.render(asked) != template.render(asked)
    with stopped_clock():
        assert template.render(asked) == template.render(asked)
    assert template.moment == f"{datetime.datetime.now():%Y-%m-%d}"
    assert ChatTemplate("x").moment == ""


def test_the_preamble_is_that_of_the_day_and_of_the_tools(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = device.prompts(TemplateFacts.of(LLAMA3, {"bos_token": "<|im_start|>"}))
    tool = {"type": "function", "function": {"name": "measure"}}
    seen = []
    for day in (1, 2):
        moment = datetime.datetime(2026, 3, day)
        monkeypatch.setattr("edgekit_runtime.prompts.template._now", lambda moment=moment: moment)
        for tools in ([], [tool]):
            asking = Asking("You are terse.", None, tools)
            tokens = prompts.chat([{"role": "user", "content": "scratch of 3 mm"}], asking).tokens
            length = prompts.preamble(tokens, asking)
            assert length > 8
            seen.append(tuple(tokens[:length]))
    assert len(set(seen)) == 4


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
    with pytest.raises(InputError, match="broken at line 1"):
        ChatTemplate("{% generation %}no end")
    with pytest.raises(InputError, match="refuses these messages"):
        ChatTemplate("{% set n = namespace(_x=1) %}").render([{"role": "user", "content": "x"}])


def test_the_adapters_system_prompt_comes_first_unless_the_caller_brought_one() -> None:
    user = {"role": "user", "content": "x"}
    own = {"role": "system", "content": "mine"}
    assert apply_system([user], "theirs") == [{"role": "system", "content": "theirs"}, user]
    assert apply_system([own, user], "theirs") == [own, user]
    assert apply_system([user], None) == [user]


@pytest.mark.parametrize(
    "messages",
    [
        [],
        ["x"],
        [{"role": "boss", "content": "x"}],
        [{"role": "user", "content": 3}],
        [{"role": "user"}],
        [{"role": "user", "content": None, "tool_calls": [{}]}],
        [{"role": "assistant", "content": None, "tool_calls": []}],
    ],
)
def test_messages_that_are_none_are_refused(messages: list[Any]) -> None:
    with pytest.raises(InputError):
        check_messages(messages)


CALL = {"type": "function", "function": {"name": "measure", "arguments": {"part": 3}}}


def test_a_message_that_calls_tools_needs_no_text() -> None:
    checked = check_messages([{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": [CALL]}])
    assert checked[1]["content"] is None
    assert text_of(checked[1]) == ""


@pytest.mark.parametrize("arguments", ['{"part": 3}', ' {"part":3}\n', {"part": 3}])
def test_arguments_become_objects(arguments: Any) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "measure", "arguments": arguments}}
    (checked,) = check_messages([{"role": "assistant", "content": None, "tool_calls": [call]}])
    assert checked["tool_calls"] == [{"id": "c1", **CALL}]


def test_a_developer_is_the_system() -> None:
    assert check_messages([{"role": "developer", "content": "x"}])[0]["role"] == "system"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"role": "assistant", "content": None}, "message 1 has no text"),
        ({"role": "assistant", "content": None, "tool_calls": []}, "message 1 has no text"),
        ({"role": "assistant", "content": None, "tool_calls": ["measure"]}, "call 1 has no function with a name"),
        ({"role": "assistant", "content": "", "tool_calls": {}}, None),
        ({"role": "assistant", "content": "", "tool_calls": {"a": 1}}, "tool_calls has to be a list"),
        ({"role": "user", "content": None, "tool_calls": [CALL]}, "is not the assistant's"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[]"}}]}, "are no JSON object"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{} 1"}}]}, "are no JSON object"),
        ({"role": "assistant", "tool_calls": [{**CALL, "id": 3}]}, "its id is no text"),
        ({"role": "assistant", "tool_calls": [{**CALL, "type": "custom"}]}, "another type than function"),
    ],
)
def test_a_message_needs_a_text_or_calls(message: dict[str, Any], words: str | None) -> None:
    if words is None:
        assert "tool_calls" not in check_messages([message])[0]
        return
    with pytest.raises(InputError, match=words):
        check_messages([message])


@pytest.mark.parametrize(
    "source",
    [
        "{% break %}",
        "{% continue %}",
        "{% for m in messages %}{% generation %}{% break %}{% endgeneration %}{% endfor %}",
        "{% for a in messages %}" * 40 + "{% endfor %}" * 40,
        "{{ " + "9" * 5000 + " }}",
        "{{ " + "(" * 300 + "1" + ")" * 300 + " }}",
        "{{ 1|dictsort }}",
        "{{ messages|map(attribute='role')|map('dictsort')|list }}",
        "{{ messages|attr(1) }}",
        "{{ messages.append(1) }}",
        "{{ ''.join([1]) }}",
        "{{ 'a' % 1 }}",
        "{{ 2 ** 'a' }}",
        "{{ '%d'|format('x') }}",
        "{{ strftime_now(1) }}",
        "{{ strftime_now() }}",
        "{{ 1|batch('x')|list }}",
        "{{ messages|tojson(indent=messages) }}",
        "{{ messages[0]|xmlattr(1, 2, 3) }}",
    ],
)
def test_whatever_a_template_does_wrong_is_told_as_the_template_s(source: str) -> None:
    with pytest.raises(InputError, match="chat template"):
        ChatTemplate(source).render([{"role": "user", "content": "x"}])


def test_a_template_that_writes_half_a_character_is_told_as_that() -> None:
    with pytest.raises(InputError, match="the base's chat template writes half a character"):
        ChatTemplate("{{ '\\ud800' }}").render([{"role": "user", "content": "x"}])


@pytest.mark.parametrize("source", ["{% " + "x" * 9999 + " %}", "{{ 1 | " + "x" * 9999 + " }}"])
def test_what_is_said_of_a_template_has_an_end(source: str) -> None:
    with pytest.raises(InputError, match="broken at line 1") as refused:
        ChatTemplate(source)
    assert len(str(refused.value)) < 1000


def test_nobody_is_warned_of_what_stands_in_a_template(recwarn: pytest.WarningsRecorder) -> None:
    ChatTemplate("{{ 1.5[1:2] }}")
    assert not recwarn.list


def test_a_template_that_knows_no_calls_is_told_as_that() -> None:
    call = {"type": "function", "function": {"name": "measure", "arguments": {}}}
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    with pytest.raises(InputError, match="use a base whose template renders tool_calls"):
        ChatTemplate("{% for m in messages %}{{ m.role + m.content }}{% endfor %}").render(messages)
