"""A base model as an ONNX Runtime GenAI folder at a chosen precision, kept in the cache."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit_exporters.base import Base
from edgekit_exporters.cache import cache_folder, cached
from edgekit_exporters.conversion.converters import convert
from edgekit_exporters.gguf.base import TOKENIZER_PREFIX
from edgekit_exporters.gguf.end_tokens import end_metadata
from edgekit_exporters.gguf.metadata import rewrite_metadata
from edgekit_exporters.hf.templates import template_facts
from edgekit_exporters.onnx.builder import build_graph, float_graph, graph_version, require_onnx
from edgekit_exporters.onnx.graph_map import GraphMap
from edgekit_runtime.errors import UsageError
from edgekit_runtime.formats import onnx_base as names
from edgekit_runtime.formats.adapter import KEY_ARCHITECTURE, KEY_FAMILY
from edgekit_runtime.formats.base_header import onnx_layers
from edgekit_runtime.formats.bundle import file_digest
from edgekit_runtime.formats.gguf import read_gguf
from edgekit_runtime.formats.model_facts import genai_facts
from edgekit_runtime.formats.onnx_base import (
    DATA_FILE,
    GENAI_CONFIG,
    KEY_LAYERS,
    MIXED_FILE,
    MODEL_FILE,
    VOCABULARY_FILE,
)
from edgekit_runtime.hints import did_you_mean

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgekit_exporters.onnx.blocks import Blocks
    from edgekit_exporters.onnx.calibration import Calibration

log = logging.getLogger(__name__)

PRECISIONS = ("fp32", "fp16", "int8", "int4")
BITS = {"int8": 8, "int4": 4}
HEAD_BITS = 8  # of the output matrix and a tied embedding: the fewest that cost nothing that can be measured
METADATA = "edgekit."


def onnx_precision(name: str) -> str:
    """``INT4`` -> ``int4``.

    Raises:
        UsageError: no such precision.
    """
    if name.lower() not in PRECISIONS:
        raise UsageError(f"ONNX files have no precision {name!r}", did_you_mean(name, PRECISIONS))
    return name.lower()


def base_onnx(base: Base, precision: str) -> Path:
    """Folder of ``base`` at ``precision``; made once, then taken from the cache.

    Raises:
        UsageError: no such precision.
        InputError: the builder doesn't know the architecture, or the extra is missing.
    """
    precision = onnx_precision(precision)
    require_onnx()
    target = cache_folder("bases", base.key) / f"onnx-{precision}-{graph_version()}-{source_digest()}"

    def make(folder: Path) -> None:
        log.info("making the ONNX base %s at %s (once)", base.name, precision)
        write_base_onnx(lambda: float_graph(base), base.folder, base, precision, folder)

    return cached(target, make)


def source_digest(folder: Path = Path(__file__).parent) -> str:
    """12 hex digits of the sources that make a base: a change to any of them makes cached bases again.

    Every module in ``folder`` counts, so that a new one can't be forgotten.
    """
    own = sorted(folder.glob("*.py"))
    digest = hashlib.sha256()
    for source in (*own, Path(names.__file__)):
        digest.update(hashlib.sha256(source.read_bytes()).digest())
    return digest.hexdigest()[:12]


def onnx_from_folder(source: Path, base: Base, precision: str, destination: Path) -> None:
    """Write a Hugging Face folder (a merged model, say) that reads text as ``base`` does.

    Raises:
        as :func:`base_onnx`.
    """
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".graph-") as scratch:

        def build() -> Path:
            graph = Path(scratch, "graph")
            build_graph(source, graph)
            return graph

        write_base_onnx(build, source, base, onnx_precision(precision), destination)


def write_base_onnx(
    make_graph: Callable[[], Path], source: Path, base: Base, precision: str, destination: Path
) -> None:
    """Write the files of a base.

    Args:
        make_graph: gives the folder of the float graph; the calibration text is written meanwhile.
        source: the Hugging Face folder that it was built from.
        base: whose tokeniser and family it has.
        precision: one of ``PRECISIONS``.
        destination: folder, made here.
    """
    import onnx_ir as ir

    from edgekit_exporters.onnx import graph as surgery
    from edgekit_exporters.onnx.lora_inputs import add_adapter_inputs, add_mixed_adapter_inputs

    destination.mkdir(parents=True)
    vocabulary = destination / VOCABULARY_FILE
    with ThreadPoolExecutor(1) as beside:  # for what runs in processes of its own, one after the other
        making = beside.submit(make_graph)
        converting = beside.submit(lambda: write_vocabulary(base, _layer_shapes(making.result()), vocabulary))
        calibration = _calibration(source) if BITS.get(precision, HEAD_BITS) < HEAD_BITS else None
        graph = making.result()
        model, places = ir.load(graph / MODEL_FILE), GraphMap.read(graph)
        blocks = _blocks(model, places, calibration, precision)
        converting.result()
    for path in graph.iterdir():
        if path.suffix in (".json", ".jinja"):
            shutil.copyfile(path, destination / path.name)
    data = surgery.DataFile(destination / DATA_FILE)
    stored = surgery.store_weights(model, blocks, data, half=precision == "fp16")
    facts = {
        KEY_FAMILY: base.family,
        f"{METADATA}precision": precision,
        f"{METADATA}parameters": str(sum(weight.size for _, weight in surgery.weights(model))),
        f"{METADATA}weights": file_digest(data.path),
        f"{METADATA}vocabulary": file_digest(vocabulary),
    }
    adding = {MODEL_FILE: add_adapter_inputs, MIXED_FILE: add_mixed_adapter_inputs}
    for name, add_inputs in adding.items():
        model = ir.load(graph / MODEL_FILE)
        add_inputs(model, places.layers)
        finish_graph(model, places, graph)
        surgery.use_weights(model, stored)
        model.metadata_props.update(facts)
        ir.save(model, destination / name)


def finish_graph(model: ir.Model, places: GraphMap, folder: Path) -> None:
    """Make a builder's graph in ``folder``, with or without adapter inputs, one that the runtime takes."""
    from edgekit_exporters.onnx import graph as surgery

    surgery.limit_logits(model, places.head)
    surgery.fix_head_size(model, _genai(folder)["model"]["decoder"]["head_size"])


