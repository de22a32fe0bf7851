"""Guesses and forced tokens: the answer is the one that comes without them, and depends on nobody else."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit_runtime import BASE, Generation, Runtime
from edgekit_runtime.engines import BARE, Part
from edgekit_runtime.engines.llama.engine import LlamaEngine
from edgekit_runtime.engines.probe import can_look_ahead
from edgekit_runtime.runtime.generation import Stream
from edgekit_runtime.scheduler.lookahead import MOST_CONTEXTS, MOST_GUESSES, Costs, Followers, Guesser, Lookahead
from tests.goods import Goods

WORDS = ("part", "bracket", "housing", "scratch", "dent", "stain", "left", "right", "edge", "two", "three", "deep")
SCHEMA = {
    "type": "object",
    "properties": {
        "part": {"enum": ["bracket", "housing"]},
        "verdict": {"enum": ["scrap it at once", "rework"]},
        "count": {"type": "integer"},
    },
    "required": ["part", "verdict", "count"],
    "additionalProperties": False,
}
TOKENS = st.lists(st.integers(-3, 12), max_size=60)


def opened(bundle: Path, **options: Any) -> Runtime:
    return Runtime(bundle, threads=1, context=512, **options)


@pytest.fixture(scope="module")
def ahead(demo_bundle: Path) -> Iterator[Runtime]:
    with opened(demo_bundle) as runtime:
        assert runtime.loop.lookahead is not None
        yield runtime


@pytest.fixture
def paying(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guesses pay, whatever this machine's steps cost now."""
    monkeypatch.setattr(LlamaEngine, "looks_ahead", lambda *_: True)
    monkeypatch.setattr(Costs, "of", lambda _, tokens: 1 + 0.1 * tokens)


@pytest.fixture
def sure(ahead: Runtime, paying: None) -> Runtime:
    return ahead


def copied(words: int, seed: int) -> dict[str, Any]:
    """A prompt that repeats itself."""
    text = " ".join(random.Random(seed).choices(WORDS, k=words))
    return {"prompt": f"Say it again: {text}. {text}. {text}. {text}"}


