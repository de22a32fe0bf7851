"""LiteLLM, by its two ways to services that are OpenAI's in form."""

from __future__ import annotations

import asyncio
import json
import os
import re
from typing import Any

import pytest

from tests.conformance.words import ASKED, LONG, REPORT, TOOL, is_report
from tests.service import Service

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it asks the network for prices
litellm = pytest.importorskip("litellm", reason="LiteLLM is not installed: pip install 'edgekit[conformance]'")


@pytest.fixture(params=["openai", "hosted_vllm"])
def options(service: Service, request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"model": f"{request.param}/one", "api_base": f"{service.url}/v1", "api_key": "none", "seed": 1}


def test_a_chat_is_answered_whole_in_pieces_and_at_once(options: dict[str, Any]) -> None:
    asked = options | {"messages": ASKED, "max_tokens": 12}
    whole = litellm.completion(**asked)
    text = whole.choices[0].message.content
    assert text
    assert whole.usage.completion_tokens == 12
    assert whole.choices[0].finish_reason == "length"
    pieces = list(litellm.completion(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(each.choices[0].delta.content or "" for each in pieces if each.choices) == text
    assert [each.usage.total_tokens for each in pieces if getattr(each, "usage", None)] == [whole.usage.total_tokens]
    rebuilt = litellm.stream_chunk_builder(pieces, messages=ASKED)
    assert rebuilt.choices[0].message.content == text
    several = litellm.batch_completion(messages=[ASKED, ASKED], **(options | {"max_tokens": 12}))
    assert [each.choices[0].message.content for each in several] == [text, text]


def test_tools_are_called_whole_and_in_pieces(options: dict[str, Any]) -> None:
    asked = options | {"messages": ASKED, "tools": [TOOL], "tool_choice": "required", "max_tokens": 200}
    asked |= {"parallel_tool_calls": False}
    whole = litellm.completion(**asked)
    (call,) = whole.choices[0].message.tool_calls
    assert whole.choices[0].finish_reason == "tool_calls"
    assert call.function.name == "report"
    assert is_report(json.loads(call.function.arguments))
    streamed = litellm.stream_chunk_builder(list(litellm.completion(**asked, stream=True)))
    (again,) = streamed.choices[0].message.tool_calls
    assert again.function.arguments == call.function.arguments
    said = [*ASKED, whole.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": '{"ok": true}'}]
    assert litellm.completion(**(asked | {"messages": said, "tool_choice": "auto", "max_tokens": 5})).choices


def test_an_answer_follows_a_schema(options: dict[str, Any]) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "report", "strict": True, "schema": REPORT}}
    answer = litellm.completion(**options, messages=ASKED, response_format=form, max_tokens=100)
    assert is_report(json.loads(answer.choices[0].message.content))


def test_log_probabilities_come_along(options: dict[str, Any]) -> None:
    answer = litellm.completion(**options, messages=ASKED, max_tokens=3, logprobs=True, top_logprobs=2, temperature=0)
    found = answer.choices[0].logprobs.content
    assert len(found) == 3
    assert all(each.logprob == max(other.logprob for other in each.top_logprobs) for each in found)


def test_errors_have_the_kinds_that_callers_catch(options: dict[str, Any]) -> None:
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(**options, messages=LONG, num_retries=0)
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(**(options | {"model": "openai/nobody"}), messages=ASKED)
    with pytest.raises(litellm.BadRequestError, match="temperature"):
        litellm.completion(**options, messages=ASKED, temperature=-1)


def test_many_ask_at_once(options: dict[str, Any]) -> None:
    async def ask() -> set[str]:
        answers = [litellm.acompletion(**options, messages=ASKED, max_tokens=4) for _ in range(6)]
        return {each.choices[0].message.content for each in await asyncio.gather(*answers)}

    assert len(asyncio.run(ask())) == 1


def test_who_leaves_stops_the_answer(service: Service) -> None:
    def cancelled() -> float:
        found = re.search(r'requests_total{model="one",outcome="cancelled"} (\S+)', service.http.get("/metrics").text)
        return float(found[1]) if found else 0

    async def leave() -> None:
        asked = {"model": "openai/one", "api_base": f"{service.url}/v1", "api_key": "none", "messages": ASKED}
        stream = await litellm.acompletion(**asked, stream=True, max_tokens=900, extra_body={"ignore_eos": True})
        async for _ in stream:
            break
        await stream.completion_stream.close()

    before = cancelled()
    asyncio.run(leave())
    service.wait_for(lambda: not service.status()["busy"])
    assert cancelled() == before + 1


def test_texts_are_completed_and_embedded(service: Service) -> None:
    options = {"api_base": f"{service.url}/v1", "api_key": "none"}
    done = litellm.text_completion(
        model="text-completion-openai/one", prompt="Two plus two is", max_tokens=3, **options
    )
    assert done.choices[0].text
    found = litellm.embedding(model="openai/one", input=["scratch", "dent"], **options)
    assert [len(each["embedding"]) for each in found.data] == [576, 576]