def layers_of(folder: Path) -> dict[str, tuple[int, int]]:
    """[in, out] of the layers that take adapters, of a base that was written here."""
    return onnx_layers(read_gguf(folder / VOCABULARY_FILE))


def blocks_of(folder: Path) -> dict[str, Blocks]:
    """The blocks of every matrix of a base that was written here, by the names of its layers; none of float ones."""
    import onnx_ir as ir
    import torch

    from edgekit_exporters.onnx.blocks import Blocks
    from edgekit_exporters.onnx.graph import matrix_name

    def tensor(value: Any) -> Any:
        return torch.from_numpy(value.const_value.numpy().copy())

    found = {}
    for node in ir.load(folder / MODEL_FILE).graph:
        if node.op_type == "MatMulNBits":
            inputs: list[Any] = list(node.inputs)
            _, codes, scales, *zeros = inputs
            half = tensor(scales.producer().inputs[0])
            name = matrix_name(codes.name.removesuffix(".codes"))
            bits = node.attributes["bits"].as_int()
            found[name] = Blocks.unpacked(tensor(codes), half, tensor(zeros[0]) if zeros else None, bits)
    return found


@dataclass(frozen=True)
class OnnxFacts:
    """What a base says of itself; ``cache`` is the float32 KV cache of the whole context, in bytes."""

    architecture: str
    parameters: int
    precision: str
    context: int
    cache: int


def facts_of(folder: Path) -> OnnxFacts:
    """The facts of a base that was written here."""
    import onnx_ir as ir

    facts = genai_facts(_genai(folder))
    properties = ir.load(folder / MODEL_FILE).metadata_props
    return OnnxFacts(
        architecture=str(read_gguf(folder / VOCABULARY_FILE).metadata[KEY_ARCHITECTURE]),
        parameters=int(properties[f"{METADATA}parameters"]),
        precision=str(properties[f"{METADATA}precision"]),
        context=facts.context,
        cache=facts.cache_bytes(facts.context),
    )


def _genai(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / GENAI_CONFIG).read_text(encoding="utf-8"))
    return document


def _calibration(source: Path) -> Calibration:
    from edgekit_exporters.onnx.calibration import Calibration  # takes torch

    return Calibration(source)


def _blocks(model: Any, places: GraphMap, calibration: Calibration | None, precision: str) -> dict[str, Blocks]:
    """Every matrix that holds layers in blocks, but for those that choose experts; none for float precisions."""
    import torch

    from edgekit_exporters.onnx.blocks import BLOCK, fit_blocks
    from edgekit_exporters.onnx.graph import weights

    if precision not in BITS:
        return {}
    wanted = places.matrices - places.routers
    matrices = {name: matrix for name, matrix in weights(model) if name in wanted and matrix.shape[1] % BLOCK == 0}
    layers = {name: matrix for name, matrix in matrices.items() if name != places.head}
    found = calibration.blocks(layers, places, BITS[precision]) if calibration else {}
    for name, matrix in matrices.items():
        if name not in found:
            found[name] = fit_blocks(torch.tensor(matrix), HEAD_BITS if name == places.head else BITS[precision])
    return found


def _layer_shapes(graph: Path) -> dict[str, tuple[int, int]]:
    import onnx_ir as ir

    from edgekit_exporters.onnx.graph import layer_shapes

    return layer_shapes(ir.load(graph / MODEL_FILE), GraphMap.read(graph).layers)


def write_vocabulary(base: Base, layers: Mapping[str, tuple[int, int]], destination: Path) -> None:
    """Tokeniser, chat template, family and layers as GGUF metadata, without weights, for the device's tokeniser.

    Args:
        base: whose they are.
        layers: [in, out] of those that take adapters.
        destination: the file.
    """
    facts: dict[str, Any] = {
        KEY_FAMILY: base.family,
        KEY_LAYERS: [f"{name} {inputs} {outputs}" for name, (inputs, outputs) in layers.items()],
    }
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".vocabulary-") as scratch:
        plain = Path(scratch, "vocabulary.gguf")
        convert(base.folder, plain, "--vocab-only")
        facts |= template_facts(base.folder).metadata() | end_metadata(base.folder, plain)
        rewrite_metadata(plain, destination, facts, copy=base.gguf, prefix=TOKENIZER_PREFIX)
