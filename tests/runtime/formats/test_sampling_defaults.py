"""Sampling defaults that would make each request fail are refused where they are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit_exporters.gguf.metadata import rewrite_metadata
from edgekit_runtime.engines import Sampling
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.adapter import AdapterFacts
from edgekit_runtime.formats.manifest import Manifest
from edgekit_runtime.formats.sampling_defaults import RULES, check_generation, penalties_in
from edgekit_runtime.runtime.options import AS_IT_IS, DEFAULTS, sampling_of
from tests.goods import Goods

BAD: list[dict[str, Any]] = [
    {"max_tokens": "many"},
    {"max_tokens": 0},
    {"max_tokens": 1.5},
    {"max_tokens": True},
    {"temperature": "hot"},
    {"temperature": float("nan")},
    {"temperature": 10**400},
    {"top_k": [1]},
    {"top_k": 2**31},
    {"top_p": {}},
    {"top_p": -1},
    {"min_p": 2},
    {"repetition_penalty": 0},
    {"frequency_penalty": "some"},
    {"presence_penalty": -3},
]


@pytest.mark.parametrize("generation", BAD, ids=str)
def test_a_manifest_with_other_values_is_refused(goods: Goods, generation: dict[str, Any]) -> None:
    document = json.loads((goods.bundle / "manifest.json").read_bytes())
    for entry in (document["base"], document["adapters"][0]):
        entry["generation"] = generation
        with pytest.raises(InputError, match=r"generation\.\w+ is "):
            Manifest.parse(json.dumps(document), where="it")
        del entry["generation"]


def test_an_adapter_file_with_other_values_is_refused(goods: Goods, tmp_path: Path) -> None:
    rewrite_metadata(goods.two, tmp_path / "two.gguf", {"edgekit.generation": '{"max_tokens": "many"}'})
    with pytest.raises(InputError, match=r"two.gguf is not a sound adapter: generation.max_tokens is 'many'"):
        AdapterFacts.read(tmp_path / "two.gguf")


def test_half_a_character_in_a_manifest_is_refused(goods: Goods) -> None:
    document = json.loads((goods.bundle / "manifest.json").read_bytes())
    document["adapters"][0]["system"] = "a\ud800b"
    with pytest.raises(InputError, match="is not JSON"):
        Manifest.parse(json.dumps(document), where="it")


@given(st.dictionaries(st.sampled_from([*RULES, "later"]), st.none() | st.integers() | st.floats() | st.text()))
def test_what_is_taken_can_be_sampled_with(generation: dict[str, Any]) -> None:
    try:
        check_generation(generation, "it")
    except InputError:
        return
    given = {name: generation[name] for name in DEFAULTS if generation.get(name) is not None}
    Sampling(**given)


def test_a_request_goes_before_what_an_adapter_brings() -> None:
    defaults = {"repetition_penalty": 1.3, "frequency_penalty": 1, "presence_penalty": -1, "min_p": 0.1, "top_p": None}
    rest: dict[str, Any] = {"grammar": None, "vocabulary": 10, "thinking": None}
    taken = sampling_of({"seed": 1}, defaults, **rest)
    assert {name: getattr(taken, name) for name in defaults if name != "top_p"} == {
        name: value for name, value in defaults.items() if value is not None
    }
    assert sampling_of({"seed": 1, "presence_penalty": 0.5}, defaults, **rest).presence_penalty == 0.5
    assert not sampling_of({"seed": 1, **AS_IT_IS}, defaults, **rest).adjusts
    assert penalties_in(defaults) == ["repetition_penalty", "frequency_penalty", "presence_penalty"]
    assert penalties_in({"repetition_penalty": 1, "frequency_penalty": 0, "min_p": 0.2}) == penalties_in(None) == []
