"""Without exactness: what gets quicker, and what is promised all the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit_runtime import BASE, Runtime, UsageError
from edgekit_runtime.engines import Part
from edgekit_runtime.engines.opening import open_engine
from edgekit_runtime.formats.base_files import BaseFiles
from edgekit_runtime.formats.onnx_base import ENGINE as ONNX
from edgekit_runtime.runtime.generation import Stream
from tests.goods import Goods

F16_ROUNDING = 0.02  # nats; numbers of F16 have 11 bits, and a few dozen of them stand between prompt and logits
SCHEMA = {
    "type": "object",
    "properties": {"part": {"enum": ["bracket", "housing"]}, "verdict": {"enum": ["scrap it at once", "rework"]}},
    "required": ["part", "verdict"],
    "additionalProperties": False,
}
SAID = {"const": "Rework the bracket, then look at its left edge once more."}
PROMPTS = ("A scratch.", "The housing has a dent on its left edge.", "Two deep stains on the right side of a bracket.")


def opened(bundle: Path, **options: Any) -> Runtime:
    return Runtime(bundle, **{"threads": 1, "context": 256, "parallel": 3, "exact": False} | options)


@pytest.fixture(scope="module")
def quick(goods: Goods) -> Iterator[Runtime]:
    with opened(goods.bundle) as runtime:
        yield runtime


@pytest.fixture(scope="module")
def exact(goods: Goods) -> Iterator[Runtime]:
    with opened(goods.bundle, exact=True) as runtime:
        yield runtime


def at_once(runtime: Runtime, asked: Sequence[dict[str, Any]]) -> list[Stream]:
    streams = [runtime.stream(**each) for each in asked]
    while not all(stream.ended for stream in streams):
        runtime.step()
    for stream in streams:
        list(stream)
    return streams


def shapes(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Tokens of each part of each step that three requests with a schema take, prompts left out."""
    found: list[list[int]] = []
    decode = runtime.engine.decode

    def noted(parts: Sequence[Part]) -> None:
        if all(part.start > 20 for part in parts):
            found.append([len(part.tokens) for part in parts])
        decode(parts)

    monkeypatch.setattr(runtime.engine, "decode", noted)
    at_once(runtime, [{"prompt": each, "adapter": "one", "schema": SCHEMA, "max_tokens": 40} for each in PROMPTS])
    return found


def test_forced_tokens_stand_beside_others_tokens_only_where_bits_do_not_matter(
    quick: Runtime, exact: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert any(len(step) > 1 and max(step) > 1 for step in shapes(quick, monkeypatch))
    assert all(len(step) == 1 or max(step) == 1 for step in shapes(exact, monkeypatch))


def test_answers_differ_from_exact_ones_by_rounding_alone(quick: Runtime, exact: Runtime) -> None:
    def scored(runtime: Runtime, adapter: str) -> np.ndarray:
        """Log-probabilities of the prompts' tokens and of those after them, the same ones for both."""
        asked = [{"prompt": each, "adapter": adapter, "max_tokens": 6, "logit_bias": {65: 100.0}} for each in PROMPTS]
        streams = at_once(runtime, [each | {"logprobs": 0} for each in asked])
        return np.array([score.logprob for stream in streams for score in stream.scores])

    found = {adapter: (scored(quick, adapter), scored(exact, adapter)) for adapter in (BASE, "one")}
    apart = np.abs(found[BASE][1] - found["one"][1]).mean()
    for quickly, exactly in found.values():
        assert np.isfinite(exactly).all()
        assert np.abs(quickly - exactly).mean() < min(F16_ROUNDING, apart / 10)


@pytest.mark.parametrize("parallel", [1, 3])
def test_the_next_turn_does_not_read_the_answer_again(goods: Goods, parallel: int) -> None:
    messages = [{"role": "user", "content": "Tell me about the sea."}]
    cached = {}
    for exactly in (False, True):
        with opened(goods.bundle, parallel=parallel, exact=exactly, lookahead=False) as runtime:
            first = runtime.generate(messages=messages, adapter="one", schema=SAID, max_tokens=80)
            later = [*messages, {"role": "assistant", "content": first.text}, {"role": "user", "content": "And lakes?"}]
            second = runtime.generate(messages=later, adapter="one", max_tokens=4)
            assert first.usage.completion_tokens > 8
            cached[exactly] = (second.usage.cached_tokens - first.usage.prompt_tokens) / first.usage.completion_tokens
    assert cached[True] <= 0
    assert cached[False] > 0.7  # the answer's end may be other tokens as a part of the prompt


def test_cells_of_one_kind_are_never_taken_by_the_other(goods: Goods, tmp_path: Path) -> None:
    cached = []
    for exactly in (False, True, False):
        with opened(goods.bundle, exact=exactly, cache=tmp_path) as runtime:
            answer = runtime.generate("A scratch.", adapter="one", max_tokens=2)
            cached.append(answer.usage.cached_tokens > 0)
    assert cached == [False, False, True]


def test_onnx_bundles_have_no_other_way(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ONNX"):
        open_engine(BaseFiles(ONNX, tmp_path / "model.onnx"), context=32, threads=1, exact=False)
