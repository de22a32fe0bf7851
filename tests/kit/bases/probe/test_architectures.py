"""From a configuration to an adapter file, architecture by architecture: llama.cpp answers as torch does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from base_families import FAMILIES
from edgekit.bases.probe.compare import distance
from edgekit.bases.probe.measure import Written, measure, torch_logits, write_tiny
from edgekit.bases.probe.shrunk import shrunk
from edgekit.bases.quantized import load_quantized
from edgekit.bases.quantized.mapping import stored_tensors
from edgekit_exporters.conversion.tensor_map import plain_ggufs, tensor_map
from edgekit_exporters.gguf.base import Recipe

# Scaled rotary embeddings; hybrids; experts, fused and interleaved; a stacked matrix; Conv1D; partial rotary heads.
KINDS = ("llama", "qwen3", "qwen3_moe", "lfm2", "gpt_oss", "gemma3_text", "granite", "phi3", "gpt2", "gpt_neox")


@pytest.fixture(scope="module")
def tinies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Written, Path | str, Path | str]]]:
    """All of them, converted by one process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    made = {}
    for kind in KINDS:
        config = shrunk(next(family for family in FAMILIES if family.kind == kind).raw)
        window = {"sliding_window": None} if kind == "phi3" else {}  # llama.cpp has none for it
        made[kind] = write_tiny(config | window, tmp_path_factory.mktemp(kind), merged=kind == "llama")
    files = plain_ggufs([written.folder for written in made.values()])
    yield {kind: (written, *pair) for (kind, written), pair in zip(made.items(), files, strict=True)}
    torch.set_num_threads(threads)


@pytest.mark.parametrize("kind", KINDS)
def test_engine_and_packed_model_answer_as_torch_bare_and_adapted(
    kind: str, tinies: dict[str, tuple[Written, Path | str, Path | str]]
) -> None:
    written, gguf, merged = tinies[kind]
    assert isinstance(gguf, Path), gguf
    measured = measure(written, gguf, merged if isinstance(merged, Path) else None)
    assert measured.base.agree, measured.base
    assert measured.adapted is not None
    assert measured.adapted.agree, measured
    assert measured.layers.honoured
    assert not measured.layers.ignored
    assert not measured.layers.wrong
    if kind == "llama":
        assert measured.merged is not None
        assert measured.merged.agree
    packed = written.folder / "q8.gguf"
    Recipe("Q8_0").quantize(gguf, packed)
    weights = written.model.state_dict()
    for name, tensor in stored_tensors(packed, tensor_map(written.folder), written.folder):
        assert torch.equal(tensor.floats(torch.float32), weights[name]), name  # Q8_0 holds these weights to the bit
    model = load_quantized(packed, written.folder, dtype=torch.float32)
    assert distance(torch_logits(written.model), torch_logits(model)).agree
