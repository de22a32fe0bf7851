"""Training reads the blocks of an ONNX base, to the bit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig

from edgekit.bases.quantized import dequantized_state, load_quantized
from edgekit.bases.resolve import resolve_base
from edgekit_runtime.engines import forced_logits
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.base_files import BaseFiles
from edgekit_runtime.formats.onnx_base import DATA_FILE, ENGINE, MIXED_FILE, MODEL_FILE, VOCABULARY_FILE

pytest.importorskip("onnx_ir", reason="the extra is not installed: pip install 'edgekit[onnx]'")

from edgekit_exporters.onnx.base import base_onnx, blocks_of
from edgekit_runtime.engines.onnx.engine import OnnxEngine

TOKENS = list(range(100, 124))


@pytest.mark.parametrize("precision", ["int4", "int8"])
def test_the_packed_model_computes_with_the_blocks_that_the_engine_runs(precision: str, tiny_chat_base: Path) -> None:
    folder = base_onnx(resolve_base(str(tiny_chat_base)), precision)
    packed = load_quantized(folder, tiny_chat_base, dtype=torch.float32)
    state = dequantized_state(folder, packed.config, hf_folder=tiny_chat_base)
    blocks = blocks_of(folder)
    queries = blocks["model.layers.1.attn.qkv_proj"].floats()[: packed.config.hidden_size]
    layer, head = packed.model.layers[1], blocks["lm_head"].floats()
    assert torch.equal(layer.self_attn.q_proj.blocks.dequantize(torch.float32), queries)
    assert torch.equal(state["model.layers.1.self_attn.q_proj.weight"], queries)
    down = layer.mlp.down_proj.blocks.dequantize(torch.float32)
    assert torch.equal(down, blocks["model.layers.1.mlp.down_proj"].floats())
    assert torch.equal(packed.lm_head.blocks.dequantize(torch.float32), head)
    assert torch.equal(packed.model.embed_tokens(torch.tensor([7, 9])), head[[7, 9]])
    with torch.inference_mode():
        ours = torch.log_softmax(packed(torch.tensor([TOKENS])).logits[0], -1)
    parts = {name: folder / name for name in (MIXED_FILE, DATA_FILE, VOCABULARY_FILE)}
    engine = OnnxEngine(BaseFiles(ENGINE, folder / MODEL_FILE, parts), context=64, threads=1)
    theirs = torch.log_softmax(torch.from_numpy(forced_logits(engine, TOKENS)), -1)
    engine.close()
    assert float((ours.exp() * (ours - theirs)).sum(-1).mean()) < 0.01  # what 8-bit activations cost


def test_blocks_without_a_place_in_the_model_are_refused(tiny_chat_base: Path, tmp_path: Path) -> None:
    """A graph whose layers are cut in another way than the model's must not be trained on half."""
    folder = base_onnx(resolve_base(str(tiny_chat_base)), "int8")
    shorter = tmp_path / "shorter"
    shutil.copytree(tiny_chat_base, shorter)
    config = AutoConfig.from_pretrained(shorter)
    config.num_hidden_layers = 1
    config.save_pretrained(shorter)
    with pytest.raises(InputError, match=r"no place for: model.layers.1.attn.*base_precision nf4"):
        load_quantized(folder, shorter, dtype=torch.float32)


def test_float_bases_have_no_blocks(tiny_chat_base: Path) -> None:
    assert not blocks_of(base_onnx(resolve_base(str(tiny_chat_base)), "fp32"))
