"""Prompt adapters in the loop: prefilled once, beside everybody else, and no bit of anybody's answer changes."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from edgekit.bases.resolve import resolve_base
from edgekit_exporters.base import Base
from edgekit_exporters.bundle import write_bundle
from edgekit_exporters.gguf.adapter import AdapterSource
from edgekit_exporters.gguf.base import base_gguf
from edgekit_runtime import BASE, InputError, Runtime
from edgekit_runtime.cli import main
from edgekit_runtime.cli.doctor import examine
from edgekit_runtime.formats.bundle import read_manifest
from edgekit_runtime.runtime.generation import Stream
from edgekit_runtime.store import Store
from tests.adapters import save_random_lora, save_random_prompt
from tests.goods import text_plan
from tests.service import serving

COUNT, OTHER = 12, 5
NAMES = [BASE, "lora", "prompt", "other"]


def _float(base: Base) -> Any:
    return AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)


@pytest.fixture(scope="module")
def bundle(tiny_chat_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base with a LoRA and two prompt adapters, one of them with a system prompt."""
    folder, base = tmp_path_factory.mktemp("prompts"), resolve_base(str(tiny_chat_base))
    torch.manual_seed(2)
    options = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
    save_random_lora(_float(base), folder / "lora", std=0.3, **options)
    save_random_prompt(_float(base), folder / "prompt", count=COUNT)
    save_random_prompt(_float(base), folder / "other", count=OTHER, kind="MLP")
    sources = [
        AdapterSource("lora", "1", folder / "lora"),
        AdapterSource("prompt", "1", folder / "prompt", system="You inspect parts and say what is wrong."),
        AdapterSource("other", "1", folder / "other"),
    ]
    write_bundle(text_plan(base, base_gguf(base, "F16"), sources), folder / "bundle")
    return folder / "bundle"


def opened(bundle: Path, **options: Any) -> Runtime:
    return Runtime(bundle, **({"threads": 1, "context": 128, "parallel": 4} | options))


@pytest.fixture(scope="module")
def runtime(bundle: Path) -> Iterator[Runtime]:
    with opened(bundle) as started:
        yield started


def outcome(stream: Stream) -> Any:
    list(stream)
    assert stream.result is not None
    return stream.result.text, stream.result.finish_reason, stream.scores


def requests(count: int) -> list[dict[str, Any]]:
    chosen = random.Random(5)
    words = ("part", "scratch", "left", "edge", "deep", "two")
    return [
        {
            "prompt": " ".join(chosen.choices(words, k=chosen.randint(1, 20))),
            "adapter": NAMES[number % len(NAMES)],
            "max_tokens": chosen.randint(2, 10),
            "temperature": chosen.choice([0.0, 1.0]),
            "seed": number,
            "logprobs": 0,
        }
        for number in range(count)
    ]


def test_answers_at_the_same_time_are_to_the_bit_those_alone(runtime: Runtime, bundle: Path) -> None:
    asked = requests(12)
    alone = []
    with opened(bundle) as quiet:
        for each in asked:
            alone.append(outcome(quiet.stream(**each)))
            quiet.engine.holder = None  # the next one finds no KV cache
    assert len({each[0] for each in alone}) > 6  # they are alive
    for turn in (asked, asked[::-1]):  # the second time, much of each prompt is cached
        streams = [runtime.stream(**each) for each in turn]
        found = [outcome(stream) for stream in streams]
        assert found == (alone if turn is asked else alone[::-1])


@pytest.mark.parametrize("parallel", [1, 4])
@pytest.mark.parametrize("name", ["prompt", "other"])
def test_virtual_tokens_are_prefilled_once(bundle: Path, name: str, parallel: int) -> None:
    count = COUNT if name == "prompt" else OTHER
    options: dict[str, Any] = {"adapter": name, "max_tokens": 6, "logprobs": 0}
    with opened(bundle, parallel=parallel) as fresh:
        first = fresh.stream("scratch on the left edge", **options)
        expected = outcome(first)
        outcome(fresh.stream("something else in between", adapter=BASE, max_tokens=3))
        again = fresh.stream("scratch on the left edge", **options)
        assert outcome(again) == expected
        other = fresh.stream("a dent", **options)
        outcome(other)
    assert first.result is not None
    assert again.result is not None
    assert other.result is not None
    assert first.result.usage.cached_tokens == 0
    assert again.result.usage.cached_tokens >= count
    if name == "prompt":  # its virtual tokens and its system prompt; fewer than eight cells are computed, not fetched
        assert other.result.usage.cached_tokens > count


def test_a_restarted_service_finds_them_on_the_disk(bundle: Path, tmp_path: Path) -> None:
    expected = []
    for turn in range(2):
        with opened(bundle, cache=tmp_path / "kv") as fresh:
            stream = fresh.stream("scratch", adapter="prompt", max_tokens=4, logprobs=0)
            expected.append(outcome(stream))
            assert stream.result is not None
            assert (stream.result.usage.cached_tokens > COUNT) == bool(turn)
    assert expected[0] == expected[1]


