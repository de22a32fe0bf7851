"""LangChain's package for OpenAI."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.conformance.words import LONG, REPORT, TOOL, VERDICTS, is_report
from tests.service import Service

langchain_openai = pytest.importorskip(
    "langchain_openai", reason="LangChain is not installed: pip install 'edgekit[conformance]'"
)
QUESTION = "Is there a scratch on part 7? Report it."


class Report(BaseModel):
    """A part's report."""

    part: int
    fine: bool


def model(service: Service, **more: Any) -> Any:
    options = {"model": "one", "base_url": f"{service.url}/v1", "api_key": "none", "temperature": 0, "max_retries": 0}
    return langchain_openai.ChatOpenAI(**(options | {"max_tokens": 12} | more))


def test_a_chat_is_answered_whole_in_pieces_and_in_batches(service: Service) -> None:
    asked = model(service, stream_usage=True)
    asked.invoke(QUESTION)  # from now on the cache holds as much of it as it will
    whole = asked.invoke(QUESTION)
    assert whole.content
    assert whole.response_metadata["finish_reason"] == "length"
    pieces = list(asked.stream(QUESTION))
    total = pieces[0]
    for each in pieces[1:]:
        total += each
    assert total.content == whole.content
    assert total.usage_metadata == whole.usage_metadata
    assert [each.content for each in asked.batch([QUESTION] * 3)] == [whole.content] * 3
    assert asyncio.run(asked.ainvoke(QUESTION)).content == whole.content


def test_tools_are_called(service: Service) -> None:
    bound = model(service, max_tokens=200).bind_tools([TOOL], tool_choice="any", parallel_tool_calls=False)
    called = bound.invoke(QUESTION)
    (call,) = called.tool_calls
    assert call["name"] == "report"
    assert is_report(call["args"])
    total = None
    for each in bound.stream(QUESTION):
        total = each if total is None else total + each
    assert total is not None
    assert [each["args"] for each in total.tool_calls] == [call["args"]]
    messages = [("user", QUESTION), called, {"role": "tool", "content": "done", "tool_call_id": call["id"]}]
    assert model(service).bind_tools([TOOL]).invoke(messages).response_metadata["finish_reason"]


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_answers_have_the_form_that_is_asked_for(service: Service, method: str) -> None:
    shaped = model(service, max_tokens=200).with_structured_output(Report, method=method)
    assert isinstance(shaped.invoke(QUESTION), Report)
    raw = model(service, max_tokens=200).with_structured_output(
        {"title": "report", **REPORT}, method=method, include_raw=True
    )
    assert raw.invoke(QUESTION)["parsed"]["verdict"] in VERDICTS


def test_log_probabilities_come_along(service: Service) -> None:
    answer = model(service, max_tokens=3).bind(logprobs=True, top_logprobs=2).invoke(QUESTION)
    assert len(answer.response_metadata["logprobs"]["content"]) == 3


def test_errors_are_told(service: Service) -> None:
    with pytest.raises(openai.BadRequestError, match="context"):
        model(service).invoke(LONG)
    with pytest.raises(openai.NotFoundError):
        model(service, model="nobody").invoke(QUESTION)


def test_texts_are_embedded(service: Service) -> None:
    embeddings = langchain_openai.OpenAIEmbeddings(
        model="one", base_url=f"{service.url}/v1", api_key="none", check_embedding_ctx_length=False, max_retries=0
    )
    first, second, third = embeddings.embed_documents(["The lid has a scratch.", "The lid has a dent.", "3 + 4 = 7"])
    assert len(first) == 576
    assert _likeness(first, second) > _likeness(first, third)
    assert embeddings.embed_query("The lid has a scratch.") == pytest.approx(first)


def _likeness(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
