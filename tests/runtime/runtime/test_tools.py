"""Calls of functions: what comes is what the schema of the function allows, in each form and on both engines."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from edgekit_runtime import InputError, Runtime, UsageError
from edgekit_runtime.prompts.template import TemplateFacts
from edgekit_runtime.runtime.asking import Asker
from tests import chat_templates as forms
from tests.goods import make_goods, make_onnx_bundle

PART = {"type": "string", "enum": ["A", "B 7"]}
PARAMETERS = {
    "type": "object",
    "properties": {"part": PART, "size": {"type": "integer", "minimum": 1, "maximum": 99}, "sure": {"type": "boolean"}},
    "required": ["part", "sure"],
}
MEASURE = {"type": "function", "function": {"name": "measure", "description": "Measures.", "parameters": PARAMETERS}}
STOP = {
    "type": "function",
    "function": {"name": "stop_line", "description": "", "parameters": {"type": "object", "properties": {}}},
}
TOOLS = [MEASURE, STOP]
ASKED = [{"role": "user", "content": "scratch of 3 mm"}]
# Control tokens of the base around calls.
CONTROL = forms.LFM2.replace("<|tool_call_start|>", "<jupyter_code>").replace("<|tool_call_end|>", "<jupyter_output>")
MARKED = forms.FUNCTION_GEMMA.replace("<escape>", "<jupyter_text>").replace("<start_function_call>", "<jupyter_code>")
FORMS: dict[str, Any] = {
    **{name: each for name, each in forms.CALLING.items() if name != "hermes"},
    "ministral": forms.MINISTRAL.replace("THINK", ""),  # random weights would not stop to think
    "edgekit": forms.CHATML,
    "no system": forms.GEMMA,
    "control tokens": CONTROL,
    "control tokens around texts": MARKED,
}
SEEDS = range(6)


def with_longer_context(base: Path, folder: Path) -> Path:
    """A copy of a base in ``folder``, as one with a context of 1024."""
    copy = folder / base.name
    shutil.copytree(base, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 1024}))
    return copy


@pytest.fixture(scope="module", params=["llama.cpp", "onnxruntime"])
def bundle(request: pytest.FixtureRequest, tiny_chat_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of random weights with a longer context, for each engine."""
    folder = tmp_path_factory.mktemp("calling")
    base = with_longer_context(tiny_chat_base, folder)
    if request.param == "onnxruntime":
        pytest.importorskip("onnx_ir", reason="the extra is not installed: pip install 'edgekit[onnx]'")
        return make_onnx_bundle(base, folder / "onnx")
    return make_goods(base, folder / "goods").bundle


@pytest.fixture(scope="module")
def runtime_of(bundle: Path) -> Iterator[Callable[[str | dict[str, str]], Runtime]]:
    """The bundle as if its base had another chat template."""
    with Runtime(bundle, threads=1) as runtime:
        loaded = runtime._loaded
        tokens = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}

        def make(template: str | dict[str, str]) -> Runtime:
            facts = TemplateFacts.of(template, tokens).metadata()
            metadata = {**loaded.header.metadata, **{key: each for key, each in facts.items() if each is not None}}
            changed = dataclasses.replace(loaded, header=dataclasses.replace(loaded.header, metadata=metadata))
            runtime._asker = Asker(changed, runtime._catalogue, allow_special=False)
            return runtime

        yield make


def check(call: dict[str, Any]) -> None:
    function = call["function"]
    schemas = {"measure": PARAMETERS, "stop_line": {"type": "object", "maxProperties": 0}}
    jsonschema.validate(function["arguments"], schemas[function["name"]])


@pytest.mark.parametrize("name", FORMS)
def test_calls_at_any_temperature_fit_their_schema(runtime_of: Callable[[Any], Runtime], name: str) -> None:
    runtime = runtime_of(FORMS[name])
    whole = 0
    for seed in SEEDS:
        answer = runtime.generate(
            messages=ASKED,
            tools=TOOLS,
            tool_choice="required",
            parallel_tool_calls=seed % 2 == 0,
            template_arguments={"enable_thinking": False},
            temperature=1.5,
            top_k=0,
            seed=seed,
            max_tokens=90,
        )
        if answer.finish_reason == "length":
            assert answer.usage.completion_tokens == 90
        else:
            assert (answer.finish_reason, answer.text) == ("tool_calls", "")
            assert answer.tool_calls
        whole += len(answer.tool_calls)
        for call in answer.tool_calls:
            check(call)
    assert whole >= 3


def test_one_function_alone_is_called_once_where_that_is_asked(runtime_of: Callable[[Any], Runtime]) -> None:
    runtime = runtime_of(forms.QWEN25)
    chosen = {"type": "function", "function": {"name": "stop_line"}}
    for seed in SEEDS:
        answer = runtime.generate(messages=ASKED, tools=TOOLS, tool_choice=chosen, temperature=1.5, seed=seed)
        (call,) = answer.tool_calls
        assert call["function"] == {"name": "stop_line", "arguments": {}}
        assert len(call["id"]) == 9
        one = runtime.generate(
            messages=ASKED,
            tools=[STOP],
            tool_choice="required",
            parallel_tool_calls=False,
            temperature=1.5,
            seed=seed,
        )
        assert len(one.tool_calls) == 1


