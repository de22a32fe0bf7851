"""The loop on the real base: what one request gets does not depend on who else is there."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader, GGUFValueType, GGUFWriter

from edgekit_runtime import BASE, InputError, Runtime
from edgekit_runtime.engines import Part
from edgekit_runtime.runtime.generation import Stream
from edgekit_runtime.scheduler import TokenScore

PARALLEL = 4
WORDS = ("part", "bracket", "housing", "scratch", "dent", "stain", "left", "right", "edge", "two", "three", "deep")
Request = dict[str, Any]


def opened(bundle: Path, **options: Any) -> Runtime:
    return Runtime(bundle, threads=2, context=512, parallel=PARALLEL, **options)


@pytest.fixture(scope="module")
def runtime(demo_bundle: Path) -> Iterator[Runtime]:
    with opened(demo_bundle) as runtime:
        yield runtime


def random_request(chosen: random.Random) -> Request:
    def text(longest: int) -> str:
        return " ".join(chosen.choices(WORDS, k=chosen.randint(1, longest)))

    messages = [{"role": "user", "content": text(100)}]
    if chosen.random() < 0.4:
        messages += [{"role": "assistant", "content": text(20)}, {"role": "user", "content": text(10)}]
    return {
        "messages": messages,
        "adapter": chosen.choice([BASE, "one", "two"]),
        "max_tokens": chosen.randint(1, 16),
        "temperature": chosen.choice([0.0, 1.0]),
        "seed": chosen.randrange(100),
        "logprobs": 0,
    } | ({"lora": {"one": 0.5, "two": 1.5}} if chosen.random() < 0.2 else {})


def score_of(runtime: Runtime, **options: Any) -> TokenScore:
    """The first token of an answer, with its exact log-probability: differs where any weight does."""
    stream = runtime.stream(max_tokens=1, logprobs=0, **options)
    list(stream)
    return stream.scores[0]


def outcome(stream: Stream) -> Any:
    assert stream.result is not None
    return stream.result.text, stream.result.finish_reason, stream.scores


def test_interleaved_traffic_changes_no_bit_of_anybodys_answer(runtime: Runtime, demo_bundle: Path) -> None:
    chosen = random.Random(7)
    requests = [random_request(chosen) for _ in range(24)]
    alone = []
    with opened(demo_bundle) as quiet:
        for request in requests:
            stream = quiet.stream(**request)
            list(stream)
            alone.append(outcome(stream))
            quiet.engine.holder = None  # the next one finds no KV cache
    running: dict[int, Stream] = {}
    together: dict[int, Any] = {}
    waiting = list(enumerate(requests)) * 2  # the second time, much of each prompt is cached
    chosen.shuffle(waiting)
    while waiting or running:
        if waiting and chosen.random() < 0.5:
            number, request = waiting.pop()
            if number not in running:
                running[number] = runtime.stream(**request)
            else:
                waiting.insert(0, (number, request))
        runtime.step()
        for number, stream in list(running.items()):
            if stream.ended:
                list(stream)
                assert outcome(running.pop(number)) == alone[number]
                together[number] = True
    assert len(together) == len(requests)
    assert runtime.loop.counts.reused_tokens > 0


def test_a_long_prompt_does_not_stop_the_others(runtime: Runtime) -> None:
    talking = runtime.stream("Count to twenty.", adapter=BASE, max_tokens=30)
    next(talking)
    long = runtime.stream(" ".join(WORDS * 20), adapter="one", max_tokens=2)
    steps = 0
    while not long.started:
        before = talking.tokens
        runtime.step()
        steps += 1
        assert talking.tokens == before + 1
    assert steps > 3
    talking.close()
    assert len(list(long)) > 0


def test_requests_of_several_adapters_are_under_way_together(runtime: Runtime) -> None:
    streams = [runtime.stream("Say something long.", adapter=name, max_tokens=20) for name in (BASE, "one", "one")]
    for _ in range(6):
        runtime.step()
    assert all(stream.started and not stream.ended for stream in streams)
    assert runtime.loop.running == 3
    for stream in streams:
        stream.close()
    runtime.step()
    assert runtime.loop.running == 0


def test_requests_of_one_kind_close_ranks_when_one_between_them_ends(runtime: Runtime) -> None:
    asked = {"adapter": "one", "max_tokens": 12, "temperature": 0.0, "logprobs": 0}
    texts = ("scratch", "dent", "stain", "burr")
    alone = []
    for text in texts:
        stream = runtime.stream(text, **asked)
        list(stream)
        alone.append(outcome(stream))
    streams = [runtime.stream(text, **asked | {"max_tokens": 3 if text == "dent" else 12}) for text in texts]
    batches: list[list[int]] = []
    decode = runtime.engine.decode

    def watch(parts: Sequence[Part]) -> None:
        batches.append([part.sequence for part in parts])
        decode(parts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime.engine, "decode", watch)
        while not all(stream.ended for stream in streams):
            runtime.step()
    three = [batch for batch in batches if len(batch) == 3]
    assert three
    assert all(batch == list(range(batch[0], batch[0] + 3)) for batch in three)
    for number, stream in enumerate(streams):
        list(stream)
        if texts[number] != "dent":
            assert outcome(stream) == alone[number]
    again = runtime.stream("dent", **asked)  # what the idle sequence held has moved with it
    list(again)
    assert outcome(again) == alone[1]
    assert again.result is not None
    assert again.result.usage.cached_tokens > 0


def test_more_requests_than_sequences_wait_their_turn(runtime: Runtime) -> None:
    streams = [runtime.stream(f"Number {number}", adapter=BASE, max_tokens=3) for number in range(PARALLEL + 3)]
    runtime.step()
    assert (runtime.loop.running, runtime.loop.waiting) == (PARALLEL, 3)
    streams.pop().close()  # one that waits
    assert all(list(stream) for stream in streams)


def test_a_system_prompt_is_prefilled_once_and_survives_a_restart(demo_bundle: Path, tmp_path: Path) -> None:
    asked = [("scratch", "one"), ("dent", "one"), ("stain", "one")]
    with opened(demo_bundle, cache=tmp_path) as first:
        cold, warm = (first.generate(text, adapter=name, max_tokens=4) for text, name in asked[:2])
    assert cold.usage.cached_tokens == 0
    assert warm.usage.cached_tokens >= 8
    with opened(demo_bundle, cache=tmp_path) as second:
        restarted = second.generate("scratch", adapter="one", max_tokens=4)
        assert restarted.usage.cached_tokens == warm.usage.cached_tokens
        assert restarted.text == cold.text
        assert second.generate("scratch", adapter="two", max_tokens=4).usage.cached_tokens == 0
    for file in tmp_path.iterdir():  # torn
        file.write_bytes(file.read_bytes()[:-100])
    with opened(demo_bundle, cache=tmp_path) as third:
        again = third.generate("scratch", adapter="one", max_tokens=4)
    assert (again.usage.cached_tokens, again.text) == (0, cold.text)


def test_a_chat_goes_on_from_what_was_computed(runtime: Runtime) -> None:
    messages = [{"role": "user", "content": " ".join(WORDS)}]
    first = runtime.generate(messages=messages, adapter="one", max_tokens=8)
    messages += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "and then?"}]
    second = runtime.generate(messages=messages, adapter="one", max_tokens=8)
    assert second.usage.cached_tokens == first.usage.prompt_tokens
    other = runtime.generate(messages=messages, adapter="two", max_tokens=2)
    assert other.usage.cached_tokens < first.usage.prompt_tokens  # never from another adapter


def test_scales_and_stacks(runtime: Runtime) -> None:
    def first(**options: Any) -> TokenScore:
        return score_of(runtime, messages=[{"role": "user", "content": "Describe a bracket."}], **options)

    assert first(adapter=BASE, lora={"one": 0}) == first(adapter=BASE)
    assert first(adapter=BASE, lora={"two": 1}) == first(adapter="two")
    stacks = ({}, {"two": 0.5}, {"two": 1}, {"two": 2}, {"one": 1}, {"one": 1, "two": 1})
    assert len({first(adapter=BASE, lora=lora) for lora in stacks}) == len(stacks)
    with pytest.raises(InputError, match="scale of 3"):
        first(lora={"one": 3})
    with pytest.raises(InputError, match="no adapter 'three'"):
        first(lora={"three": 1})


def test_log_probabilities_are_those_of_the_logits(runtime: Runtime) -> None:
    prompt = runtime.prompt_tokens("The inspection found a scratch on the")
    stream = runtime.stream(raw=prompt, adapter=BASE, max_tokens=1, logprobs=3, echo=True)
    list(stream)
    tokens = prompt + [score.token for score in stream.scores]
    logits = runtime.logits(tokens, adapter=BASE).astype(np.float64)
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    everything = stream.echoed + stream.scores
    assert [score.token for score in everything] == tokens
    assert everything[0].logprob is None
    for position, score in enumerate(everything[1:]):
        assert score.logprob == pytest.approx(logprobs[position, tokens[position + 1]], abs=1e-4)
        best = np.argsort(-logprobs[position])[:3]
        assert [token for token, _ in score.top] == best.tolist()


def test_echo_alone_answers_nothing(runtime: Runtime) -> None:
    stream = runtime.stream(raw="one two three", adapter="one", max_tokens=0, logprobs=0, echo=True)
    assert list(stream) == []
    assert stream.result is not None
    assert (stream.result.text, stream.result.usage.completion_tokens) == ("", 0)
    assert len(stream.echoed) == stream.result.usage.prompt_tokens


def test_an_adapter_that_the_engine_gets_too_late_fails_alone(demo_bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(demo_bundle, copy)
    with opened(copy) as runtime:
        file = runtime.adapter_path("two")
        file.write_bytes(file.read_bytes()[:-1] + b"x")
        good = runtime.stream("hello", adapter="one", max_tokens=4)
        bad = runtime.stream("hello", adapter="two", max_tokens=4)
        with pytest.raises(InputError, match="changed since"):
            list(bad)
        assert list(good)
        assert runtime.loop.running == 0


def test_adapters_share_a_small_memory(demo_bundle: Path) -> None:
    with opened(demo_bundle) as free:
        for name in ("one", "two"):
            free.generate("hello", adapter=name, max_tokens=1)
        needed = free.loop.pool.size
    with opened(demo_bundle, adapter_memory=int(0.6 * needed)) as tight:
        both = [tight.stream("hello", adapter=name, max_tokens=3) for name in ("one", "two")]
        tight.step()
        assert (tight.loop.running, tight.loop.waiting) == (1, 1)
        assert all(list(stream) for stream in both)
        assert len(tight.loop.pool) == 1
        assert tight.loop.pool.evictions == tight.loop.pool.loads - 1 <= 2
        with pytest.raises(InputError, match="MB are allowed"):
            tight.generate("hello", adapter=BASE, lora={"one": 1, "two": 1})
    with opened(demo_bundle, adapter_memory=1000) as tiny, pytest.raises(InputError, match="MB are allowed"):
        tiny.generate("hello", adapter="one")


def activated(source: Path, target: Path, tokens: list[int]) -> Path:
    """The same LoRA as an activated one: it works from where these tokens are seen."""
    reader = GGUFReader(source)
    writer = GGUFWriter(target, "llama")
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            writer.add_key_value(name, field.contents(), field.types[0])
    writer.add_key_value("adapter.alora.invocation_tokens", tokens, GGUFValueType.ARRAY, GGUFValueType.UINT32)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def test_an_activated_lora_works_from_its_invocation_and_takes_the_bases_cache(
    runtime: Runtime, demo_bundle: Path, tmp_path: Path
) -> None:
    context = runtime.prompt_tokens(" ".join(WORDS))
    call = runtime.prompt_tokens("Now judge:")
    with opened(demo_bundle) as other:
        other.add_adapter(activated(other.adapter_path("one"), tmp_path / "alora.gguf", call), "judge")
        base = score_of(other, raw=context + call, adapter=BASE)
        stream = other.stream(raw=context + call, adapter="judge", max_tokens=1, logprobs=0)
        list(stream)
        assert stream.result is not None
        assert stream.result.usage.cached_tokens == len(context)  # of the base, as far as the invocation
        whole = score_of(other, raw=context + call, adapter="one")
        assert len({base, stream.scores[0], whole}) == 3
        assert score_of(other, raw=context, adapter="judge") == score_of(other, raw=context, adapter=BASE)
        other.engine.holder = None  # no cache: the same
        assert score_of(other, raw=context + call, adapter="judge") == stream.scores[0]
