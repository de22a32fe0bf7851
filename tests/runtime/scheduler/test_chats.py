"""Chats with one sequence, where the bits of a prompt depend on how it is cut: the same chunks are used again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit_runtime import Runtime
from edgekit_runtime.runtime.generation import Stream
from edgekit_runtime.scheduler.chunks import ALONE_CHUNK

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


def test_chats_in_turn_on_one_sequence_read_what_is_new_alone_to_the_bit(runtime: Runtime) -> None:
    chosen = random.Random(5)
    chats = {
        adapter: [{"role": "user", "content": " ".join(chosen.choices(WORDS, k=words))}]
        for adapter, words in (("one", 300), ("two", 350))
    }
    runtime.engine.holder = None
    for turn in range(2):
        for adapter, messages in chats.items():
            found, stream = asked(runtime, messages, adapter)
            if turn:
                assert cached(stream) >= ALONE_CHUNK
            chats[adapter] += [{"role": "assistant", "content": found[0]}, {"role": "user", "content": "more?"}]
    assert runtime.loop.parked.size > 0
    last = {adapter: asked(runtime, messages, adapter) for adapter, messages in chats.items()}
    for adapter, messages in chats.items():
        found, stream = last[adapter]
        assert cached(stream) >= ALONE_CHUNK
        runtime.engine.holder = None
        fresh, stream = asked(runtime, messages, adapter)
        assert cached(stream) < ALONE_CHUNK  # its system prompt
        assert runtime.loop.parked.size == 0  # gone with what was cached
        assert found == fresh


def test_parked_chats_keep_within_their_memory_and_the_longest_unused_goes(demo_bundle: Path) -> None:
    chosen = random.Random(6)
    chats = [[{"role": "user", "content": " ".join(chosen.choices(WORDS, k=300))}] for _ in range(4)]
    with Runtime(demo_bundle, threads=2, context=1024, parallel=1) as measured:
        for each in chats[:2]:
            asked(measured, each)
        one = measured.loop.parked.size
    assert one > 0
    with Runtime(demo_bundle, threads=2, context=1024, parallel=1, chat_memory=int(2.5 * one)) as small:
        for each in chats:
            asked(small, each)
            assert small.loop.parked.size <= 2.5 * one
        assert small.loop.parked.size > one
        assert cached(asked(small, chats[1])[1]) >= ALONE_CHUNK
        assert cached(asked(small, chats[0])[1]) < ALONE_CHUNK
    with Runtime(demo_bundle, threads=2, context=1024, parallel=1, chat_memory=0) as none:
        asked(none, chats[0])
        asked(none, chats[1])
        assert none.loop.parked.size == 0
        assert cached(asked(none, chats[0])[1]) < ALONE_CHUNK
