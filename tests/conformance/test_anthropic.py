"""Anthropic's own client, unchanged, against the service."""

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

anthropic = pytest.importorskip("anthropic", reason="Anthropic's client is not installed: pip install edgekit[dev]")

ASKED = [{"role": "user", "content": "scratch"}]
SHORT: dict[str, Any] = {"model": "one", "max_tokens": 12, "messages": ASKED}
MEASURE = {"name": "measure", "description": "Measures.", "input_schema": PARAMETERS}
STOP = {"name": "stop_line", "input_schema": {"type": "object", "properties": {}}}


def client_of(service: Service, **more: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=service.url, api_key="none", max_retries=0, **more)


@pytest.fixture(scope="module")
def client(tiny_chat_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[anthropic.Anthropic]:
    folder = tmp_path_factory.mktemp("served")
    bundle = make_goods(with_longer_context(tiny_chat_base, folder), folder / "goods").bundle
    with serving(bundle, "--context", "1024") as service, client_of(service) as opened:
        yield opened


def test_a_message_is_answered_whole_and_in_pieces(client: anthropic.Anthropic) -> None:
    sampling = {"temperature": 1.0, "top_p": 0.9, "top_k": 40, "seed": 3}  # new clients know none of them
    options = {**SHORT, "system": "Be brief.", "extra_body": sampling}
    whole = client.messages.create(**options, metadata={"user_id": "line 3"})
    assert (whole.type, whole.role, whole.model) == ("message", "assistant", "one")
    assert (whole.stop_reason, whole.stop_sequence) == ("max_tokens", None)
    assert whole.usage.output_tokens == 12
    assert whole.content[0].text
    with client.messages.stream(**options) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert "".join(pieces) == whole.content[0].text
    assert final.content[0].text == whole.content[0].text
    assert final.stop_reason == "max_tokens"
    read = final.usage.input_tokens + final.usage.cache_read_input_tokens
    assert read == whole.usage.input_tokens + whole.usage.cache_read_input_tokens
    kinds = [event.type for event in client.messages.create(**options, stream=True)]
    assert kinds[0] == "message_start"
    assert kinds[1] == "content_block_start"
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_the_asynchronous_client_reads_the_same(client: anthropic.Anthropic) -> None:
    async def ask() -> str:
        async with anthropic.AsyncAnthropic(base_url=str(client.base_url), api_key="none", max_retries=0) as opened:
            async with opened.messages.stream(**SHORT) as stream:
                text: str = await stream.get_final_text()
            return text

    assert asyncio.run(ask()) == client.messages.create(**SHORT).content[0].text


def test_a_stop_sequence_is_named(client: anthropic.Anthropic) -> None:
    text = client.messages.create(**SHORT).content[0].text
    stop = text[3:5]
    for message in (
        client.messages.create(**SHORT, stop_sequences=["\0never", stop]),
        client.messages.stream(**SHORT, stop_sequences=["\0never", stop]).__enter__().get_final_message(),
    ):
        assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", stop)
        assert message.content[0].text == text[: text.index(stop)]


def test_an_answer_goes_on_from_the_assistants_words(client: anthropic.Anthropic) -> None:
    text = client.messages.create(**SHORT).content[0].text
    begun = {"role": "assistant", "content": [{"type": "text", "text": text[:7]}]}
    going_on = client.messages.create(**{**SHORT, "messages": [*ASKED, begun]})
    assert going_on.usage.input_tokens + going_on.usage.cache_read_input_tokens > 12
    assert going_on.content[0].text


def test_tokens_are_counted_as_the_answer_counts_them(client: anthropic.Anthropic) -> None:
    for more in ({}, {"system": [{"type": "text", "text": "Be brief."}]}, {"tools": [MEASURE, STOP]}):
        counted = client.messages.count_tokens(model="one", messages=ASKED, **more)
        usage = client.messages.create(**SHORT, **more).usage
        assert counted.input_tokens == usage.input_tokens + usage.cache_read_input_tokens
    long = [{"role": "user", "content": "dent " * 1100}]
    assert client.messages.count_tokens(model="one", messages=long).input_tokens > 1100


def test_what_was_read_before_is_counted_apart(client: anthropic.Anthropic) -> None:
    cached = {"type": "text", "text": "dent " * 150, "cache_control": {"type": "ephemeral"}}
    messages = [{"role": "user", "content": [cached, {"type": "text", "text": "And now?"}]}]
    first, second = (client.messages.create(model="base", max_tokens=3, messages=messages).usage for _ in range(2))
    assert second.cache_read_input_tokens > 100
    assert first.input_tokens + first.cache_read_input_tokens == second.input_tokens + second.cache_read_input_tokens


def test_calls_and_their_results_go_round(client: anthropic.Anthropic) -> None:
    options: dict[str, Any] = {"model": "one", "max_tokens": 90, "tools": [MEASURE, STOP]}
    forced = {"type": "tool", "name": "measure", "disable_parallel_tool_use": True}
    answer = client.messages.create(**options, messages=ASKED, tool_choice=forced)
    assert answer.stop_reason == "tool_use"
    (call,) = answer.content
    assert (call.type, call.name) == ("tool_use", "measure")
    check({"function": {"name": call.name, "arguments": call.input}})
    with client.messages.stream(**options, messages=ASKED, tool_choice=forced) as stream:
        kinds = [event.type for event in stream]
        (streamed,) = stream.get_final_message().content
    assert "input_json" in kinds
    assert (streamed.name, streamed.input) == (call.name, call.input)
    for content in ("3 mm", [{"type": "text", "text": "3 mm"}]):
        result = {"type": "tool_result", "tool_use_id": call.id, "content": content, "is_error": False}
        more = {"type": "text", "text": "And now?"}
        history = [
            *ASKED,
            {"role": "assistant", "content": answer.content},
            {"role": "user", "content": [result, more]},
        ]
        after = client.messages.create(**{**options, "max_tokens": 5}, messages=history, tool_choice={"type": "none"})
        assert [each.type for each in after.content] == ["text"]
    assert client.messages.create(**options, messages=ASKED, tool_choice={"type": "any"}).stop_reason == "tool_use"


def test_the_clients_own_loop_of_tools_runs(client: anthropic.Anthropic) -> None:
    called = []

    @anthropic.beta_tool
    def measure(part: Literal["A", "B 7"]) -> str:
        """Measures.

        Args:
            part: which.
        """
        called.append(part)
        return "3 mm"

    runner = client.beta.messages.tool_runner(
        model="one", max_tokens=90, tools=[measure], messages=ASKED, tool_choice={"type": "any"}, max_iterations=2
    )
    answers = list(runner)
    assert len(answers) == 2
    assert called[0] in ("A", "B 7")


class Verdict(BaseModel):
    ok: bool


def test_an_answer_is_read_as_a_model(client: anthropic.Anthropic) -> None:
    parsed = client.messages.parse(**{**SHORT, "max_tokens": 60}, output_format=Verdict)
    assert isinstance(parsed.parsed_output, Verdict)


def test_models_are_listed(client: anthropic.Anthropic) -> None:
    assert [(each.id, each.display_name) for each in client.models.list()] == [("base", "base"), ("one", "one")]
    assert client.models.retrieve("one").created_at.year > 2000


def test_reasoning_comes_as_thinking(goods: Goods, tmp_path: Path) -> None:
    bundle = with_template(goods.bundle, tmp_path, THINKING)
    with serving(bundle) as service, client_of(service) as client:
        options: dict[str, Any] = {"model": "base", "max_tokens": 30, "messages": ASKED}
        thinking = {"type": "enabled", "budget_tokens": 5}
        whole = client.messages.create(**options, thinking=thinking)
        assert [each.type for each in whole.content] == ["thinking", "text"]
        assert whole.content[0].thinking
        assert 5 < whole.usage.output_tokens_details.thinking_tokens < 12  # with what ends it
        with client.messages.stream(**options, thinking=thinking) as stream:
            final = stream.get_final_message()
        assert [each.type for each in final.content] == ["thinking", "text"]
        assert [final.content[0].thinking, final.content[1].text] == [whole.content[0].thinking, whole.content[1].text]
        told = {"type": "enabled", "budget_tokens": 5, "display": "omitted"}
        assert [each.type for each in client.messages.create(**options, thinking=told).content] == ["text"]
        off = client.messages.create(**options, thinking={"type": "disabled"})
        assert [each.type for each in off.content] == ["text"]
        again = [*ASKED, {"role": "assistant", "content": whole.content}, *ASKED]
        assert client.messages.create(**{**options, "messages": again}, thinking=thinking).content


def test_images_come_in_base64_of_any_size(demo_base: Base, tmp_path: Path) -> None:
    model = make_model(save_smolvlm(demo_base.folder, tmp_path / "tiny-smolvlm"), tmp_path, "Q8_0")
    with serving(model.bundle, "--context", "512") as service, client_of(service) as client:

        def asking(source: dict[str, Any]) -> dict[str, Any]:
            blocks = [{"type": "image", "source": source}, {"type": "text", "text": "What is it?"}]
            return {"model": "one", "messages": [{"role": "user", "content": blocks}]}

        for size in ((60, 40), (1400, 1000)):
            file = picture_file(tmp_path / "picture.png", size, 1)
            data = base64.b64encode(file.read_bytes()).decode()
            source = {"type": "base64", "media_type": "image/png", "data": data}
            message = client.messages.create(max_tokens=6, **asking(source))
            url = {"type": "url", "url": f"data:image/png;base64,{data}"}
            assert client.messages.create(max_tokens=6, **asking(url)).content == message.content
            parts = [{"type": "image_url", "image_url": {"url": url["url"]}}, {"type": "text", "text": "What is it?"}]
            chat = service.chat(messages=[{"role": "user", "content": parts}])
            assert chat.json()["choices"][0]["message"]["content"] == message.content[0].text
            counted = client.messages.count_tokens(**asking(source)).input_tokens
            assert counted == message.usage.input_tokens + message.usage.cache_read_input_tokens
        with pytest.raises(anthropic.BadRequestError, match="data: URL"):
            client.messages.create(max_tokens=6, **asking({"type": "url", "url": "https://example.com/a.png"}))
        with pytest.raises(anthropic.BadRequestError, match="is not base64"):
            client.messages.create(max_tokens=6, **asking({**source, "data": "!" * 5000}))


def test_errors_are_those_that_the_client_knows(goods: Goods, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("secret")
    with serving(goods.bundle, "--api-key-file", str(key)) as service:
        client = client_of(service).with_options(api_key="secret")
        assert client.messages.create(**SHORT).content
        for error, kind, more in (
            (anthropic.NotFoundError, "not_found_error", {"model": "nobody"}),
            (anthropic.BadRequestError, "invalid_request_error", {"max_tokens": 9_000}),
            (anthropic.BadRequestError, "invalid_request_error", {"messages": []}),
            (anthropic.BadRequestError, "invalid_request_error", {"extra_body": {"container": "x"}}),
            (anthropic.BadRequestError, "invalid_request_error", {"messages": [{"role": "robot", "content": "x"}]}),
        ):
            for stream in (False, True):
                with pytest.raises(error) as refused:
                    client.messages.create(**{**SHORT, **more}, stream=stream)
                assert refused.value.body["error"]["type"] == kind
                assert refused.value.type == kind
        with pytest.raises(anthropic.AuthenticationError) as refused:
            client.with_options(api_key="wrong").messages.create(**SHORT)
        assert refused.value.type == "authentication_error"
        with pytest.raises(anthropic.NotFoundError):
            client.messages.batches.list()
        told = client.messages.with_raw_response.create(**SHORT, extra_body={"odd": 1})
        assert told.headers["x-edgekit-ignored"] == "odd"
        assert json.loads(told.text())["type"] == "message"