@pytest.fixture
def agree(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Answers with guesses and with none that could be right: how many more were; both answers are the same."""

    def compare(runtime: Runtime, asked: dict[str, Any]) -> int:
        runtime.generate(**asked | {"max_tokens": 1})  # both find its preamble in the prefix cache
        runtime.engine.holder = None  # no cell of the other answer is there
        found = runtime.generate(**asked)
        with monkeypatch.context() as blind:
            blind.setattr(Followers, "after", lambda *_: None)
            runtime.engine.holder = None
            expected = runtime.generate(**asked)
        assert found.usage.completion_tokens
        assert (found.text, found.usage) == (expected.text, expected.usage)
        assert found.timings.drafted_tokens >= found.timings.accepted_tokens
        return found.timings.accepted_tokens - expected.timings.accepted_tokens

    return compare


@pytest.mark.parametrize("adapter", [BASE, "one"])
def test_greedy_answers_are_those_without_guesses(sure: Runtime, agree: Callable[..., int], adapter: str) -> None:
    accepted = [agree(sure, copied(6, seed) | {"adapter": adapter, "max_tokens": 24}) for seed in range(4)]
    assert sum(accepted) > 0


@pytest.mark.usefixtures("paying")
@pytest.mark.parametrize("adapter", [BASE, "one"])
def test_drawn_answers_and_those_to_the_end_of_the_context(
    goods: Goods, agree: Callable[..., int], adapter: str
) -> None:
    with Runtime(goods.bundle, threads=1) as runtime:
        for seed in range(6):
            drawn = {"temperature": 0.7, "top_k": 4, "seed": seed, "max_tokens": 24, "ignore_eos": True}
            agree(runtime, copied(3, seed) | {"adapter": adapter} | drawn)
        prompt = runtime.encode([{"role": "user", "content": "scratch"}], adapter)
        room = runtime.engine.context - len(prompt.tokens)
        greedy = {"raw": prompt.tokens, "adapter": adapter, "max_tokens": room, "ignore_eos": True}
        assert agree(runtime, greedy) > 0


def test_without_look_ahead_no_token_is_drafted_or_forced(goods: Goods) -> None:
    with Runtime(goods.bundle, threads=1, lookahead=False) as runtime:
        for asked in (copied(3, 0), copied(3, 1) | {"schema": SCHEMA}):
            found = runtime.generate(**asked, max_tokens=12, ignore_eos="schema" not in asked)
            assert found.usage.completion_tokens
            assert (found.timings.drafted_tokens, found.timings.forced_tokens) == (0, 0)


def told(runtime: Runtime, **asked: Any) -> tuple[Generation, Stream]:
    stream = runtime.stream(**asked)
    list(stream)
    assert stream.result is not None
    return stream.result, stream


def test_no_bit_depends_on_what_was_asked_before(sure: Runtime) -> None:
    asked = copied(8, 7) | {"adapter": "one", "max_tokens": 32, "logprobs": 2}
    sure.engine.holder = None
    sure.loop.lookahead = Lookahead()
    fresh, first = told(sure, **asked)
    for seed in range(3):
        sure.generate(**copied(8, seed), adapter="one", max_tokens=32)
    sure.engine.holder = None  # no cell of them is there
    again, second = told(sure, **asked)
    assert again.text == fresh.text
    assert len(first.scores) > 8
    assert first.scores == second.scores
    assert again.timings.accepted_tokens > fresh.timings.accepted_tokens  # it knows its own answer


def test_a_chat_that_goes_on_reads_its_last_answer_no_more(sure: Runtime) -> None:
    messages = [{"role": "user", "content": "Say where the scratch is, in a short sentence."}]
    sure.engine.holder = None
    answer = sure.generate(messages=messages, adapter=BASE, max_tokens=24)
    messages += [{"role": "assistant", "content": answer.text}, {"role": "user", "content": "And the dent?"}]
    sure_again, stream = told(sure, messages=messages, adapter=BASE, max_tokens=8, logprobs=0)
    assert sure_again.usage.cached_tokens > answer.usage.prompt_tokens + answer.usage.completion_tokens // 2
    sure.engine.holder = None
    _, fresh = told(sure, messages=messages, adapter=BASE, max_tokens=8, logprobs=0)
    assert stream.scores == fresh.scores


@pytest.mark.parametrize("parallel", [1, 2])
@pytest.mark.parametrize("temperature", [0.0, 1.2])
def test_what_a_schema_forces_comes_at_once_and_fits(demo_bundle: Path, parallel: int, temperature: float) -> None:
    with opened(demo_bundle, parallel=parallel) as runtime:
        for seed in range(3):
            asked = {"prompt": "A housing has a scratch.", "temperature": temperature, "seed": seed}
            found = runtime.generate(**asked, schema=SCHEMA, max_tokens=80)
            assert found.timings.forced_tokens > 4
            if found.finish_reason == "stop":
                document = json.loads(found.text)
                assert list(document) == ["part", "verdict", "count"]
                assert document["verdict"] in SCHEMA["properties"]["verdict"]["enum"]
            assert runtime.generate(**asked, schema=SCHEMA, max_tokens=80).text == found.text


def test_log_probabilities_are_of_every_token_also_of_forced_ones(ahead: Runtime) -> None:
    result, stream = told(ahead, prompt="A scratch.", schema=SCHEMA, max_tokens=60, logprobs=1)
    assert len(stream.scores) == result.usage.completion_tokens > 8
    assert all(score.logprob is not None for score in stream.scores)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 12])
def test_an_answer_ends_within_what_is_forced(ahead: Runtime, limit: int) -> None:
    whole = ahead.generate(prompt="A scratch.", schema=SCHEMA, max_tokens=60)
    part = ahead.generate(prompt="A scratch.", schema=SCHEMA, max_tokens=limit)
    assert part.usage.completion_tokens == limit
    assert whole.text.startswith(part.text)
    assert part.finish_reason == "length"
    stopped = ahead.generate(prompt="A scratch.", schema=SCHEMA, max_tokens=60, stop=["verdict"])
    assert stopped.text == whole.text.partition("verdict")[0]
    assert stopped.finish_reason == "stop"


def test_an_engine_that_cannot_take_back_does_not_look_ahead() -> None:
    class Recurrent:
        def decode(self, parts: Sequence[Part]) -> None:
            assert parts

        def row(self, number: int) -> Any:
            raise AssertionError(number)

        def forget(self, sequence: int, start: int = 0) -> bool:
            return (sequence, start) == (0, 0)

    assert not can_look_ahead(Recurrent())


@given(TOKENS)
def test_what_followed_the_longest_end_is_found(tokens: list[int]) -> None:
    followers = Followers()
    followers.learn(tokens)
    found = followers.after(tokens)
    assert followers.after([99]) is None
    if found is not None:
        token, order, _ = found
        end = tokens[len(tokens) - order :]
        places = [at for at in range(order, len(tokens)) if tokens[at - order : at] == end]
        assert token in [tokens[at] for at in places]
        assert token >= 0


def test_what_answers_leave_behind_is_bounded() -> None:
    followers = Followers()
    followers.learn(list(range(2 * MOST_CONTEXTS)))
    assert followers.after([2 * MOST_CONTEXTS - 2]) is not None
    assert followers.after([5]) is None


@given(TOKENS.filter(bool), TOKENS, st.integers(1, 9), st.integers(1, 30))
def test_there_is_always_a_guess_and_never_too_many(
    prompt: list[int], answer: list[int], pending: int, most: int
) -> None:
    guesser = Guesser(Lookahead(), BARE, prompt)
    guesser.follow(answer)
    guesses = guesser.guesses(pending, most)
    assert 1 <= len(guesses) <= min(most, MOST_GUESSES)
    guesser.learn(guesses, 0, 0.1)
    guesser.close(answer)


def test_guesses_are_as_many_as_pay() -> None:
    def guessed(slope: float) -> int:
        known = Lookahead()
        for tokens in range(1, 17):
            known.costs.note(tokens, 1 + slope * tokens)
        guesser = Guesser(known, BARE, [*range(20), *range(12)])
        for _ in range(200):
            guesser.learn(guesser.guesses(1, 15), 15, 0)
            known.costs = Costs(1, 0, 0, 1, 0)
            for tokens in range(1, 17):
                known.costs.note(tokens, 1 + slope * tokens)
        return len(guesser.guesses(1, 15))

    assert guessed(0.05) > guessed(3.0) >= 1
