"""Prompt adapters of PEFT: what the device's engine computes with one is what PEFT computes, or it is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from edgekit.bases.resolve import resolve_base
from edgekit_exporters.base import Base
from edgekit_exporters.gguf.adapter import AdapterSource, separate_adapter, write_adapter_gguf
from edgekit_exporters.gguf.base import base_gguf
from edgekit_exporters.peft.intake import attach, take_in, take_in_any
from edgekit_exporters.peft.merge import merge_to_folder
from edgekit_exporters.peft.prompts import CHECKED, TOLD, TakenPrompt, checked_prompt
from edgekit_runtime.engines import forced_logits
from edgekit_runtime.engines.llama.engine import LlamaEngine
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.adapter import AdapterFacts
from tests.adapters import save_random_prompt

COUNT = 6
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
SAME = 1e-3  # nats, mean over tokens, as of LoRA: the engine keeps keys and values as F16
IDS = [(7 * at * at + 3 * at + 11) % 4000 for at in range(40)]


@pytest.fixture(scope="module")
def base(tiny_chat_base: Path) -> Base:
    return resolve_base(str(tiny_chat_base))


@pytest.fixture(scope="module")
def folder(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    target = tmp_path_factory.mktemp("prompt") / "peft"
    save_random_prompt(_float(base), target, count=COUNT)
    return target


@pytest.fixture(scope="module")
def engine(base: Base) -> Iterator[LlamaEngine]:
    opened = LlamaEngine(base_gguf(base, "F16"), context=64, threads=1)
    yield opened
    opened.close()


def _float(base: Base) -> Any:
    return AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)


def _kl(expected: Any, found: Any) -> float:
    p, q = (torch.log_softmax(torch.as_tensor(each).float(), -1) for each in (expected, found))
    assert torch.isfinite(p).all()
    assert torch.isfinite(q).all()
    return float((p.exp() * (p - q)).sum(-1).mean())


@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "MLP", "LSTM"])
def test_the_engine_computes_what_peft_computes(base: Base, engine: LlamaEngine, tmp_path: Path, kind: str) -> None:
    torch.manual_seed(5)
    model = save_random_prompt(_float(base), tmp_path / "peft", count=COUNT, kind=kind)
    written = write_adapter_gguf(AdapterSource("it", "1", tmp_path / "peft"), base, tmp_path / "it.gguf")
    assert written.virtual_tokens == COUNT
    with torch.inference_mode():
        expected = model(input_ids=torch.tensor([IDS])).logits[0, COUNT:]
        with model.disable_adapter():
            bare = model(input_ids=torch.tensor([IDS])).logits[0]
    engine.load_adapter("it", tmp_path / "it.gguf")
    found = forced_logits(engine, IDS, (("it", 1.0),))
    engine.unload_adapter("it")
    assert found.shape == tuple(expected.shape)
    assert _kl(expected, bare) > 1  # it does something
    assert _kl(expected, found) < SAME
    assert np.array_equal(expected.argmax(-1), found.argmax(-1))
    assert np.array_equal(forced_logits(engine, IDS), forced_logits(engine, IDS))
    assert _kl(bare, forced_logits(engine, IDS)) < SAME  # nothing of it is left


def test_the_engine_computes_what_peft_computes_on_real_weights(demo_base: Base, tmp_path: Path) -> None:
    torch.manual_seed(6)
    model = save_random_prompt(_float(demo_base), tmp_path / "peft", count=16, std=0.1)
    write_adapter_gguf(AdapterSource("it", "1", tmp_path / "peft"), demo_base, tmp_path / "it.gguf")
    opened = LlamaEngine(base_gguf(demo_base, "F16"), context=64, threads=1)
    opened.load_adapter("it", tmp_path / "it.gguf")
    found = forced_logits(opened, IDS, (("it", 1.0),))
    bare = forced_logits(opened, IDS)
    opened.close()
    with torch.inference_mode():
        expected = model(input_ids=torch.tensor([IDS])).logits[0, 16:]
    assert _kl(expected, bare) > 0.1
    assert _kl(expected, found) < SAME
    assert np.array_equal(expected.argmax(-1), found.argmax(-1))


def test_what_is_attached_is_what_was_saved(base: Base, folder: Path) -> None:
    taken = take_in_any(folder, base)
    assert isinstance(taken, TakenPrompt)
    assert torch.equal(taken.rows, load_file(folder / WEIGHTS)["prompt_embeddings"])
    model = attach(_float(base), taken)
    assert torch.equal(model.get_prompt(1)[0].detach(), taken.rows)


def test_the_file_says_all_that_a_device_needs_to_know(base: Base, folder: Path, tmp_path: Path) -> None:
    source = AdapterSource("it", "1.2", folder, system="Inspect.", generation={"max_tokens": 9})
    write_adapter_gguf(source, base, tmp_path / "it.gguf")
    facts = AdapterFacts.read(tmp_path / "it.gguf")
    assert (facts.name, facts.version, facts.family, facts.system) == ("it", "1.2", base.family, "Inspect.")
    assert (facts.virtual_tokens, facts.rank, facts.pairs, facts.generation) == (COUNT, 0, {}, {"max_tokens": 9})
    assert (tmp_path / "it.gguf").stat().st_size < COUNT * 64 * 4 + 1024


def _changed(folder: Path, target: Path, config: dict[str, Any], tensors: Callable[[Any], Any] | None = None) -> Path:
    shutil.copytree(folder, target)
    document = json.loads((target / CONFIG).read_text())
    (target / CONFIG).write_text(json.dumps(document | config))
    if tensors is not None:
        save_file(tensors(load_file(target / WEIGHTS)), target / WEIGHTS)
    return target


@pytest.mark.parametrize(
    ("config", "tensors", "why"),
    [
        ({"peft_type": "PREFIX_TUNING"}, None, "past_key_values"),
        ({"peft_type": "CARTRIDGE"}, None, "past_key_values"),
        ({"peft_type": "MULTITASK_PROMPT_TUNING"}, None, "the number of a task"),
        ({"num_virtual_tokens": 5}, None, "5 virtual tokens on this base"),
        ({"num_virtual_tokens": True}, None, "num_virtual_tokens: True"),
        ({"num_virtual_tokens": 0}, None, "num_virtual_tokens: 0"),
        ({"token_dim": 128}, None, "virtual tokens on this base"),
        ({"num_transformer_submodules": 2}, None, "num_transformer_submodules"),
        ({"modules_to_save": ["lm_head"]}, None, "modules_to_save is on"),
        ({"something_new": 1}, None, "something_new is on"),
        ({}, lambda each: {**each, "other": torch.ones(1)}, "no other, and holds other"),
        ({}, lambda each: {"prompt_embeddings": each["prompt_embeddings"][:, :32].contiguous()}, r"\[6, 32\]"),
        ({}, lambda each: {"prompt_embeddings": each["prompt_embeddings"] * float("nan")}, "not finite"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(
    base: Base, folder: Path, tmp_path: Path, config: dict[str, Any], tensors: Any, why: str
) -> None:
    with pytest.raises(InputError, match=why) as error:
        take_in_any(_changed(folder, tmp_path / "it", config, tensors), base)
    assert error.value.hint


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=st.sampled_from((*CHECKED, *TOLD, "modules_to_save", "r", "of_another_world")),
    value=st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers(), max_size=2),
)
def test_any_config_gives_the_rows_or_an_error_that_names_its_file(folder: Path, key: str, value: Any) -> None:
    raw, tensors = json.loads((folder / CONFIG).read_text()), load_file(folder / WEIGHTS)
    told: InputError | None = None
    try:
        rows = checked_prompt(raw | {key: value}, tensors, 64, folder / CONFIG, folder / WEIGHTS)
    except InputError as error:
        told = error
    if told is None:
        assert torch.equal(rows, tensors["prompt_embeddings"])
    else:
        assert str(folder) in str(told)
        assert told.hint


def test_what_needs_changed_weights_is_refused_with_the_reason(base: Base, folder: Path, tmp_path: Path) -> None:
    for attempt in (lambda: take_in(folder, base), lambda: merge_to_folder(base, [folder], tmp_path / "merged")):
        with pytest.raises(InputError, match="no weight of the base changes: export it with --mode separate"):
            attempt()
    with pytest.raises(InputError, match="takes token ids alone"):
        separate_adapter(AdapterSource("it", "1", folder), base, onnx=True)
