"""Vectors are the mean of the last hidden state that PEFT's model computes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from edgekit.bases.resolve import resolve_base
from edgekit_exporters.bundle import write_bundle
from edgekit_exporters.gguf.adapter import AdapterSource
from edgekit_exporters.gguf.base import base_gguf
from edgekit_runtime import InputError, Runtime
from edgekit_runtime.errors import ContextExceeded
from tests.adapters import save_random_lora, save_random_prompt
from tests.goods import text_plan

TEXTS = ["A scratch of 2 mm on the left edge.", "dent", "The paint has run. " * 20]  # one chunk and several
CLOSE = 2e-3  # the base's weights and the KV cache are float16


@pytest.fixture(scope="module")
def adapters(tiny_chat_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """PEFT's folders: a LoRA of each layer's matrices, an activated one, and a prompt adapter."""
    folder = tmp_path_factory.mktemp("embedding")
    options: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"]}
    call = AutoTokenizer.from_pretrained(tiny_chat_base)(" left")["input_ids"]
    for seed, (name, more) in enumerate({"lora": {}, "called": {"alora_invocation_tokens": call}}.items()):
        torch.manual_seed(seed)
        save_random_lora(_model(tiny_chat_base), folder / name, std=0.3, **options, **more)
    save_random_prompt(_model(tiny_chat_base), folder / "prompt")
    return {name: folder / name for name in ("lora", "called", "prompt")}


def _model(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def bundle(tiny_chat_base: Path, adapters: dict[str, Path]) -> Path:
    base = resolve_base(str(tiny_chat_base))
    folder = adapters["lora"].parent / "bundle"
    sources = [AdapterSource(name, "1.0.0", path) for name, path in adapters.items()]
    write_bundle(text_plan(base, base_gguf(base, "F16"), sources), folder)
    return folder


@pytest.fixture(scope="module", params=[1, 3])
def runtime(bundle: Path, request: pytest.FixtureRequest) -> Iterator[Runtime]:
    with Runtime(bundle, threads=1, context=128, parallel=request.param) as opened:
        yield opened


def _expected(folder: Path, adapter: Path | None, text: str) -> np.ndarray:
    model: Any = _model(folder)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter)).eval()
    tokens = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        states = model(input_ids=tokens, output_hidden_states=True).hidden_states[-1][0]
    mean = states[-tokens.shape[1] :].mean(0).numpy()  # virtual tokens stand before
    return mean / np.linalg.norm(mean)


@pytest.mark.parametrize("adapter", [None, "lora", "called", "prompt"])
def test_vectors_are_those_of_the_trained_model(
    runtime: Runtime, tiny_chat_base: Path, adapters: dict[str, Path], adapter: str | None
) -> None:
    found = runtime.embed(TEXTS, adapter or "base")
    assert found.adapter == adapter
    assert found.vectors.shape == (len(TEXTS), 64)
    assert np.linalg.norm(found.vectors, axis=1) == pytest.approx(1)
    bare = runtime.embed(TEXTS, "base").vectors
    for text, vector, own in zip(TEXTS, found.vectors, bare, strict=True):
        expected = _expected(tiny_chat_base, adapters[adapter] if adapter else None, text)
        assert np.abs(vector - expected).max() < CLOSE
        if adapter in ("lora", "prompt") or (adapter == "called" and " left" in text):  # alive
            assert np.abs(vector - own).max() > 10 * CLOSE


def test_answers_and_their_cache_stay_the_same_bits_beside_texts(bundle: Path) -> None:
    asked: dict[str, Any] = {"prompt": "scratch", "adapter": "lora", "max_tokens": 20, "logprobs": 2}
    with Runtime(bundle, threads=1, context=128, parallel=2) as runtime:
        alone = runtime.stream(**asked)
        text = "".join(alone)
        vectors = runtime.embed(TEXTS, "called").vectors
        stream = runtime.stream(**asked)
        request, _ = runtime.embedding_request(TEXTS, adapter="called")
        said = next(stream)
        assert not request.done
        assert said + "".join(stream) == text
        assert stream.scores == alone.scores
        assert stream.result is not None
        assert stream.result.usage.cached_tokens > 0
        while not request.done:
            runtime.step()
        assert np.array_equal(np.stack(request.vectors), vectors)


def test_texts_take_turns_and_nobody_reads_for_those_who_have_gone(bundle: Path) -> None:
    with Runtime(bundle, threads=1, context=128) as runtime:
        long, _ = runtime.embedding_request([TEXTS[2]] * 50, adapter="lora")
        short, _ = runtime.embedding_request(["dent"], adapter="base")
        while not short.done:
            runtime.step()
        assert len(long.vectors) == 1
        long.close()
        while runtime.step():
            pass
        assert len(long.vectors) == 1
        runtime.remove_adapter("lora")  # nobody holds it
        assert len(runtime.loop.pool) == 0
        assert runtime.embed("dent", "base").vectors.shape == (1, 64)


def test_one_more_adapter_at_the_place_of_a_freed_one_is_not_taken_for_it(bundle: Path, tiny_chat_base: Path) -> None:
    with (
        Runtime(bundle, threads=1, context=128, adapter_memory=1) as runtime,
        pytest.raises(InputError, match="MB are"),
    ):
        runtime.embed("dent", "lora")
    with Runtime(bundle, threads=1, context=128) as runtime:
        wanted = {name: runtime.embed("left dent", name).vectors for name in ("lora", "called")}
        runtime.loop.pool._limit = 1 + max(runtime.loop.pool._sizes.values())
        for name in ("lora", "called") * 3:
            assert np.array_equal(runtime.embed("left dent", name).vectors, wanted[name])
        assert runtime.loop.pool.evictions >= 3


def test_texts_are_cut_where_that_is_asked_for_and_refused_elsewhere(runtime: Runtime) -> None:
    long = "The paint has run. " * 1000
    tokens = runtime.texts.tokenize("The paint has run. " * 20)
    with pytest.raises(ContextExceeded):
        runtime.embed(long)
    with pytest.raises(ContextExceeded, match="text 2 has 129 tokens, and the context has room for 128"):
        runtime.embed([tokens, [5] * 129])
    assert runtime.embed(long, truncate=True).tokens == (128,)
    assert runtime.embed([long, "dent"], "prompt", truncate=True).tokens == (122, 1)  # behind the virtual ones
    assert np.array_equal(runtime.embed(tokens).vectors, runtime.embed("The paint has run. " * 20).vectors)
    cut = runtime.embed("dent", dimensions=8).vectors
    whole = runtime.embed("dent").vectors[:, :8]
    assert np.allclose(cut, whole / np.linalg.norm(whole), atol=1e-6)


@pytest.mark.parametrize(
    ("texts", "options", "words"),
    [
        ([], {}, "no text to embed"),
        ("", {}, "text 1 is empty"),
        (["dent", ""], {}, "text 2 is empty"),
        ([10**6], {}, "token ids that the base doesn't know"),
        ([-1], {}, "token ids that the base doesn't know"),
        (["a"] * 2049, {}, "2049 texts"),
        ("dent", {"adapter": "nobody"}, "nobody"),
        ("dent", {"dimensions": 65}, "no 65 dimensions"),
        ("dent", {"lora": {"prompt": 0.5}}, "scale of 0.5"),
    ],
)
def test_what_has_no_vector_is_refused(runtime: Runtime, texts: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        runtime.embed(texts, **options)


def test_onnx_bundles_say_what_to_do(tiny_onnx_bundle: Path) -> None:
    with Runtime(tiny_onnx_bundle, threads=1, context=64) as runtime:
        with pytest.raises(InputError, match="export the base with --format gguf"):
            runtime.embed("dent")
        assert runtime.generate("dent", max_tokens=2).text is not None
