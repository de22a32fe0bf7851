"""`edgekit import-ollama` as its users run it: what comes out answers as the files that went in do in llama.cpp."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest

from edgekit.cli import main
from edgekit.importing.ollama import pieces
from edgekit_exporters.gguf.metadata import rewrite_metadata
from edgekit_runtime import Runtime
from edgekit_runtime.engines.llama.library import model_parameters
from edgekit_runtime.formats.adapter import KEY_FAMILY, AdapterFacts
from edgekit_runtime.formats.bundle import verify_bundle
from edgekit_runtime.formats.end_tokens import KEY_END_TOKENS
from edgekit_runtime.formats.gguf import read_gguf
from edgekit_runtime.prompts.template import KEY_TEMPLATE, KEY_TOKENS
from edgekit_runtime.store import Store
from tests.goods import Goods
from tests.tiny_gguf import matrices, write_lora

PROMPT = "<|im_start|>system\nYou are Mario.<|im_end|>\n<|im_start|>user\nscratch<|im_end|>\n<|im_start|>assistant\n"
TOKENS = 24
Import = Callable[..., dict[str, Any]]


@pytest.fixture
def folder(goods: Goods, tmp_path: Path) -> Path:
    """A base and a LoRA that say nothing of edgekit, as they come from anywhere."""
    folder = tmp_path / "mario"
    folder.mkdir()
    rewrite_metadata(goods.bundle / "base/model.gguf", folder / "base.gguf", {KEY_FAMILY: None, KEY_TOKENS: None})
    (folder / "lora.gguf").write_bytes(goods.nameless.read_bytes())
    return folder


@pytest.fixture
def run(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Import:
    """Write a Modelfile and import it."""

    def run(text: str, *options: str, code: int = 0) -> dict[str, Any]:
        (folder / "Modelfile").write_text(text)
        words = ["import-ollama", str(folder / "Modelfile"), "--output", str(tmp_path / "out"), "--json", *options]
        assert main(words) == code, capsys.readouterr().err
        said = capsys.readouterr()
        if code:
            assert (said.out, said.err.splitlines()[-1][:7]) == ("", "error: ")
            return {"error": said.err.splitlines()[-1]}
        document: dict[str, Any] = json.loads(said.out)
        return document

    return run


def in_llama_cpp(base: Path, lora: Path | None) -> list[int]:
    """The likeliest tokens behind the prompt, up to the first one that ends an answer.

    Of llama.cpp's kernels those are used that bundles are run with: others round otherwise, and a tie may break.
    """
    parameters = model_parameters()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(llama_cpp.llama_cpp, "llama_model_default_params", lambda: parameters)
        path = None if lora is None else str(lora)
        llama = llama_cpp.Llama(str(base), lora_path=path, n_ctx=128, n_threads=1, flash_attn=False, verbose=False)
    prompt = llama.tokenize(PROMPT.encode(), add_bos=False, special=True)
    found: list[int] = []
    for token in llama.generate(prompt, temp=0.0):
        if token == llama.token_eos() or len(found) == TOKENS:
            break
        found.append(int(token))
    llama.close()
    assert found
    return found


def in_the_bundle(bundle: Path, adapter: str | None, **question: Any) -> list[int]:
    with Runtime(bundle, threads=1, context=128, lookahead=False) as runtime:
        stream = runtime.stream(adapter=adapter, max_tokens=TOKENS, temperature=0.0, logprobs=0, **question)
        list(stream)
        return [score.token for score in stream.scores][:TOKENS]


def test_a_bundle_answers_as_its_files_do_in_llama_cpp(
    folder: Path, run: Import, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "resolve_base", None)  # nothing is unpacked
    text = "FROM ./base.gguf\nADAPTER ./lora.gguf\nSYSTEM You are Mario.\nPARAMETER top_k 7\nLICENSE free"
    said = run(text)
    manifest = verify_bundle(tmp_path / "out")
    (entry,) = manifest.adapters
    assert (said["adapters"], manifest.default_adapter, entry.system) == (["mario"], "mario", "You are Mario.")
    assert (entry.generation, manifest.base.system, manifest.base.generation) == ({"top_k": 7}, None, None)
    assert said["quality"] == manifest.quality == {"gate": "skipped", "reference": None, "artifact": None}
    assert (tmp_path / "out" / "LICENSE").read_text() == "free\n"
    adapted, bare = in_llama_cpp(folder / "base.gguf", folder / "lora.gguf"), in_llama_cpp(folder / "base.gguf", None)
    assert adapted != bare
    asked = {"raw": PROMPT}
    assert in_the_bundle(tmp_path / "out", "mario", **asked)[: len(adapted)] == adapted
    assert in_the_bundle(tmp_path / "out", "base", **asked)[: len(bare)] == bare
    assert in_the_bundle(tmp_path / "out", None, prompt="scratch")[: len(adapted)] == adapted  # with its system prompt
    (note,) = run(text)["notes"]  # again, over it
    assert f"had mario {manifest.version}" in note
    other = run(text, "--name", "luigi", code=3)["error"]
    assert "holds another bundle, mario" in other
    document = json.loads((tmp_path / "out/manifest.json").read_text())
    (tmp_path / "out/manifest.json").write_text(json.dumps(document | {"quality": {"gate": "passed"}}))
    assert "that an export has proven" in run(text, code=3)["error"]


def test_an_adapter_of_safetensors_is_converted(goods: Goods, folder: Path, run: Import, tmp_path: Path) -> None:
    peft = goods.nameless.parent / "peft-3"
    run(f"FROM ./base.gguf\nADAPTER {peft}\nSYSTEM You are Mario.")
    adapted = in_llama_cpp(folder / "base.gguf", folder / "lora.gguf")  # the same one, as llama.cpp has it
    assert in_the_bundle(tmp_path / "out", None, prompt="scratch")[: len(adapted)] == adapted


def test_a_safetensors_base_is_quantized(
    goods: Goods, tiny_chat_base: Path, folder: Path, run: Import, tmp_path: Path
) -> None:
    said = run(f"FROM {tiny_chat_base}\nADAPTER ./lora.gguf", "--quantize", "F16", "--name", "luigi")
    assert said["adapters"] == ["luigi"]
    adapted = in_llama_cpp(folder / "base.gguf", folder / "lora.gguf")
    assert in_the_bundle(tmp_path / "out", "luigi", raw=PROMPT)[: len(adapted)] == adapted


def test_without_an_adapter_the_base_has_system_prompt_and_defaults(run: Import, tmp_path: Path) -> None:
    said = run(
        "FROM ./base.gguf\nSYSTEM Be brief.\nPARAMETER temperature 0.5\nPARAMETER num_ctx 64", "--quantize", "Q8_0"
    )
    manifest = verify_bundle(tmp_path / "out")
    assert (manifest.base.system, manifest.base.generation) == ("Be brief.", {"temperature": 0.5})
    assert (manifest.adapters, manifest.default_adapter, manifest.base.quantization) == ((), None, "Q8_0")
    assert manifest.base.requantized_from is None  # from floats
    assert said["left_out"] == ["PARAMETER num_ctx 64: serve with --context 64"]


def test_stops_that_are_control_tokens_end_answers(run: Import, tmp_path: Path) -> None:
    said = run('FROM base.gguf\nPARAMETER stop "<|im_start|>"\nPARAMETER stop "<|im_end|>"\nPARAMETER stop "User:"')
    assert said["left_out"] == ['PARAMETER stop "User:": send it with requests']
    metadata = read_gguf(tmp_path / "out/base/model.gguf").metadata
    (token,) = json.loads(metadata[KEY_END_TOKENS])
    assert metadata["tokenizer.ggml.tokens"][token] == "<|im_start|>"


def test_each_adapter_is_one_of_its_own(goods: Goods, folder: Path, run: Import, tmp_path: Path) -> None:
    said = run(f"FROM base.gguf\nADAPTER lora.gguf\nADAPTER {goods.nameless.parent / 'peft-2'}\nADAPTER lora.gguf")
    assert said["adapters"] == ["mario", "peft-2", "mario-2"]
    assert verify_bundle(tmp_path / "out").default_adapter == "mario-2"
    assert "requests choose one by its name" in said["notes"][0]


def test_an_adapter_file_is_installed_where_the_base_is(
    goods: Goods, folder: Path, run: Import, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "FROM some-model-that-is-elsewhere\nADAPTER ./lora.gguf\nSYSTEM You are Mario.\nLICENSE free"
    said = run(text, "--for", str(goods.bundle))
    file = Path(said["files"][0]["path"])
    assert (said["bundle"], said["adapters"], file.parent) == (None, ["mario"], tmp_path / "out")
    facts = AdapterFacts.read(file)
    assert (facts.name, facts.system) == ("mario", "You are Mario.")
    store = Store(tmp_path / "store", create=True)
    for each in (goods.bundle, file):
        store.install(each)
    with Runtime(tmp_path / "store", threads=1, context=128) as runtime:
        stream = runtime.stream("scratch", adapter="mario", max_tokens=TOKENS, temperature=0.0, logprobs=0)
        list(stream)
        found = [score.token for score in stream.scores]
    adapted = in_llama_cpp(folder / "base.gguf", folder / "lora.gguf")
    assert found[: len(adapted)] == adapted
    converted = run(
        f"FROM x\nADAPTER {goods.nameless.parent / 'peft-3'}", "--for", str(goods.bundle), "--name", "peach"
    )
    ours, theirs = read_gguf(converted["files"][0]["path"]), read_gguf(folder / "lora.gguf")
    assert {name: each.shape for name, each in ours.tensors.items()} == {
        name: each.shape for name, each in theirs.tensors.items()
    }


def test_what_does_not_fit_is_refused_and_leaves_nothing(
    goods: Goods, folder: Path, run: Import, tmp_path: Path
) -> None:
    write_lora(folder / "other.gguf", matrices())
    zero = {name: np.zeros_like(each) for name, each in _tensors(folder / "lora.gguf").items()}
    write_lora(folder / "zero.gguf", zero)
    rewrite_metadata(folder / "base.gguf", folder / "bare.gguf", {KEY_TEMPLATE: None})
    (folder / "text.gguf").write_text("this is no model")
    for text, words in (
        ("FROM base.gguf\nADAPTER other.gguf", "use the adapter with its own base"),
        ("FROM base.gguf\nADAPTER zero.gguf", "changes nothing"),
        ("FROM bare.gguf", "has no chat template"),
        ("FROM text.gguf", "text.gguf"),
        ("FROM lora.gguf", "not a base model but a adapter"),
        ("FROM base.gguf\nPARAMETER top_k many", "has to be a whole number"),
        ('FROM base.gguf\nSYSTEM "x', "Modelfile:2: its quotes are not closed"),
    ):
        assert words in run(text, code=3)["error"]
        assert not (tmp_path / "out").exists()
    assert "has no ADAPTER" in run("FROM base.gguf", "--for", str(goods.bundle), code=3)["error"]
    assert "--name" in run("FROM base.gguf", "--name", "base", code=3)["error"]
    run("FROM base.gguf", "--for", str(goods.bundle), "--quantize", "Q8_0", code=2)
    run("FROM base.gguf", "--quantize", "Q9", code=2)
    run("FROM bare.gguf", "--chat-template", "chatml")
    (tmp_path / "out" / "manifest.json").write_text("mine")
    assert "out" in run("FROM base.gguf", code=3)["error"]


def _tensors(path: Path) -> dict[str, Any]:
    header = read_gguf(path)
    return {name: np.zeros(tuple(reversed(each.shape)), np.float32) for name, each in header.tensors.items()}
