from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.manifest import Manifest, is_safe_path

DIGEST = "0" * 64


def document(**changes: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "schema": "edgekit.bundle/1",
        "name": "line-3",
        "version": "1",
        "created": "2026-01-01T00:00:00+00:00",
        "engine": "llama.cpp",
        "task": "text",
        "base": {
            "file": "base/model.gguf",
            "architecture": "llama",
            "parameters": 1,
            "quantization": "Q4_0",
            "context": 64,
            "family": "tiny",
            "digest": DIGEST,
        },
        "adapters": [
            {
                "name": "a",
                "version": "1",
                "file": "adapters/a-1.gguf",
                "rank": 8,
                "targets": ["q_proj"],
                "family": "tiny",
                "digest": DIGEST,
            }
        ],
        "default_adapter": None,
        "files": [
            {"path": "base/model.gguf", "size": 1, "sha256": DIGEST},
            {"path": "adapters/a-1.gguf", "size": 1, "sha256": DIGEST},
        ],
        "requires": {"runtime": ">=0.1", "memory_mb": 1, "isa": "any"},
        "quality": {"gate": "skipped"},
    }
    return whole | changes


def parse(value: Any) -> Manifest:
    return Manifest.parse(json.dumps(value), where="manifest.json")


def test_a_manifest_survives_writing_and_reading() -> None:
    manifest = parse(document())
    assert Manifest.parse(manifest.dump(), where="again") == manifest
    assert manifest.dump() == manifest.dump()


def test_fields_of_later_versions_are_ignored() -> None:
    assert parse(document(mood="good", base=document()["base"] | {"colour": "red"})).name == "line-3"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "edgekit.bundle/9"}, "edgekit.bundle/9"),
        ({"name": 3}, "name has to be text"),
        ({"files": {}}, "files has to be a list"),
        ({"engine": "other"}, "engine"),
        ({"default_adapter": "nobody"}, "default_adapter"),
        ({"base": document()["base"] | {"digest": "1" * 64}}, "contradicts"),
        ({"base": document()["base"] | {"file": "elsewhere"}}, "not among its files"),
        ({"base": document()["base"] | {"context": -1}}, "context"),
        ({"base": document()["base"] | {"context": True}}, "context"),
        ({"adapters": document()["adapters"] * 2}, "listed twice"),
        ({"adapters": [document()["adapters"][0] | {"name": "../x"}]}, "name"),
        ({"files": [{"path": "../../etc/passwd", "size": 1, "sha256": DIGEST}]}, "leaves the bundle"),
        ({"files": [{"path": "x", "size": 1, "sha256": "xyz"}]}, "sha256"),
        ({"quality": {"gate": "perhaps"}}, "quality.gate"),
    ],
)
def test_what_can_not_be_right_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(document(**change))


@pytest.mark.parametrize("key", [key for key in document() if key not in ("default_adapter", "quality")])
def test_a_missing_field_is_named(key: str) -> None:
    lacking = document()
    del lacking[key]
    with pytest.raises(InputError, match=key):
        parse(lacking)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(key=st.sampled_from(sorted(document())), value=json_values)
def test_any_value_anywhere_is_taken_or_refused_but_never_crashes(key: str, value: Any) -> None:
    try:
        parse(document(**{key: value}))
    except InputError:
        pass


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_text_that_is_no_manifest_is_refused(text: bytes) -> None:
    with pytest.raises(InputError):
        Manifest.parse(text, where="manifest.json")


def test_a_prompt_adapter_in_the_place_of_a_part_leaves_a_store_whole_and_is_in_no_bundles_stack() -> None:
    one = document()["adapters"][0] | {"kind": "prompt", "virtual_tokens": 8, "rank": 0, "targets": []}
    for digest, complete, good in (("1" * 64, False, True), ("1" * 64, True, False), (DIGEST, False, False)):
        stack = {"name": "both", "adapters": [{"name": "a", "scale": 1.0, "digest": digest}]}
        text = json.dumps(document(adapters=[one], stacks=[stack]))
        if good:
            found = Manifest.parse(text, where="it", complete=complete)
            assert found.stacks[0].lacking(found.adapters) == ["a"]
        else:
            with pytest.raises(InputError, match="a is a prompt adapter, which answers alone"):
                Manifest.parse(text, where="it", complete=complete)


def test_a_stack_may_be_the_default_where_there_is_one() -> None:
    stack = {"name": "both", "adapters": [{"name": "a", "scale": 1.0, "digest": DIGEST}]}
    assert parse(document(stacks=[stack], default_adapter="both")).default_adapter == "both"
    with pytest.raises(InputError, match="default_adapter 'both' is not in it"):
        parse(document(default_adapter="both"))


@pytest.mark.parametrize("key", ["quality", "auto"])
def test_a_manifest_that_is_too_deep_to_be_written_again_is_refused(key: str) -> None:
    deep: Any = "x"
    for _ in range(600):
        deep = {"fallback": deep}
    with pytest.raises(InputError, match="more than 200 objects in each other"):
        parse(document(**{key: deep}))


@pytest.mark.parametrize("path", ["a", "a/b.gguf", "report/x.png"])
def test_plain_relative_paths_are_safe(path: str) -> None:
    assert is_safe_path(path)


@pytest.mark.parametrize("path", ["", ".", "..", "/a", "a/../b", "./a", "a//b", "a/", "C:\\x", "a\0b", "a/./b"])
def test_paths_that_leave_or_mean_different_things_are_not(path: str) -> None:
    assert not is_safe_path(path)
