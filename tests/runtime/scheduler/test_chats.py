"""Chats with one sequence, where the bits of a prompt depend on how it is cut: the same chunks are used again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit_runtime import Runtime
from edgekit_runtime.runtime.generation import Stream
from edgekit_runtime.scheduler.loop import ALONE_CHUNK

WORDS = ("part", "bracket", "housing", "scratch", "dent", "stain", "left", "right", "edge", "two", "three", "deep")


@pytest.fixture(scope="module")
def runtime(demo_bundle: Path) -> Iterator[Runtime]:
    with Runtime(demo_bundle, threads=2, context=1024, parallel=1) as runtime:
        yield runtime


def asked(runtime: Runtime, messages: list[dict[str, Any]], adapter: str = "one") -> tuple[Any, Stream]:
    stream = runtime.stream(messages=messages, adapter=adapter, max_tokens=8, temperature=0.0, logprobs=0)
    list(stream)
    assert stream.result is not None
    return (stream.result.text, stream.scores), stream


def cached(stream: Stream) -> int:
    assert stream.result is not None
    return stream.result.usage.cached_tokens


def test_a_chat_reads_whole_chunks_once_to_the_bit(runtime: Runtime) -> None:
    chosen = random.Random(3)
    messages: list[dict[str, Any]] = []
    read = 0
    for words in (150, 40, 3, 60):
        messages.append({"role": "user", "content": " ".join(chosen.choices(WORDS, k=words))})
        runtime.engine.holder = None  # nothing is cached
        fresh, _ = asked(runtime, messages)
        runtime.engine.holder = None
        if len(messages) > 1:
            asked(runtime, messages[:-2])
        found, stream = asked(runtime, messages)
        assert found == fresh
        assert cached(stream) > read - ALONE_CHUNK
        assert stream.result is not None
        read = stream.result.usage.prompt_tokens
        messages.append({"role": "assistant", "content": found[0]})
    assert cached(stream) > 0


def test_a_prompt_that_was_cut_elsewhere_is_read_anew_from_there(runtime: Runtime) -> None:
    long = [{"role": "user", "content": " ".join(WORDS * 20)}]
    other = [{"role": "user", "content": " ".join(WORDS * 20) + " but not here " + " ".join(WORDS * 3)}]
    runtime.engine.holder = None
    fresh, _ = asked(runtime, other)
    runtime.engine.holder = None
    asked(runtime, long)
    found, stream = asked(runtime, other)
    assert found == fresh
    assert cached(stream) % ALONE_CHUNK == cached(asked(runtime, long)[1]) % ALONE_CHUNK  # both end where chunks do


def test_the_same_question_again_and_another_adapter_in_between(runtime: Runtime) -> None:
    messages = [{"role": "user", "content": " ".join(WORDS * 12)}]
    first, _ = asked(runtime, messages)
    again, stream = asked(runtime, messages)
    assert again == first
    assert cached(stream) > 0
    between, stream = asked(runtime, messages, adapter="two")
    assert cached(stream) == 0
    assert between != first
    assert asked(runtime, messages)[0] == first
