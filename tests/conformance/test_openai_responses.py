"""OpenAI's own client, unchanged, against the service's Responses API."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from edgekit_exporters.base import Base
from tests.chat_templates import THINKING
from tests.goods import Goods, make_goods, with_template
from tests.runtime.runtime.test_tools import PARAMETERS, check, with_longer_context
from tests.service import Service, serving
from tests.vlm import make_model, picture_file, save_smolvlm

openai = pytest.importorskip("openai", reason="OpenAI's client is not installed: pip install edgekit")

SHORT: dict[str, Any] = {"model": "one", "input": "scratch", "max_output_tokens": 12}
LIKELY: dict[str, Any] = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
MEASURE = {"type": "function", "name": "measure", "description": "Measures.", "parameters": PARAMETERS, "strict": True}
STOP = {"type": "function", "name": "stop_line", "parameters": {"type": "object", "properties": {}}, "strict": None}


def client_of(service: Service) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def client(tiny_chat_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    folder = tmp_path_factory.mktemp("served")
    bundle = make_goods(with_longer_context(tiny_chat_base, folder), folder / "goods").bundle
    with serving(bundle, "--context", "1024") as service, client_of(service) as opened:
        yield opened


def test_a_response_is_whole_or_comes_in_events(client: openai.OpenAI) -> None:
    options = {**SHORT, "instructions": "Be brief.", "temperature": 1.0, "top_p": 0.9, "extra_body": {"seed": 3}}
    whole = client.responses.create(**options, metadata={"line": "3"}, user="x", reasoning={"summary": "auto"})
    assert (whole.object, whole.status, whole.model) == ("response", "incomplete", "one")
    assert whole.incomplete_details.reason == "max_output_tokens"
    assert whole.output_text
    assert whole.metadata == {"line": "3"}
    assert whole.to_dict()["store"] is False
    assert whole.usage.output_tokens == 12
    assert whole.usage.total_tokens == whole.usage.input_tokens + 12
    events = list(client.responses.create(**options, stream=True))
    assert [each.sequence_number for each in events] == list(range(len(events)))
    kinds = [each.type for each in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert "".join(each.delta for each in events if each.type.endswith("text.delta")) == whole.output_text
    assert events[-1].response.output_text == events[-4].text == whole.output_text
    assert events[-2].item == events[-1].response.output[0]


def test_the_helper_for_streams_gathers_the_response(client: openai.OpenAI) -> None:
    options = {**SHORT, "max_output_tokens": 60, "text": {"format": {"type": "json_object"}}}
    with client.responses.stream(**SHORT) as stream:
        snapshots = [each.snapshot for each in stream if each.type == "response.output_text.delta"]
    assert snapshots[-1] == client.responses.create(**SHORT).output_text
    options = {**options, "text": {"format": {"type": "json_schema", "name": "n", "schema": {"const": "ok"}}}}
    with client.responses.stream(**options) as stream:
        final = stream.get_final_response()
    assert (final.status, final.output_text) == ("completed", '"ok"')


class Verdict(BaseModel):
    ok: bool
    part: Literal["A", "B"]


def test_an_answer_is_read_as_a_model(client: openai.OpenAI) -> None:
    options = {**SHORT, "max_output_tokens": 60, "text_format": Verdict}
    parsed = client.responses.parse(**options)
    assert isinstance(parsed.output_parsed, Verdict)
    with client.responses.stream(**options) as stream:
        final = stream.get_final_response()
    assert final.output_parsed == parsed.output_parsed


def test_the_asynchronous_client_reads_the_same(client: openai.OpenAI) -> None:
    async def ask() -> str:
        async with openai.AsyncOpenAI(base_url=str(client.base_url), api_key="none", max_retries=0) as opened:
            text = ""
            async for event in await opened.responses.create(**SHORT, stream=True):
                text += event.delta if event.type == "response.output_text.delta" else ""
            return text

    assert asyncio.run(ask()) == client.responses.create(**SHORT).output_text


def test_calls_and_their_outputs_go_round(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"model": "one", "max_output_tokens": 90, "tools": [MEASURE, STOP]}
    forced = {"tool_choice": {"type": "function", "name": "measure"}, "parallel_tool_calls": False}
    answer = client.responses.create(**options, input="scratch", **forced)
    assert answer.status == "completed"
    (call,) = answer.output
    assert (call.type, call.name, call.status) == ("function_call", "measure", "completed")
    check({"function": {"name": call.name, "arguments": json.loads(call.arguments)}})
    with client.responses.stream(**options, input="scratch", **forced) as stream:
        events = list(stream)
        (streamed,) = stream.get_final_response().output
    arguments = [each for each in events if each.type == "response.function_call_arguments.delta"]
    assert arguments[-1].snapshot == streamed.arguments
    assert (streamed.name, json.loads(streamed.arguments)) == (call.name, json.loads(call.arguments))
    for output in ("3 mm", [{"type": "input_text", "text": "3 mm"}]):
        result = {"type": "function_call_output", "call_id": call.call_id, "output": output}
        history = [{"role": "user", "content": "scratch"}, *answer.output, result]
        after = client.responses.create(**{**options, "max_output_tokens": 5}, input=history, tool_choice="none")
        assert [each.type for each in after.output] == ["message"]


def test_a_conversation_is_sent_whole(client: openai.OpenAI) -> None:
    first = client.responses.create(**SHORT, store=True)
    asked = {"role": "user", "content": [{"type": "input_text", "text": "scratch"}]}
    history = [{"role": "developer", "content": "Be brief."}, asked, *first.output, asked]
    second = client.responses.create(**{**SHORT, "input": history})
    assert second.usage.input_tokens > first.usage.input_tokens
    with pytest.raises(openai.BadRequestError, match="nothing is stored here"):
        client.responses.create(**SHORT, previous_response_id=first.id)
    counted = client.responses.input_tokens.count(model="one", input=history)
    assert counted.input_tokens == second.usage.input_tokens


def test_tokens_come_with_log_probabilities(client: openai.OpenAI) -> None:
    whole = client.responses.create(**SHORT, **LIKELY)
    (message,) = whole.output
    scores = message.content[0].logprobs
    assert "".join(each.token for each in scores) == whole.output_text
    assert all(len(each.top_logprobs) == 2 for each in scores)
    events = list(client.responses.create(**SHORT, **LIKELY, stream=True))
    deltas = [each for event in events if event.type == "response.output_text.delta" for each in event.logprobs]
    assert [each.token for each in deltas] == [each.token for each in scores]


def test_reasoning_is_an_item(goods: Goods, tmp_path: Path) -> None:
    bundle = with_template(goods.bundle, tmp_path, THINKING)
    with serving(bundle) as service, client_of(service) as client:
        bound = {"extra_body": {"thinking_budget": 5}}
        options: dict[str, Any] = {"model": "base", "max_output_tokens": 30, "input": "scratch"}
        whole = client.responses.create(**options, **bound)
        thought, said = whole.output
        assert (thought.type, said.type) == ("reasoning", "message")
        assert thought.content[0].text
        assert 5 < whole.usage.output_tokens_details.reasoning_tokens < 12  # with what ends it
        events = list(client.responses.create(**options, **bound, stream=True))
        told = "".join(each.delta for each in events if each.type == "response.reasoning_text.delta")
        assert told == thought.content[0].text
        assert events[-1].response.output_text == whole.output_text
        history = [{"role": "user", "content": "scratch"}, *whole.output, {"role": "user", "content": "why"}]
        assert client.responses.create(**{**options, "input": history}, **bound).output
        off = client.responses.create(**options, reasoning={"effort": "none"})
        assert [each.type for each in off.output] == ["message"]
        with pytest.raises(openai.BadRequestError, match="knows no reasoning_effort"):
            client.responses.create(**options, reasoning={"effort": "low"})


def test_images_come_as_urls(demo_base: Base, tmp_path: Path) -> None:
    model = make_model(save_smolvlm(demo_base.folder, tmp_path / "tiny-smolvlm"), tmp_path, "Q8_0")
    data = base64.b64encode(picture_file(tmp_path / "a.png", (1400, 1000), 1).read_bytes()).decode()
    image = {"type": "input_image", "image_url": f"data:image/png;base64,{data}", "detail": "auto"}
    content = [image, {"type": "input_text", "text": "What is it?"}]
    with serving(model.bundle, "--context", "512") as service, client_of(service) as client:
        asked = {"model": "one", "input": [{"role": "user", "content": content}]}
        response = client.responses.create(**asked, max_output_tokens=6)
        assert response.output_text
        assert client.responses.input_tokens.count(**asked).input_tokens == response.usage.input_tokens
        content[0] = {"type": "input_image", "file_id": "file-1", "detail": "auto"}
        with pytest.raises(openai.BadRequestError, match="no files are stored here"):
            client.responses.create(**asked)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"background": True}, "background has to be false"),
        ({"conversation": "c"}, "nothing is stored here"),
        ({"tools": [{"type": "web_search"}]}, "tool 1 is of type 'web_search'"),
        ({"tools": [MEASURE], "tool_choice": {"type": "web_search"}}, "tool_choice is none of"),
        ({"include": ["web_search_call.results"]}, "include has 'web_search_call.results'"),
        ({"truncation": "auto"}, "truncation has to be"),
        ({"text": {"verbosity": "low"}}, "text.verbosity has to be"),
        ({"reasoning": {"effort": "xhigh"}}, "reasoning.effort 'xhigh' is not available"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "nothing is stored here"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, "part of type"),
        ({"top_logprobs": 2}, "top_logprobs needs"),
        ({"max_output_tokens": 5000}, "exceed the context"),
        ({"extra_body": {"messages": [{"role": "user", "content": "x"}]}}, "send input"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_not_done_is_refused(client: openai.OpenAI, change: dict[str, Any], words: str, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError, match=words.replace(".", r"\.")):
        client.responses.create(**{**SHORT, **change}, stream=stream)


def test_a_field_that_nobody_knows_is_named(client: openai.OpenAI) -> None:
    told = client.responses.with_raw_response.create(**SHORT, extra_body={"odd": 1})
    assert told.headers["x-edgekit-ignored"] == "odd"
    with pytest.raises(openai.NotFoundError):
        client.responses.create(**{**SHORT, "model": "nobody"})