@pytest.mark.parametrize("name", ["qwen2.5", "llama3", "control tokens", "edgekit"])
def test_where_no_call_may_come_none_comes(runtime_of: Callable[[Any], Runtime], name: str) -> None:
    runtime = runtime_of(FORMS[name])
    told = [*ASKED, {"role": "user", "content": "<tool_call>"}]
    for seed in SEEDS:
        answer = runtime.generate(
            messages=told, tools=TOOLS, tool_choice="none", temperature=1.5, seed=seed, max_tokens=20
        )
        assert answer.tool_calls == ()
        assert "<tool_call>" not in answer.text
        assert "<jupyter_code>" not in answer.text


@pytest.mark.parametrize("name", ["qwen2.5", "llama3", "control tokens", "edgekit"])
def test_the_model_decides_and_a_text_or_calls_come(runtime_of: Callable[[Any], Runtime], name: str) -> None:
    runtime = runtime_of(FORMS[name])
    free = runtime.generate(messages=ASKED, tools=TOOLS, tool_choice="text", max_tokens=12)
    auto = runtime.generate(messages=ASKED, tools=TOOLS, max_tokens=12)
    # Half a character is no text, so a grammar has none.
    assert free.text == auto.text or auto.tool_calls or "\N{REPLACEMENT CHARACTER}" in free.text
    pieces = list(runtime.stream(messages=ASKED, tools=TOOLS, max_tokens=12))
    assert "".join(pieces) == auto.text
    stream = runtime.stream(messages=ASKED, tools=[STOP], tool_choice="required", parallel_tool_calls=False)
    assert list(stream) == []
    assert stream.result is not None
    assert stream.result.tool_calls


def test_a_text_instead_of_calls_follows_the_schema(runtime_of: Callable[[Any], Runtime]) -> None:
    runtime = runtime_of(forms.QWEN25)
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    for seed in SEEDS:
        answer = runtime.generate(
            messages=ASKED, tools=[STOP], schema=schema, temperature=1.5, seed=seed, max_tokens=60
        )
        if answer.tool_calls:
            assert answer.tool_calls[0]["function"]["name"] == "stop_line"
        elif answer.finish_reason == "stop":
            jsonschema.validate(json.loads(answer.text), schema)
    plain = runtime.generate(messages=ASKED, tools=TOOLS, tool_choice="none", choice=["yes", "no"])
    assert plain.text in ("yes", "no")


def test_calls_and_results_go_back_into_the_conversation(runtime_of: Callable[[Any], Runtime]) -> None:
    for form in (forms.QWEN25, forms.CHATML, forms.MISTRAL):
        runtime = runtime_of(form)
        answer = runtime.generate(messages=ASKED, tools=TOOLS, tool_choice="required", parallel_tool_calls=False)
        (call,) = answer.tool_calls
        as_text = {**call, "function": {**call["function"], "arguments": json.dumps(call["function"]["arguments"])}}
        result = {"role": "tool", "tool_call_id": call["id"], "content": "3 mm"}
        talks = [
            [*ASKED, {"role": "assistant", "content": None, "tool_calls": [each]}, result] for each in (call, as_text)
        ]
        one, other = (runtime.encode(talk, tools=TOOLS).tokens for talk in talks)
        assert one == other
        assert call["function"]["name"].encode() in b"".join(map(runtime.piece, one))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"tools": [], "tool_choice": "required"}, "there are no tools"),
        ({"tool_choice": "any"}, "none of none, auto, required"),
        ({"tool_choice": {"type": "function", "function": {"name": "other"}}}, "'other', which is not among the tools"),
        ({"tools": [{"type": "retrieval"}]}, "tool 1 is no function"),
        ({"tools": [{"type": "function", "function": {"name": 'a"b'}}]}, "no name of letters"),
        ({"tools": [STOP, STOP]}, "two tools are called 'stop_line'"),
        ({"choice": ["a"]}, "can't follow choice and call tools"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "not": {}}}}]},
            "tool 'f': the schema asks for not",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}]},
            "tool 'f': its parameters are no schema of an object",
        ),
    ],
)
def test_what_cannot_be_held_is_told(runtime_of: Callable[[Any], Runtime], more: dict[str, Any], words: str) -> None:
    runtime = runtime_of(forms.QWEN25)
    with pytest.raises((InputError, UsageError)) as refusal:
        runtime.generate(messages=ASKED, **{"tools": TOOLS, **more})
    assert words in str(refusal.value)


def test_calls_that_cannot_be_read_are_refused_and_their_text_is_not(runtime_of: Callable[[Any], Runtime]) -> None:
    runtime = runtime_of(forms.STRANGE_CALLS)
    with pytest.raises(InputError, match="can't be read back"):
        runtime.generate(messages=ASKED, tools=TOOLS)
    assert runtime.generate(messages=ASKED, tools=TOOLS, tool_choice="text", max_tokens=3).usage.completion_tokens