def test_two_prompt_adapters_share_a_batch_with_the_base(runtime: Runtime) -> None:
    """No layer has anything of them, so there is nothing to switch."""
    streams = [runtime.stream("scratch", adapter=name, max_tokens=8) for name in (BASE, "prompt", "other")]
    while any(not stream.started for stream in streams):
        runtime.step()
    decoded: list[int] = []
    whole = runtime.engine.decode
    try:
        runtime.engine.decode = lambda parts: (decoded.append(len(parts)), whole(parts))[1]  # type: ignore
        runtime.step()
    finally:
        del runtime.engine.decode  # type: ignore
    for stream in streams:
        stream.close()
    assert decoded in ([3], [1, 1, 1])  # the latter on a CPU whose kernels differ between batch sizes


def test_the_prompt_scores_only_its_own_tokens(runtime: Runtime) -> None:
    ids = runtime.prompt_tokens("a scratch of two millimetres")
    stream = runtime.stream(raw=ids, adapter="prompt", max_tokens=1, logprobs=1, echo=True)
    outcome(stream)
    assert [each.token for each in stream.echoed] == ids
    assert stream.echoed[0].logprob is None
    expected = torch.log_softmax(torch.tensor(runtime.logits(ids, "prompt")), -1)
    for place, each in enumerate(stream.echoed[1:]):
        assert each.logprob == pytest.approx(float(expected[place, each.token]), abs=2e-3)


def test_virtual_tokens_count_in_the_context(runtime: Runtime) -> None:
    ids = runtime.prompt_tokens("scratch " * 200)[: 128 - COUNT - 4]
    assert runtime.generate(raw=ids, adapter="prompt", max_tokens=4).usage.prompt_tokens == len(ids) + COUNT
    with pytest.raises(InputError, match=f"{len(ids)} tokens, the adapter's {COUNT} virtual ones and 5"):
        runtime.generate(raw=ids, adapter="prompt", max_tokens=5)


def test_a_prompt_adapter_is_asked_alone_at_a_scale_of_one(runtime: Runtime) -> None:
    alone = runtime.generate("scratch", adapter="other", max_tokens=5).text
    assert runtime.generate("scratch", lora={"other": 1.0}, max_tokens=5).text == alone
    assert runtime.generate("scratch", lora={"other": 1.0, "lora": 0.0}, max_tokens=5).text == alone
    for lora, why in (
        ({"other": 1.0, "lora": 1.0}, "mean nothing beside another adapter"),
        ({"other": 1.0, "prompt": 1.0}, "mean nothing beside another adapter"),
        ({"other": 0.5}, "can't have a scale of 0.5"),
    ):
        with pytest.raises(InputError, match=why):
            runtime.generate("scratch", lora=lora, max_tokens=5)


def test_a_manifest_that_contradicts_the_file_is_refused(bundle: Path, tmp_path: Path) -> None:
    other = tmp_path / "bundle"
    shutil.copytree(bundle, other)
    manifest = read_manifest(other)
    adapters = tuple(
        replace(entry, virtual_tokens=9) if entry.name == "prompt" else entry for entry in manifest.adapters
    )
    (other / "manifest.json").write_bytes(replace(manifest, adapters=adapters).dump())
    with pytest.raises(InputError, match="has 9 virtual tokens in the manifest, and 12 in its file"):
        opened(other)


def test_a_store_takes_it_as_any_other(bundle: Path, runtime: Runtime, tmp_path: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    store.install(bundle)
    guest = tmp_path / "guest.gguf"
    shutil.copyfile(runtime.adapter_path("other"), guest)
    store.install(guest)  # the same file once more, which changes nothing
    found = {each.name: (each.active, each.rank, each.virtual_tokens) for each in store.installed()}
    assert found == {"lora": (True, 4, None), "prompt": (True, 0, COUNT), "other": (True, 0, OTHER)}
    with Runtime(store.root, threads=1, context=128) as stored:
        expected = runtime.generate("scratch", adapter="other", max_tokens=5).text
        assert stored.generate("scratch", adapter="other", max_tokens=5).text == expected


def test_doctor_run_and_bench_know_it(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checks = {check.what: check for check in examine(bundle)}
    assert all(check.ok for check in checks.values()), checks
    assert checks["effect of prompt"].found == "its logits are others than the base's"
    assert main(["run", str(bundle), "--prompt", "scratch", "--adapter", "prompt", "--max-tokens", "5"]) == 0
    with Runtime(bundle) as alone:
        expected = alone.generate("scratch", adapter="prompt", max_tokens=5).text
    assert capsys.readouterr().out.strip() == expected.strip()
    assert main(["bench", str(bundle), "--quick", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [each["adapter"] for each in results] == NAMES


def test_an_onnx_base_refuses_it_with_the_reason(tiny_onnx_bundle: Path, runtime: Runtime) -> None:
    why = "takes token ids alone: its graph holds the embeddings"
    with Runtime(tiny_onnx_bundle, threads=1) as other, pytest.raises(InputError, match=why):
        other.add_adapter(runtime.adapter_path("other"))


def test_one_service_answers_with_both_kinds_and_loads_another(bundle: Path, runtime: Runtime) -> None:
    expected = {name: runtime.generate("scratch", adapter=name, max_tokens=6).text for name in NAMES}
    assert len(set(expected.values())) > 2
    file = runtime.adapter_path("other")
    with serving(bundle) as service:
        body = {"lora_name": "guest", "lora_path": str(file)}
        assert service.http.post("/v1/load_lora_adapter", json=body).status_code == 200
        assert {name: service.text(model=name) for name in NAMES} == expected
        assert service.text(model="guest") == expected["other"]
