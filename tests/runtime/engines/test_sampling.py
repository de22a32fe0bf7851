"""How tokens are chosen is the same on every engine: each step against the rule written out in NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit_runtime import Runtime, UsageError
from edgekit_runtime.engines import BARE, Engine, Part, Sampling
from edgekit_runtime.engines.llama.engine import LlamaEngine
from edgekit_runtime.engines.llama.samplers import LogitsSampler
from tests.goods import Goods

PROMPT = [5, 9, 300, 9, 77]
STEPS = 24


@pytest.fixture(scope="module", params=["llama.cpp", "onnxruntime"])
def runtime(request: pytest.FixtureRequest, goods: Goods) -> Iterator[Runtime]:
    bundle: Path = goods.bundle if request.param == "llama.cpp" else request.getfixturevalue("tiny_onnx_bundle")
    with Runtime(bundle, threads=1, context=128) as opened:
        yield opened


def steps(engine: Engine, sampling: Sampling) -> Iterator[tuple[np.ndarray[Any, Any], list[int], int]]:
    """Logits, the answer before, and the token that was chosen."""
    engine.holder = None
    engine.forget(0)
    engine.select(BARE)
    sampler = engine.sampler(sampling, PROMPT)
    engine.decode([Part(0, 0, PROMPT)])
    answer: list[int] = []
    for number in range(STEPS):
        token = sampler.sample(0)
        yield engine.row(0).astype(np.float32), list(answer), token
        answer.append(token)
        engine.decode([Part(0, len(PROMPT) + number, [token])])
    sampler.close()


def adjusted(logits: np.ndarray[Any, Any], answer: list[int], sampling: Sampling) -> np.ndarray[Any, Any]:
    """The documented rule."""
    found = logits.copy()
    for token, bias in sampling.logit_bias:
        found[token] += np.float32(bias)
    said = [*PROMPT, *answer]
    if sampling.repeat_last_n >= 0:
        said = said[len(said) - min(sampling.repeat_last_n, len(said)) :]
    for token in set(said):
        penalty = np.float32(sampling.repetition_penalty)
        found[token] = found[token] / penalty if found[token] > 0 else found[token] * penalty
    for token in set(answer):
        found[token] -= np.float32(
            answer.count(token) * sampling.frequency_penalty + np.float32(sampling.presence_penalty)
        )
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"repetition_penalty": 1.5},
        {"repetition_penalty": 0.8},
        {"repetition_penalty": 3.0, "repeat_last_n": 4},
        {"repetition_penalty": 3.0, "repeat_last_n": 0},
        {"frequency_penalty": 0.5},
        {"presence_penalty": -1.0},
        {"frequency_penalty": 1.5, "presence_penalty": 0.5, "repetition_penalty": 1.2},
        {"logit_bias": ((9, 100.0), (77, -100.0))},
        {"logit_bias": ((9, 3.0),), "repetition_penalty": 1.3},
    ],
)
def test_a_greedy_answer_with_penalties_follows_the_rule(runtime: Runtime, options: dict[str, Any]) -> None:
    sampling = Sampling(**options)
    for logits, answer, token in steps(runtime.engine, sampling):
        wanted = adjusted(logits, answer, sampling)
        assert np.isfinite(wanted).all()
        assert wanted[token] == wanted.max(), (answer, token)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.8, "seed": 3},
        {"temperature": 1.5, "seed": 4, "min_p": 0.2, "top_k": 0, "top_p": 1.0},
        {"temperature": 0.7, "seed": 5, "repetition_penalty": 1.3, "presence_penalty": 0.4},
        {"temperature": 1.0, "seed": 6, "top_k": 0, "logit_bias": ((9, 4.0),)},
    ],
)
def test_llama_cpps_own_way_and_the_way_over_logits_draw_the_same_tokens(goods: Goods, options: dict[str, Any]) -> None:
    sampling = Sampling(**options)
    with Runtime(goods.bundle, threads=1, context=128) as opened:
        engine = opened.engine
        assert isinstance(engine, LlamaEngine)
        row: list[np.ndarray[Any, Any]] = []
        other = LogitsSampler(engine._vocabulary, sampling, lambda number: row[-1], PROMPT, engine.context)
        drawn = set()
        for logits, _, token in steps(engine, sampling):
            row.append(logits)
            assert other.sample(0) == token
            drawn.add(token)
        assert len(drawn) > 1
        other.close()


def test_only_tokens_with_a_share_of_the_likeliest_are_drawn(runtime: Runtime) -> None:
    sampling = Sampling(temperature=1.0, seed=1, top_k=0, top_p=1.0, min_p=0.5)
    for logits, _, token in steps(runtime.engine, sampling):
        assert logits[token] >= logits.max() + np.log(0.5) - 1e-4


def test_an_end_comes_not_before_it_may(runtime: Runtime) -> None:
    ends = [token for token in range(2000) if runtime.engine.is_end(token)]
    assert ends
    wanted = tuple((token, 100.0) for token in ends)  # the model wants to end at once
    ended = runtime.generate(raw="scratch", max_tokens=9, logit_bias=dict(wanted))
    assert (ended.finish_reason, ended.usage.completion_tokens) == ("stop", 0)
    later = runtime.generate(raw="scratch", max_tokens=9, logit_bias=dict(wanted), min_tokens=4)
    assert (later.finish_reason, later.usage.completion_tokens) == ("stop", 4)
    never = runtime.generate(raw="scratch", max_tokens=9, logit_bias=dict(wanted), ignore_eos=True)
    assert (never.finish_reason, never.usage.completion_tokens) == ("length", 9)


def test_an_answer_in_a_form_ends_with_it(runtime: Runtime) -> None:
    answer = runtime.generate(
        "scratch", choice=["ok", "not ok"], ignore_eos=True, max_tokens=20, repetition_penalty=5.0
    )
    assert answer.text in ("ok", "not ok")
    assert answer.finish_reason == "stop"


def test_company_and_a_second_run_change_nothing(goods: Goods) -> None:
    options: dict[str, Any] = {"max_tokens": 20, "temperature": 0.9, "seed": 7, "repetition_penalty": 1.4}
    options |= {"frequency_penalty": 0.6, "min_p": 0.02, "logit_bias": {300: 2.0}}
    with Runtime(goods.bundle, threads=1, context=128, parallel=4) as opened:
        alone = opened.generate("scratch", **options)
        streams = [opened.stream(text, **options) for text in ("scratch", "dent", "scratch", "crack")]
        texts = ["".join(stream) for stream in streams]
        assert texts[0] == texts[2] == alone.text
        assert opened.generate("scratch", **options | {"repetition_penalty": None}).text != alone.text


@pytest.mark.parametrize(
    "options",
    [
        *({"min_p": 1.5}, {"repetition_penalty": 0.0}, {"frequency_penalty": 3.0}, {"presence_penalty": float("nan")}),
        *({"logit_bias": {5: 200.0}}, {"logit_bias": {"x": 1.0}}, {"min_tokens": 300}, {"repeat_last_n": -2}),
    ],
)
def test_what_means_nothing_is_refused(runtime: Runtime, options: Any) -> None:
    with pytest.raises(UsageError):
        runtime.generate("scratch", max_tokens=9, **options)


def test_an_option_that_there_is_not_is_none_of_the_functions(runtime: Runtime) -> None:
    with pytest.raises(TypeError, match="min_pp"):
        runtime.generate("scratch", max_tokens=3, min_pp=0.1)  # type: ignore[call-arg]
