"""Answers keep to their form on both engines, sampled from weights that mean nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit_runtime import InputError, Runtime
from edgekit_runtime.constraints import Matcher, compiled
from tests.goods import Goods
from tests.runtime.constraints.test_compiling import validator
from tests.runtime.constraints.walks import HELD

SHORT = {  # those that end soon at any temperature
    *("type", "enum", "const", "minimum", "multipleOf", "length", "dates", "prefixItems"),
    *("no additionalProperties", "oneOf told apart", "exclusive of draft 4", "recursive $ref"),
}
LIMIT = 150
NEAR = 0.1  # int8 activations of ONNX Runtime are rounded otherwise in a prompt than token by token
HOT: dict[str, Any] = {"temperature": 1.5, "top_k": 0, "top_p": 1.0}


@pytest.fixture(scope="module")
def bundles(goods: Goods, tiny_onnx_bundle: Path) -> dict[str, Path]:
    return {"llama.cpp": goods.bundle, "onnxruntime": tiny_onnx_bundle}


@pytest.fixture(scope="module", params=["llama.cpp", "onnxruntime"])
def runtime(request: pytest.FixtureRequest, bundles: dict[str, Path]) -> Iterator[Runtime]:
    with Runtime(bundles[request.param], context=256, parallel=2) as opened:
        yield opened


@pytest.mark.parametrize("name", sorted(SHORT))
def test_every_whole_answer_fits_its_schema(name: str, runtime: Runtime) -> None:
    ended = 0
    for seed in range(6):
        answer = runtime.generate("x", schema=HELD[name], max_tokens=LIMIT, seed=seed, **HOT)
        assert (answer.finish_reason == "length") == (answer.usage.completion_tokens == LIMIT)
        if answer.finish_reason == "stop":
            validator(HELD[name]).validate(json.loads(answer.text))
            ended += 1
    assert ended


def test_a_truncated_answer_says_so(runtime: Runtime) -> None:
    schema = {"type": "array", "items": {"type": "string"}, "minItems": 10}
    answer = runtime.generate("x", schema=schema, max_tokens=9)
    assert answer.finish_reason == "length"
    assert answer.text.startswith("[")


def test_log_probabilities_are_the_models_whatever_a_schema_leaves_of_its_tokens(runtime: Runtime) -> None:
    asked = [5, 9, 7, 11]
    stream = runtime.stream(raw=asked, schema=HELD["enum"], max_tokens=40, temperature=0.0, logprobs=1)
    list(stream)
    answer = [each.token for each in stream.scores]
    free = runtime.stream(raw=asked + answer, max_tokens=1, logprobs=1, echo=True)
    list(free)
    told = free.echoed[len(asked) :]
    assert [each.token for each in told] == answer
    for held, each in zip(stream.scores, told, strict=True):
        assert held.logprob == pytest.approx(each.logprob, abs=NEAR)
        assert held.top[0][1] == pytest.approx(each.top[0][1], abs=NEAR)
    assert min(each.logprob or 0.0 for each in stream.scores) < -1.0  # a token that is the only one left would have 0
    assert any(each.token != each.top[0][0] for each in stream.scores)  # the schema has chosen otherwise


def test_other_forms_are_followed(runtime: Runtime) -> None:
    def ask(**form: Any) -> str:
        return runtime.generate("x", **form, max_tokens=40, seed=3, **HOT).text

    assert re.fullmatch("[0-9]{3}-[ab]c?", ask(regex="[0-9]{3}-[ab]c?"))
    assert ask(choice=["accept", 'scrap "it"']) in ("accept", 'scrap "it"')
    assert re.fullmatch("(yes|no)!", ask(grammar='root ::= ("yes" | "no") "!"'))
    assert re.fullmatch("v[0-9]{2}", ask(grammar="start: /v[0-9]{2}/"))


def test_a_seed_gives_the_same_answer_alone_and_in_company(runtime: Runtime) -> None:
    options = {"schema": HELD["enum"], "max_tokens": 60, "seed": 7} | HOT
    alone = runtime.generate("x", **options).text
    mixed = [runtime.stream("x", **options), runtime.stream("y", max_tokens=60, seed=1, **HOT)]
    assert next("".join(stream) for stream in mixed) == alone
    assert runtime.generate("x", **options).text == alone


def test_company_with_a_schema_changes_no_free_answer(runtime: Runtime) -> None:
    options = {"max_tokens": 40, "seed": 5} | HOT
    free = runtime.generate("y", **options).text
    streams = [runtime.stream("y", **options), runtime.stream("x", schema=HELD["enum"], **options)]
    assert next("".join(stream) for stream in streams) == free


def test_a_grammar_that_fails_on_the_way_ends_its_request_alone(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = runtime.generate("y", max_tokens=20).text
    taken = Matcher.take

    def take(matcher: Matcher, token: int) -> None:
        taken(matcher, token)
        raise InputError("the grammar can't be held (too many items)", "change it")

    wrong = runtime.stream("x", choice=["abc"], max_tokens=20)
    neighbour = runtime.stream("y", max_tokens=20)
    with monkeypatch.context() as patch:
        patch.setattr(Matcher, "take", take)
        with pytest.raises(InputError, match="too many items"):
            list(wrong)
    assert "".join(neighbour) == free
    assert runtime.generate("x", choice=["abc"], max_tokens=20).text == "abc"


def test_tokens_of_an_answer_lead_a_new_matcher_to_the_same_place(runtime: Runtime) -> None:
    grammar = compiled(schema=HELD["enum"])
    assert grammar is not None
    vocabulary = runtime.engine._vocabulary  # type: ignore[attr-defined]
    matcher, taken = vocabulary.matcher(grammar), []
    for _ in range(8):
        taken.append(int(matcher.allowed()[-1]))
        matcher.take(taken[-1])
    again = vocabulary.matcher(grammar)
    for token in taken:
        again.take(token)
    assert again.allowed().tolist() == matcher.allowed().tolist()
    assert vocabulary.matcher(grammar).allowed().tolist() != matcher.allowed().tolist()
