"""A bundle's KV cache, and one that is asked for instead."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from edgekit_runtime import Runtime
from edgekit_runtime.cli import main
from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.formats.manifest import MANIFEST_FILE, Manifest
from edgekit_runtime.store import Store
from tests.goods import Goods, with_base


def test_a_bundle_names_its_cache_a_caller_another_and_nobody_reads_what_the_other_kept(
    demo_bundle: Path, tmp_path: Path
) -> None:
    bundle = with_base(demo_bundle, tmp_path / "bundle", kv_cache="q8_0")
    reused, scores = [], []
    for asked in (None, "f16", "q8_0"):
        with Runtime(bundle, context=256, kv_cache=asked, cache=tmp_path / "cache", lookahead=False) as runtime:
            assert runtime.engine.info()["kv_cache"] == runtime.base_files.kv_cache == (asked or "q8_0")
            stream = runtime.stream("scratch of 2 mm", adapter="one", max_tokens=3, logprobs=0, temperature=0.0)
            list(stream)
            scores.append([score.logprob for score in stream.scores])
            reused.append(runtime.loop.counts.reused_tokens)
            if asked is None:
                eight = runtime.embed("scratch of 2 mm").vectors[0]
            elif asked == "f16":
                exact = runtime.embed("scratch of 2 mm").vectors[0]
    assert reused[:2] == [0, 0]
    assert reused[2] > 8  # the adapter's system prompt
    assert scores[0] == scores[2] != scores[1]
    assert 0.999 < float(eight @ exact) < 1
    assert not np.array_equal(eight, exact)


def test_a_cache_that_the_adapters_were_not_proven_with_is_told(
    demo_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    proven = with_base(demo_bundle, tmp_path / "proven", kv_cache="q8_0")
    document = json.loads((proven / MANIFEST_FILE).read_text())
    document["adapters"][0]["quality"] = {"good": True}
    (proven / MANIFEST_FILE).write_text(json.dumps(document))
    said = []
    for kind in ("q8_0", "f16", "q4_0"):
        caplog.clear()
        with caplog.at_level(logging.WARNING), Runtime(proven, context=64, kv_cache=kind):
            said.append([each for each in caplog.messages if "proven" in each])
    assert said[:2] == [[], []]
    assert "proven with a KV cache of q8_0, and q4_0 is another: `edgekit export --kv-cache q4_0`" in said[2][0]


def test_another_cache_takes_another_runtime(demo_bundle: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store", create=True, trial=lambda base, adapters: [True] * len(adapters))
    store.install(demo_bundle)
    with Runtime(store.root, context=64) as runtime:
        store.install(with_base(demo_bundle, tmp_path / "later", "2", kv_cache="f16"))
        assert runtime.refresh()
        store.install(with_base(demo_bundle, tmp_path / "other", "3", kv_cache="q8_0"))
        assert not runtime.refresh()
        assert runtime.manifest.version == "2"
    with Runtime(store.root, context=64) as runtime:
        assert runtime.engine.info()["kv_cache"] == "q8_0"


def test_heads_that_do_not_fit_are_refused_before_the_base_is_read(goods: Goods) -> None:
    with pytest.raises(InputError, match=r"tiny-chat.* has attention heads of 16, and a KV cache of q8_0 has blocks"):
        Runtime(goods.bundle, kv_cache="q8_0")


def test_onnx_bundles_have_their_own(tiny_onnx_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ONNX Runtime has no KV cache of the type q8_0"):
        Runtime(tiny_onnx_bundle, kv_cache="q8_0")
    with Runtime(tiny_onnx_bundle, kv_cache="f16", context=64) as runtime:
        assert runtime.generate("scratch", max_tokens=1).usage.completion_tokens == 1
    document = json.loads((tiny_onnx_bundle / MANIFEST_FILE).read_text())
    document["base"]["kv_cache"] = "q8_0"
    with pytest.raises(InputError, match="onnxruntime-genai has no KV cache of q8_0"):
        Manifest.parse(json.dumps(document), where="it")


@pytest.mark.parametrize("command", ["run", "serve", "bench"])
def test_a_type_that_is_none_is_wrong_usage(
    command: str, demo_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, str(demo_bundle), "--kv-cache", "q8"]) == 2
    assert (
        "there is no --kv-cache 'q8': use one of f16, q8_0-f16, q8_0, q4_0; did you mean q8_0?"
        in capsys.readouterr().err
    )


def test_a_service_that_starts_by_itself_has_the_same(demo_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(demo_bundle), "--kv-cache", "q8_0", "--print-unit"]) == 0
    assert "--kv-cache q8_0" in capsys.readouterr().out


def test_a_manifest_that_names_no_cache_means_f16(demo_bundle: Path) -> None:
    text = (demo_bundle / MANIFEST_FILE).read_bytes()
    manifest = Manifest.parse(text, where="it")
    assert manifest.base.kv_cache is None
    assert manifest.dump() == text
    for named, means_the_same in (("f16", True), ("q8_0", False)):
        document = json.loads(text)
        document["base"]["kv_cache"] = named
        other = Manifest.parse(json.dumps(document), where="it")
        assert manifest.base.runs_as(other.base) == means_the_same
    document["base"]["kv_cache"] = "q5_1"
    with pytest.raises(InputError, match="kv_cache 'q5_1' is none of f16, q8_0-f16, q8_0, q4_0"):
        Manifest.parse(json.dumps(document), where="it")
