"""A base with convolutions and experts (LFM2-MoE): exported, adapted, trained on, and answered for several at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, Lfm2MoeConfig, Lfm2MoeForCausalLM

from edgekit.bases.quantized import load_quantized
from edgekit.bases.resolve import resolve_base
from edgekit.bases.weights import Weights
from edgekit.targets.subject import subject_of_base
from edgekit_exporters.base import Base
from edgekit_exporters.gguf.adapter import AdapterSource
from edgekit_exporters.hf.float_model import load_float
from edgekit_runtime.engines import BARE, Part, forced_logits
from edgekit_runtime.formats.base_files import BaseFiles
from edgekit_runtime.formats.model_facts import genai_facts
from edgekit_runtime.formats.onnx_base import DATA_FILE, ENGINE, GENAI_CONFIG, MIXED_FILE, MODEL_FILE, VOCABULARY_FILE
from tests.adapters import save_random_lora

pytest.importorskip("onnx_ir", reason="the extra is not installed: pip install 'edgekit[onnx]'")

import onnx_ir as ir

from edgekit_exporters.onnx.adapter import write_adapter_onnx
from edgekit_exporters.onnx.base import base_onnx, blocks_of
from edgekit_exporters.onnx.graph_map import GraphMap
from edgekit_exporters.onnx.outline import onnx_outline
from edgekit_runtime.engines.onnx.engine import OnnxEngine

FLOAT_COMPUTE = 1  # of MatMulNBits
TOKENS = list(range(100, 120))
MODULES = ["in_proj", "out_proj", "q_proj", "v_proj", "w1", "w2"]


@pytest.fixture(scope="module")
def base(demo_base: Base, tmp_path_factory: pytest.TempPathFactory) -> Base:
    folder = tmp_path_factory.mktemp("hybrid") / "tiny-hybrid"
    tokenizer = AutoTokenizer.from_pretrained(demo_base.folder)
    config = Lfm2MoeConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        moe_intermediate_size=32,
        num_experts=4,
        num_experts_per_tok=2,
        num_dense_layers=1,
        num_hidden_layers=3,
        layer_types=["conv", "full_attention", "conv"],
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    model = Lfm2MoeForCausalLM(config)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.4 if "embed" in name else 0.15)
    for name, buffer in model.named_buffers():
        if name.endswith("expert_bias"):
            torch.nn.init.normal_(buffer, std=0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return resolve_base(str(folder))


@dataclass
class Exported:
    """Engines over the float graph, with the adapter "a"; and what torch says under it, and without."""

    one: OnnxEngine
    several: OnnxEngine
    bare: torch.Tensor
    adapted: torch.Tensor


def files(folder: Path) -> BaseFiles:
    parts = {name: folder / name for name in (MIXED_FILE, DATA_FILE, VOCABULARY_FILE)}
    return BaseFiles(ENGINE, folder / MODEL_FILE, parts)


def opened(folder: Path, sequences: int) -> OnnxEngine:
    return OnnxEngine(files(folder), context=64, threads=1, sequences=sequences)


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return torch.log_softmax(model(torch.tensor([TOKENS]), use_cache=False).logits[0].float(), -1)


@pytest.fixture(scope="module")
def exported(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    from peft import PeftModel

    scratch = tmp_path_factory.mktemp("hybrid-adapter")
    model = load_float(base.folder)
    bare = logits(model)
    save_random_lora(load_float(base.folder), scratch / "peft", std=0.05, target_modules=MODULES)
    folder = base_onnx(base, "fp32")
    write_adapter_onnx(AdapterSource("a", "1", scratch / "peft"), base, scratch / "a.onnx_adapter", folder)
    one, several = (opened(folder, count) for count in (1, 3))
    for engine in (one, several):
        engine.load_adapter("a", scratch / "a.onnx_adapter")
    yield Exported(one, several, bare, logits(PeftModel.from_pretrained(model, scratch / "peft")))
    one.close()
    several.close()


def divergence(expected: torch.Tensor, found: np.ndarray) -> float:
    other = torch.log_softmax(torch.from_numpy(found), -1)
    return float((expected.exp() * (expected - other)).sum(-1).max())


def test_the_graph_and_its_adapter_are_torch(exported: Exported) -> None:
    for engine in (exported.one, exported.several):
        assert divergence(exported.bare, forced_logits(engine, TOKENS)) < 1e-5
        assert divergence(exported.adapted, forced_logits(engine, TOKENS, (("a", 1.0),))) < 1e-5
    assert divergence(exported.bare, exported.adapted.numpy()) > 0.01


def test_sequences_that_rest_keep_their_state(exported: Exported) -> None:
    """Each is given its tokens in turns, under another adapter than its neighbours, and saved and restored halfway."""
    engine = exported.several
    wanted = {0: exported.bare, 2: exported.adapted}
    stacks = {0: BARE, 2: (("a", 1.0),)}
    for sequence in range(3):
        engine.forget(sequence)
    for sequence in (0, 2):
        engine.decode([Part(sequence, 0, TOKENS[:12], stack=stacks[sequence])])
    state = engine.save(2)
    engine.decode([Part(2, 12, [7], stack=stacks[2])])
    engine.forget(2)
    assert engine.restore(2, state)
    for at in range(12, len(TOKENS)):
        for sequence in (2, 0):
            engine.decode([Part(sequence, at, [TOKENS[at]], stack=stacks[sequence])])
            assert divergence(wanted[sequence][at : at + 1], engine.row(0)[None]) < 1e-5
    both = [Part(sequence, len(TOKENS), [9], stack=stacks[sequence]) for sequence in (0, 2)]
    engine.decode(both)
    together = [engine.row(0).copy(), engine.row(1).copy()]
    assert not np.allclose(*together)


def test_a_state_is_not_cut_back(exported: Exported) -> None:
    engine = exported.one
    engine.select(BARE)
    engine.forget(0)
    engine.decode([Part(0, 0, TOKENS)])
    assert engine.forget(0, len(TOKENS))
    assert not engine.forget(0, 5)
    engine.decode([Part(0, 0, TOKENS)])  # from an empty one
    assert divergence(exported.bare[-1:], engine.row(0)[None]) < 1e-5
    assert not exported.several.batches_exactly(BARE)


def test_it_trains_on_the_blocks_that_it_runs(base: Base, tmp_path: Path) -> None:
    folder = base_onnx(base, "int4")
    blocks, places = blocks_of(folder), GraphMap.read(folder)
    assert set(blocks) == places.matrices - places.routers
    packed = load_quantized(folder, base.folder, dtype=torch.float32)
    layer = packed.model.layers[0]
    found = layer.feed_forward.w3.blocks.dequantize(torch.float32)
    assert torch.equal(found, blocks["model.layers.0.mlp.up_proj"].floats())
    shutil.copytree(folder, tmp_path / "copy")
    graph = ir.load(folder / MODEL_FILE)
    for node in graph.graph:
        if node.op_type == "MatMulNBits":  # activations of 8 bits may choose another expert
            node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", FLOAT_COMPUTE)
    ir.save(graph, tmp_path / "copy" / MODEL_FILE)
    engine = opened(tmp_path / "copy", 1)
    assert divergence(logits(packed), forced_logits(engine, TOKENS)) < 1e-5
    engine.close()


@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_it_is_as_large_as_its_outline_says(precision: str, base: Base) -> None:
    outline = onnx_outline(base, precision)
    assert outline.file_bytes == pytest.approx(files(base_onnx(base, precision)).size, rel=0.03)
    assert outline.config.layer_types.count("conv") == 2


def test_only_attention_keeps_keys_and_values(base: Base) -> None:
    """One layer of three does; the others keep two inputs of their convolution."""
    facts = genai_facts(json.loads((base_onnx(base, "fp32") / GENAI_CONFIG).read_text(encoding="utf-8")))
    assert facts.cache_bytes(10) == 10 * 2 * 2 * 16 * 4 + 2 * 64 * 2 * 4
    planned = subject_of_base(base, Weights("onnx", "fp32")).model
    assert planned.kv_bytes(10) == facts.cache_bytes(10)
