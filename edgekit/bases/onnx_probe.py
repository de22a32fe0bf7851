"""A tiny model in torch and in ONNX Runtime, bare and under an adapter: graphs as exports make them, in float32."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from edgekit.bases.probe.compare import Distance, Logits, distance
from edgekit.bases.probe.measure import PROMPT, Written, torch_logits
from edgekit.bases.probe.shrunk import VOCABULARY
from edgekit.bases.probe.tiny import changed, linear_layers
from edgekit_exporters.onnx.adapter import graph_matrices
from edgekit_exporters.onnx.base import finish_graph
from edgekit_exporters.onnx.builder import build_graph
from edgekit_exporters.onnx.graph import layer_shapes
from edgekit_exporters.onnx.graph_map import OTHER_FORMAT, GraphMap
from edgekit_exporters.onnx.lora_inputs import add_adapter_inputs
from edgekit_runtime.engines.onnx.adapters import Arrays, Values, as_values
from edgekit_runtime.engines.onnx.bindings import Bindings
from edgekit_runtime.engines.onnx.graph import POSITIONS, cache_inputs, open_session
from edgekit_runtime.engines.onnx.kv_cache import KvCache
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.onnx_base import LOGITS_FROM, MODEL_FILE

CUTS = (0, 25, len(PROMPT) - 1, len(PROMPT))  # a prompt in two parts, and a token


@dataclass(frozen=True)
class OnnxMeasured:
    """Distances of ONNX Runtime's logits from torch's; ``adapted`` None where no layer takes an adapter.

    Attributes:
        placed: names of linear layers that matrices of the graph hold.
        missing: of those that none holds.
        routers: of those that choose experts.
    """

    base: Distance
    adapted: Distance | None
    placed: tuple[str, ...]
    missing: tuple[str, ...]
    routers: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether both compute the same, with and without an adapter."""
        return self.base.agree and self.adapted is not None and self.adapted.agree


def measure_onnx(written: Written) -> OnnxMeasured:
    """Ask both about the prompt.

    Raises:
        InputError: GenAI's builder or ONNX Runtime refuses it.
    """
    write_tokenizer(written.folder)
    folder = written.folder / "onnx"
    build_graph(written.folder, folder)
    places = GraphMap.read(folder)
    model = ir.load(folder / MODEL_FILE)
    shapes = layer_shapes(model, places.layers)
    add_adapter_inputs(model, places.layers)
    finish_graph(model, places, folder)
    ready = folder / "ready.onnx"
    ir.save(model, ready)
    pairs = {name: pair for name, pair in written.pairs.items() if name in linear_layers(written.model)}
    placed = {name: pair for name, pair in pairs.items() if places.places(name)}
    session = open_session(ready, 1)
    bare = _logits(session, ready, {})
    adapted = None
    if placed:
        under = _logits(session, ready, graph_matrices(placed, shapes, places))
        with changed(written.model, placed):
            adapted = distance(torch_logits(written.model), under)
    return OnnxMeasured(
        distance(torch_logits(written.model), bare),
        adapted,
        tuple(placed),
        tuple(name for name in pairs if name not in placed),
        tuple(name for name in placed if places.places(name)[0].matrix in places.routers),
    )


def _logits(session: onnxruntime.InferenceSession, file: Path, adapter: Arrays) -> Logits:
    """[tokens, vocabulary] for the prompt, with the engine's own cache."""
    cache = KvCache(*cache_inputs(session, file), 1, len(PROMPT))
    names = {each.name for each in session.get_overridable_initializers()}

    def values(_: Sequence[object]) -> Values:
        return as_values(adapter)

    binding = Bindings(session, cache, names, values).of(0, 1, [()])
    has_positions = POSITIONS in {each.name for each in session.get_inputs()}
    rows = []
    for start, stop in itertools.pairwise(CUTS):
        inputs: Mapping[str, list[list[int]]] = {
            "input_ids": [PROMPT[start:stop]],
            "attention_mask": [[1] * stop],
            **({POSITIONS: [list(range(start, stop))]} if has_positions else {}),
        }
        for name, value in inputs.items():
            binding.bind_cpu_input(name, np.array(value, np.int64))
        binding.bind_ortvalue_input(LOGITS_FROM, onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(1, np.int64)))
        binding.bind_output("logits", "cpu")
        try:
            session.run_with_iobinding(binding)
        except Exception as error:
            said = str(error).strip().splitlines()[0]
            raise InputError(f"ONNX Runtime fails to compute this model ({said})", OTHER_FORMAT) from None
        cache.keep(0, 1, [0])
        rows.append(binding.get_outputs()[-1].numpy()[0])
    return np.concatenate(rows)


def write_tokenizer(folder: Path) -> None:
    """The builder wants one, and looks for the token that ends answers."""
    words = {f"t{number}": number for number in range(VOCABULARY)}
    Tokenizer(WordLevel(words, unk_token="t0")).save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "t1"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
