"""OpenAI's own client, unchanged, against the service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.goods import Goods
from tests.service import serving

openai = pytest.importorskip("openai", reason="OpenAI's client is not installed: pip install edgekit")


@pytest.fixture(scope="module")
def client(goods: Goods, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    key: Path = tmp_path_factory.mktemp("key") / "key"
    key.write_text("secret")
    with (
        serving(goods.bundle, "--api-key-file", str(key)) as service,
        openai.OpenAI(base_url=f"{service.url}/v1", api_key="secret", max_retries=0) as opened,
    ):
        yield opened


ASKED = [{"role": "user", "content": "scratch"}]


def test_models_are_listed_and_retrieved(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["base", "one"]
    assert client.models.retrieve("one").owned_by == "edgekit"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")


def test_a_chat_is_answered_whole_and_in_pieces(client: openai.OpenAI) -> None:
    options = {"model": "one", "messages": ASKED, "max_completion_tokens": 8, "seed": 3, "temperature": 1.0, "n": 2}
    options |= {"frequency_penalty": 0.5, "presence_penalty": 0.2, "logit_bias": {"300": 1}, "user": "line 3"}
    options |= {"extra_body": {"min_p": 0.05, "top_k": -1, "repetition_penalty": 1.1}}
    whole = client.chat.completions.create(**options)
    said = {choice.index: choice.message.content for choice in whole.choices}
    streamed = {0: "", 1: ""}
    usage = None
    for chunk in client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == said
    assert usage is not None
    assert usage.total_tokens == whole.usage.total_tokens


def test_a_text_is_completed_with_log_probabilities(client: openai.OpenAI) -> None:
    done = client.completions.create(model="one", prompt=["scratch", "a dent"], max_tokens=3, logprobs=1, echo=True)
    assert [choice.text[:3] for choice in done.choices] == ["scr", "a d"]
    assert all(len(choice.logprobs.tokens) > 3 for choice in done.choices)


def test_an_answer_follows_a_schema(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": schema}}
    done = client.chat.completions.create(model="one", messages=ASKED, max_tokens=40, response_format=wanted)
    assert done.choices[0].message.content.startswith("{")


def test_errors_are_those_that_the_client_knows(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="one", messages=ASKED, max_tokens=100_000)
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="audio is not available"):
        client.chat.completions.create(model="one", messages=ASKED, audio={"voice": "alloy", "format": "wav"})
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="nobody", messages=ASKED)
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()
    told = client.chat.completions.with_raw_response.create(
        model="one", messages=ASKED, max_tokens=2, extra_body={"odd": 1}
    )
    assert told.headers["x-edgekit-ignored"] == "odd"
