"""The device runtime on the real base with two adapters that visibly change its answers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit_runtime import BASE, InputError, Runtime, UsageError
from edgekit_runtime.engines import BARE, Sampling, forced_logits, generate
from edgekit_runtime.formats.bundle import file_digest

PROMPT = "Name three colours and write one short line about each."


@pytest.fixture(scope="module")
def runtime(any_bundle: Path) -> Iterator[Runtime]:
    with Runtime(any_bundle, context=512) as opened:
        yield opened


def ask(runtime: Runtime, adapter: str, **options: Any) -> str:
    return runtime.generate(PROMPT, adapter=adapter, **({"max_tokens": 24} | options)).text


def test_adapters_and_base_answer_differently(runtime: Runtime) -> None:
    assert len({ask(runtime, name) for name in (BASE, "one", "two")}) == 3


def test_switching_back_and_forth_never_changes_an_answer(runtime: Runtime, any_bundle: Path) -> None:
    fresh = {}
    for name in (BASE, "one", "two"):
        with Runtime(any_bundle, context=512) as alone:
            fresh[name] = ask(alone, name)
    order = ("one", "two", "one", BASE, "two", BASE, "one", "one", "two")
    assert [ask(runtime, name) for name in order] == [fresh[name] for name in order]


def test_the_bundles_default_is_the_bare_base_here(runtime: Runtime) -> None:
    result = runtime.generate(PROMPT, max_tokens=8)
    assert result.adapter is None
    assert result.text == ask(runtime, BASE, max_tokens=8)


def test_pieces_of_a_stream_are_the_answer(runtime: Runtime) -> None:
    stream = runtime.stream(PROMPT, adapter="one", max_tokens=24)
    pieces = list(stream)
    assert len(pieces) > 1
    assert stream.result is not None
    assert "".join(pieces) == stream.result.text == ask(runtime, "one")


def test_a_stream_that_is_left_early_does_not_block_the_next_request(runtime: Runtime) -> None:
    stream = runtime.stream(PROMPT, adapter="one", max_tokens=24)
    next(stream)
    stream.close()
    assert ask(runtime, "two")


def test_characters_of_several_bytes_come_whole(runtime: Runtime) -> None:
    text = "検査 合格 🙂 ü"
    engine = runtime.engine
    tokens = engine.tokenize(text, add_special=False)
    assert b"".join(map(engine.piece, tokens)).decode() == text
    assert len(tokens) > len(text)  # so some characters are split over tokens
    pieces = list(runtime.stream("Repeat it.", choice=[text], max_tokens=len(tokens) + 24))
    for piece in pieces:
        piece.encode()  # no lone surrogates, no half characters
        assert "\ufffd" not in piece
    assert "".join(pieces) == text


def test_seeds_repeat_and_differ(runtime: Runtime) -> None:
    def sample(seed: int) -> str:
        return ask(runtime, BASE, temperature=1.5, top_k=0, top_p=1.0, seed=seed)

    assert sample(1) == sample(1)
    assert len({sample(seed) for seed in range(4)}) > 1


def test_an_answer_ends_at_a_stop_text_or_at_the_limit(runtime: Runtime) -> None:
    whole = ask(runtime, BASE, max_tokens=40)
    word = whole.split()[3]
    cut = runtime.generate(PROMPT, adapter=BASE, max_tokens=40, stop=[word])
    assert cut.text == whole[: whole.index(word)]
    assert cut.finish_reason == "stop"
    limited = runtime.generate(PROMPT, adapter=BASE, max_tokens=5)
    assert (limited.finish_reason, limited.usage.completion_tokens) == ("length", 5)


def test_an_adapters_own_defaults_and_system_prompt_apply(runtime: Runtime) -> None:
    assert runtime.generate(PROMPT, adapter="two").usage.completion_tokens <= 7
    with_system = [{"role": "system", "content": "You are terse."}, {"role": "user", "content": PROMPT}]
    assert ask(runtime, "one") == runtime.generate(messages=with_system, adapter="one", max_tokens=24).text


def test_an_answer_follows_a_schema(runtime: Runtime) -> None:
    schema = {
        "type": "object",
        "properties": {"verdict": {"enum": ["accept", "scrap"]}, "size": {"type": "integer"}},
        "required": ["verdict", "size"],
        "additionalProperties": False,
    }
    answer = json.loads(runtime.generate("Judge: scratch, 3 mm.", schema=schema, max_tokens=64).text)
    assert answer["verdict"] in ("accept", "scrap")
    assert isinstance(answer["size"], int)


def test_teacher_forced_logits_lead_to_the_greedy_tokens(runtime: Runtime) -> None:
    engine = runtime.engine
    prompt = runtime.prompt_tokens("The capital of France is")
    engine.select(BARE)
    generation = generate(engine, prompt, Sampling())
    greedy = [next(generation) for _ in range(6)]
    logits = runtime.logits([*prompt, *greedy], adapter=BASE)
    assert logits.shape[0] == len(prompt) + 6
    assert np.isfinite(logits).all()
    assert logits[len(prompt) - 1 : -1].argmax(axis=1).tolist() == greedy


def test_a_long_prompt_is_prefilled_in_chunks_to_the_same_end(runtime: Runtime, any_bundle: Path) -> None:
    engine = runtime.engine
    tokens = (runtime.prompt_tokens("one two three four five six seven eight nine ten ") * 60)[:480]
    with Runtime(any_bundle, context=2048) as larger:
        long = (tokens * 3)[:1040]  # three batches
        first = next(generate(larger.engine, long, Sampling()))
        assert first == int(forced_logits(larger.engine, long)[-1].argmax())
    assert next(generate(engine, tokens, Sampling())) == int(forced_logits(engine, tokens)[-1].argmax())


def test_no_images_are_no_images_to_a_text_bundle(runtime: Runtime) -> None:
    assert ask(runtime, BASE, max_tokens=2, image=()) == ask(runtime, BASE, max_tokens=2)
    messages = [{"role": "user", "content": PROMPT}]
    assert runtime.encode(messages, BASE, []).tokens == runtime.encode(messages, BASE, None).tokens


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"adapter": "three"}, InputError, "no adapter 'three': it has one, two"),
        ({"max_tokens": 0}, UsageError, "max_tokens 0"),
        ({"max_tokens": 600}, InputError, "exceed the context of 512"),
        ({"image": Path("x.png")}, InputError, "text bundle"),
        ({"messages": [{"role": "user", "content": "x"}]}, UsageError, "either a prompt or messages"),
        ({"stop": [""]}, UsageError, "stop text is empty"),
        ({"schema": {"$ref": "#/nowhere"}}, InputError, "schema"),
    ],
)
def test_a_bad_request_is_refused_and_the_next_one_answered(
    options: dict[str, Any], error: type[Exception], message: str, runtime: Runtime
) -> None:
    with pytest.raises(error, match=message):
        runtime.generate(PROMPT, **options)
    assert ask(runtime, BASE, max_tokens=2)


def change_adapter(bundle: Path, folder: Path, change: Any) -> Path:
    """A copy of the bundle whose adapter file is changed, digests made right again."""
    copy = folder / "changed"
    shutil.copytree(bundle, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    entry = manifest["adapters"][0]
    path = copy / entry["file"]
    change(path, manifest)
    for file in manifest["files"]:
        if file["path"] == entry["file"]:
            file["size"], file["sha256"] = path.stat().st_size, file_digest(path)
            entry["digest"] = file["sha256"]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


def other_family(path: Path, manifest: dict[str, Any]) -> None:
    from edgekit_exporters.gguf.metadata import rewrite_metadata

    rewritten = path.with_suffix(".new")
    rewrite_metadata(path, rewritten, {"edgekit.family": "another-base"})
    rewritten.rename(path)


def other_architecture(path: Path, manifest: dict[str, Any]) -> None:
    from edgekit_exporters.gguf.metadata import rewrite_metadata

    rewritten = path.with_suffix(".new")
    rewrite_metadata(path, rewritten, {"general.architecture": "qwen2"})
    rewritten.rename(path)


def other_shapes(path: Path, manifest: dict[str, Any]) -> None:
    import gguf

    path.unlink()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 4.0)
    writer.add_tensor("blk.0.attn_q.weight.lora_a", np.zeros((4, 2048), dtype=np.float32))
    writer.add_tensor("blk.0.attn_q.weight.lora_b", np.zeros((2048, 4), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def truncated(path: Path, manifest: dict[str, Any]) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_family, "was trained for the base another-base"),
        (other_architecture, "is for the architecture qwen2"),
        (other_shapes, r"changes blk.0.attn_q.weight as \[2048, 2048\]"),
        (truncated, "ends beyond the file"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_before_the_engine_sees_it(
    change: Any, message: str, demo_bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        Runtime(change_adapter(demo_bundle, tmp_path, change))


def test_a_lora_of_somebody_else_runs_when_its_shapes_fit(demo_bundle: Path, tmp_path: Path) -> None:
    import gguf

    def foreign(path: Path, manifest: dict[str, Any]) -> None:
        reader = gguf.GGUFReader(path)
        tensors = [(tensor.name, np.array(tensor.data), tensor.tensor_type) for tensor in reader.tensors]
        path.unlink()
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", 8.0)
        for name, data, kind in tensors:
            writer.add_tensor(name, data, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    with Runtime(demo_bundle, context=512) as original:
        expected = ask(original, "one")
    with Runtime(change_adapter(demo_bundle, tmp_path, foreign), context=512) as copy:
        assert ask(copy, "one") == expected


def test_importing_the_package_loads_neither_engine_nor_training_stack() -> None:
    code = (
        "import sys, edgekit_runtime, edgekit_runtime.cli.program\n"
        "heavy = {'torch', 'transformers', 'peft', 'numpy', 'llama_cpp', 'onnxruntime', 'jinja2', 'matplotlib'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
