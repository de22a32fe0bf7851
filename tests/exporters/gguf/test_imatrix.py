from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgekit.bases.imatrix import measure_importance
from edgekit.bases.resolve import resolve_base
from edgekit_exporters.gguf.base import Recipe, base_gguf
from edgekit_exporters.gguf.imatrix import Importance, read_imatrix, write_imatrix
from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.formats.gguf import read_gguf

ENTRIES = st.dictionaries(
    st.sampled_from(["blk.0.attn_q.weight", "blk.1.ffn_down.weight", "token_embd.weight"]),
    st.tuples(st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=64), st.integers(1, 10**6)),
    min_size=1,
)


@given(entries=ENTRIES)
def test_what_is_written_is_read_as_mean_squares(
    entries: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("imatrix") / "imatrix.gguf"
    given = {name: Importance(np.float32(sums), count) for name, (sums, count) in entries.items()}
    write_imatrix(file, given, "line-3", chunks=2, chunk_size=10)
    read = read_imatrix(file)
    assert read.keys() == entries.keys()
    for name, importance in given.items():
        np.testing.assert_allclose(read[name], importance.sums / np.float32(importance.count), rtol=1e-6)
    metadata = read_gguf(file).metadata
    assert (metadata["general.type"], metadata["imatrix.chunk_count"]) == ("imatrix", 2)


def test_a_model_is_no_importance_matrix(tiny_chat_base: Path) -> None:
    with pytest.raises(InputError, match="no importance matrix"):
        read_imatrix(base_gguf(resolve_base(str(tiny_chat_base)), "F16"))


def test_importance_is_measured_for_every_matrix_at_its_width(tiny_chat_base: Path) -> None:
    base = resolve_base(str(tiny_chat_base))
    measured = measure_importance(base, [[1, 2, 3], [4, 5]])
    tensors = read_gguf(base_gguf(base, "F16")).tensors
    matrices = {name for name, tensor in tensors.items() if len(tensor.shape) == 2}
    assert measured.keys() == matrices  # the tied embedding stands for the output matrix
    assert all(len(entry.sums) == tensors[name].shape[0] for name, entry in measured.items())
    assert {entry.count for entry in measured.values()} == {5}


def test_quantizing_by_importance_keeps_important_columns_closer(tiny_chat_base: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig

    from edgekit.bases.quantized import dequantized_state

    base = resolve_base(str(tiny_chat_base))
    wanted = np.ones(64, dtype=np.float32)
    wanted[:8] = 1e4
    file = tmp_path / "imatrix.gguf"
    name, parameter = "blk.0.ffn_up.weight", "model.layers.0.mlp.up_proj.weight"
    write_imatrix(file, {name: Importance(wanted, 1)}, "test", 1, 1)
    config = AutoConfig.from_pretrained(base.folder)

    def error(recipe: Recipe) -> torch.Tensor:
        exact = dequantized_state(base_gguf(base, "F32"), config)[parameter]
        return (dequantized_state(base_gguf(base, recipe), config)[parameter] - exact).square().mean(0)

    plain, weighed = error(Recipe("Q4_0")), error(Recipe("Q4_0", imatrix=file))
    assert weighed[:8].mean() < plain[:8].mean()
    assert weighed[8:].mean() > plain[8:].mean()


def test_tensors_that_match_keep_the_type_that_was_asked_for(tiny_chat_base: Path) -> None:
    base = resolve_base(str(tiny_chat_base))
    tensors = read_gguf(base_gguf(base, Recipe("Q4_0", tensor_types={r"blk\.1\.ffn_down": "Q8_0"}))).tensors
    kinds = {name: tensors[name].type_name for name in ("blk.0.ffn_down.weight", "blk.1.ffn_down.weight")}
    assert kinds == {"blk.0.ffn_down.weight": "Q4_0", "blk.1.ffn_down.weight": "Q8_0"}


@pytest.mark.parametrize(("types", "words"), [({"ffn": "Q99"}, "Q99"), ({"(": "Q8_0"}, "regular expression")])
def test_types_and_patterns_that_make_no_sense_are_told(
    tiny_chat_base: Path, types: dict[str, str], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        base_gguf(resolve_base(str(tiny_chat_base)), Recipe("Q4_0", tensor_types=types))
