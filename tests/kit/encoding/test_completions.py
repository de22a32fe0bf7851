"""What is learnt is what has to be written after the prompt that inference has, for every family's template."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.data import Row
from edgekit.encoding.completions import turns_of
from edgekit.encoding.encoder import IGNORED, Encoder
from edgekit_exporters.base import Base
from edgekit_runtime.engines.llama.vocabulary import LlamaVocabulary
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.gguf import read_gguf
from edgekit_runtime.prompts.chat import Asking
from edgekit_runtime.prompts.reasoning import MODES, answer_part, split_reasoning
from edgekit_runtime.prompts.rendering import Prompts
from edgekit_runtime.prompts.template import stopped_clock
from tests import chat_templates as forms
from tests.conversations import TOOLS, WORDS, answers, conversations

FAMILIES = {name: form for name, form in forms.TEMPLATES.items() if name not in ("names", "zephyr")}
END = re.compile(r"\s*(<\|\w+\|>|<end_of_turn>)\s*\Z")
REFUSED = re.compile(
    r"data/train\.jsonl:7: the base's chat template "
    r"(refuses these messages \(.*\)|leaves the answer's tool calls out|leaves the answer out)"
)
USER = {"role": "user", "content": "scratch of 3 mm"}


@pytest.fixture(scope="session")
def encoder_of(tiny_chat_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Encoder]:
    """An encoder over another template, in the form in which families publish several."""

    def make(template: str | dict[str, str], **options: Any) -> Encoder:
        folder = tmp_path_factory.mktemp("family")
        shutil.copyfile(tiny_chat_base / "tokenizer.json", folder / "tokenizer.json")
        config = json.loads((tiny_chat_base / "tokenizer_config.json").read_text())
        named = (
            [{"name": name, "template": text} for name, text in template.items()] if isinstance(template, dict) else 0
        )
        (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": named or template}))
        return Encoder(folder, **options)

    return make


@pytest.fixture(scope="module")
def inference(demo_base: Base) -> Callable[[Encoder, Row], list[int]]:
    """The prompt of a row as a device makes it."""
    assert demo_base.gguf is not None
    header, vocabulary = read_gguf(demo_base.gguf), LlamaVocabulary.open(demo_base.gguf)

    @functools.cache
    def prompts(encoder: Encoder) -> Prompts:
        facts = {key: value for key, value in encoder.facts.metadata().items() if value is not None}
        return Prompts(dataclasses.replace(header, metadata={**header.metadata, **facts}), vocabulary.tokenize)

    def prompt(encoder: Encoder, row: Row) -> list[int]:
        return prompts(encoder).chat(row.messages, Asking(None, encoder.arguments, row.tools)).tokens

    return prompt


def _row(*messages: dict[str, Any], answer: str = "rework", **more: Any) -> Row:
    return Row(messages or (USER,), answer, (), "data/train.jsonl:7", **more)


def _learnt(encoder: Encoder, row: Row) -> str:
    text: str = encoder.tokenizer.decode(encoder.answer_ids(row, None))
    return text


@pytest.mark.parametrize("mode", [*MODES, None])
@pytest.mark.parametrize("name", FAMILIES)
def test_prompt_and_answer_are_what_inference_has(
    name: str, mode: str | None, encoder_of: Callable[..., Encoder], inference: Callable[[Encoder, Row], list[int]]
) -> None:
    encoder = encoder_of(FAMILIES[name], reasoning=mode)

    @settings(max_examples=30, deadline=None)
    @given(messages=conversations(WORDS), reply=answers(WORDS), tools=TOOLS, every=st.booleans())
    def check(messages: list[dict[str, Any]], reply: dict[str, Any], tools: list[dict[str, Any]], every: bool) -> None:
        row = _row(*messages, answer=reply["content"] or "", reply=reply, tools=tuple(tools))
        with stopped_clock():
            try:
                examples = encoder.encode(row, None, 10_000, every_turn=every)
            except InputError as error:
                if REFUSED.fullmatch(error.problem):
                    return
                raise
            learnt = turns_of(encoder.settled(row, None)) if every else [encoder.settled(row, None)]
            for turn in learnt:  # each is in an example, behind the very prompt of the device
                prompt, said = inference(encoder, turn), encoder.answer_ids(turn, None)
                ids = prompt + said
                assert any(
                    each["input_ids"][: len(ids)] == ids and each["labels"][len(prompt) : len(ids)] == said
                    for each in examples
                )
            assert sum(len(encoder.answer_ids(turn, None)) for turn in learnt) == sum(
                label != IGNORED for each in examples for label in each["labels"]
            )
            # what ends a turn is no token of this tokenizer, for most families
            text = END.sub("", encoder.decode(encoder.answer_ids(row, None)))
        thought = reply.get("reasoning_content") or split_reasoning(reply["content"] or "")[0]
        content = answer_part(reply["content"] or "") if "reasoning_content" not in reply else reply["content"]
        assert all(call["function"]["name"] in text for call in reply.get("tool_calls", ()))
        if not reply.get("tool_calls"):
            assert answer_part(text).strip() == content.strip()
            assert (thought.strip() in split_reasoning(text)[0]) == (mode != "drop" or not thought.strip())

    check()


def test_reasoning_is_kept_or_left_out_of_what_r1_is_taught(encoder_of: Callable[..., Encoder]) -> None:
    thinking = "<think>\nlong\n</think>\n\nrework"
    keep, drop = (encoder_of(forms.DEEPSEEK_R1, reasoning=mode) for mode in MODES)
    assert keep.prompt(_row(), None)[-1].endswith("<|Assistant|><think>\n")
    for row in (
        _row(answer=thinking),
        _row(reply={"role": "assistant", "content": "rework", "reasoning_content": "long"}),
    ):
        assert _learnt(keep, row) == "long\n</think>\n\nrework<|end_of_sentence|><|im_end|>"
        assert _learnt(drop, row) == "\n</think>\n\nrework<|end_of_sentence|><|im_end|>"
    assert _learnt(keep, _row()) == "\n</think>\n\nrework<|end_of_sentence|><|im_end|>"


def test_a_template_with_a_switch_is_told_and_one_without_reasoning_gets_a_block(
    encoder_of: Callable[..., Encoder],
) -> None:
    thinking = _row(answer="<think>\nlong\n</think>\n\nrework")
    keep, drop = (encoder_of(forms.QWEN3, reasoning=mode) for mode in MODES)
    assert (keep.arguments, drop.arguments) == ({"enable_thinking": True}, {"enable_thinking": False})
    assert _learnt(keep, thinking) == "<think>\nlong\n</think>\n\nrework<|im_end|>"
    assert drop.prompt(thinking, None)[-1].endswith("assistant\n<think>\n\n</think>\n\n")
    assert _learnt(drop, thinking) == "rework<|im_end|>"
    reply = {"role": "assistant", "content": "rework", "reasoning_content": "long"}
    for template in (forms.CHATML, forms.SMOLLM3):
        encoder = encoder_of(template, reasoning="keep")
        assert _learnt(encoder, _row(reply=reply)) == "<think>\nlong\n</think>\n\nrework<|im_end|>"
        assert _learnt(encoder_of(template, reasoning="drop"), _row(reply=reply)) == "rework<|im_end|>"
    verbatim = _row(answer="<think>long</think>rework")
    assert _learnt(encoder_of(forms.CHATML), verbatim) == "<think>long</think>rework<|im_end|>"


def test_every_turn_is_learnt_once_and_behind_the_prompt_that_inference_has(encoder_of: Callable[..., Encoder]) -> None:
    talk = (
        USER,
        {"role": "assistant", "content": "<think>\nlong\n</think>\n\none"},
        {"role": "user", "content": "and of 9?"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "why?"},
    )
    plain = encoder_of(forms.CHATML)
    (shared,) = plain.encode(_row(*talk), None, 500, every_turn=True)
    learnt = plain.tokenizer.decode([each for each in shared["labels"] if each != IGNORED])
    assert learnt == "<think>\nlong\n</think>\n\none<|im_end|>two<|im_end|>rework<|im_end|>"
    assert len(plain.encode(_row(*talk), None, 500, every_turn=True, join=False)) == 3
    (last,) = plain.encode(_row(*talk), None, 500)
    assert plain.tokenizer.decode([each for each in last["labels"] if each != IGNORED]) == "rework<|im_end|>"
    # What was thought is no part of the history, so the first turn stands alone.
    rewriting = encoder_of(forms.QWEN3, reasoning="keep").encode(_row(*talk), None, 500, every_turn=True)
    assert len(rewriting) > 1
    assert "long" not in plain.tokenizer.decode(rewriting[-1]["input_ids"])
    assert "long" in plain.tokenizer.decode(rewriting[0]["input_ids"])
    greeting = ({"role": "assistant", "content": "hello"}, USER, {"role": "assistant", "content": " "}, USER)
    assert len(turns_of(_row(*greeting))) == 1


def test_calls_of_functions_are_learnt_as_the_template_writes_them(encoder_of: Callable[..., Encoder]) -> None:
    call = {"id": "abcdefgh1", "type": "function", "function": {"name": "measure", "arguments": {"part": "B"}}}
    tool = {"type": "function", "function": {"name": "measure", "parameters": {"type": "object", "properties": {}}}}
    row = _row(answer="", reply={"role": "assistant", "content": None, "tool_calls": [call]}, tools=(tool,))
    for form in (forms.QWEN25, forms.HERMES):
        encoder = encoder_of(form)
        written = '<tool_call>\n{"name": "measure", "arguments": {"part": "B"}}\n</tool_call>'
        assert encoder.settled(row, None).answer == written
        assert written + "<|im_end|>" in _learnt(encoder, row)
        assert "measure" in encoder.prompt(row, None)[0]
    either = forms.CHATML.replace("message['content']", "(message['content'] or message['tool_calls'] | tojson)")
    with pytest.raises(InputError, match="leaves the answer's tool calls out"):
        encoder_of(either).answer_ids(dataclasses.replace(row, reply={**row.reply, "content": "I look."}), None)


@pytest.mark.parametrize("form", [forms.CHATML, forms.SILENT, forms.GEMMA])
def test_a_template_without_calls_and_tools_learns_edgekits_form_of_them(
    encoder_of: Callable[..., Encoder], inference: Callable[[Encoder, Row], list[int]], form: str
) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "measure", "arguments": {"part": "B"}}}
    tool = {"type": "function", "function": {"name": "measure", "parameters": {"type": "object", "properties": {}}}}
    calling = {"role": "assistant", "content": None, "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "c1", "content": "3 mm"}
    written = '<tool_call>\n{"name": "measure", "arguments": {"part": "B"}}\n</tool_call>'
    encoder = encoder_of(form)
    row = _row(USER, answer="", reply=calling, tools=(tool,))
    assert encoder.settled(row, None).answer.startswith(written)
    after = _row(USER, calling, result, tools=(tool,))
    (prompt,) = encoder.prompt(after, None)
    assert json.dumps(tool) in prompt
    assert written in prompt
    assert "<tool_response>\n3 mm\n</tool_response>" in prompt
    for each in (row, after):
        assert encoder.prompt_ids(each, None) == inference(encoder, each)


def test_a_system_prompt_that_moves_when_an_answer_follows_does_not_matter(encoder_of: Callable[..., Encoder]) -> None:
    row = _row({"role": "system", "content": "You are terse."}, USER)
    for mode in MODES:
        encoder = encoder_of(forms.MISTRAL, reasoning=mode)
        assert encoder.prompt(row, None)[-1].endswith("[INST] You are terse.\n\nscratch of 3 mm[/INST]")
        assert _learnt(encoder, row) == " rework<|im_end|>"
    thinking = _row(*row.messages, reply={"role": "assistant", "content": "rework", "reasoning_content": "long"})
    assert _learnt(encoder_of(forms.MISTRAL), thinking) == "<think>\nlong\n</think>\n\n rework<|im_end|>"


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        (
            "{% for m in messages %}{{ m.content | upper if messages[1:] else m.content }}{% endfor %}",
            "renders the conversation differ",
        ),
        (
            "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}",
            "leaves the answer out",
        ),
        ("{{ raise_exception('no') }}", r"refuses these messages \(no\)"),
        (
            "{% for m in messages %}<{{ m.content.split('</think>') | last }}>{% endfor %}"
            "{% if add_generation_prompt %}<<think></think>{% endif %}",
            "ends the reasoning in the prompt",
        ),
    ],
)
def test_what_can_not_be_trained_exactly_is_refused_with_its_place(
    template: str, problem: str, encoder_of: Callable[..., Encoder]
) -> None:
    row = _row(answer="<think>\nlong\n</think>\n\nrework")
    with pytest.raises(InputError, match=rf"data/train\.jsonl:7: the base's chat template {problem}"):
        encoder_of(template, reasoning="keep").answer_ids(row, None)


def test_what_is_said_after_the_reasoning() -> None:
    assert split_reasoning("<think>\nlong\n</think>\n\nrework ") == ("long", "rework")
    assert split_reasoning("long\n</think>\n\nrework") == ("long", "rework")
    assert split_reasoning("\n</think>\n\nrework") == ("", "rework")
    assert split_reasoning("</think>rework") == ("", "rework")
    assert split_reasoning("[THINK]long[/THINK]rework") == ("long", "rework")
    assert split_reasoning("<think>cut off") == ("cut off", "")
    for text in ("rework", ' {"tag": "</think> is a tag"}', "the tag <think> begins\n</think> ends"):
        assert split_reasoning(text) == ("", text)
