"""The float graph of a base, from ONNX Runtime GenAI's model builder, kept in the cache."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import subprocess
import sys
import tempfile
from pathlib import Path

from edgekit_exporters.base import Base
from edgekit_exporters.cache import cache_folder, cached
from edgekit_exporters.onnx.graph_map import OTHER_FORMAT, map_graph
from edgekit_exporters.progress import stage
from edgekit_runtime.errors import InputError

log = logging.getLogger(__name__)

MODEL_FILE = "model.onnx"
GRAPH_MODULES = ("builder.py", "graph.py", "graph_map.py")
BUILDER = "onnxruntime-genai"
UNKNOWN = "is not currently supported"  # what it says of an architecture that it has no code for


def require_onnx() -> None:
    """Check that the extra is there.

    Raises:
        InputError: it isn't.
    """
    for module in ("onnx", "onnx_ir", "onnxruntime", "onnxruntime_genai", "onnxscript"):
        if importlib.util.find_spec(module) is None:
            raise InputError(f"ONNX files can't be made without {module}", "pip install 'edgekit[onnx]'")


def float_graph(base: Base) -> Path:
    """Folder of ``base`` as a float32 graph with tokenizer, genai_config.json and the map of its layers; made once,
    then from the cache.

    Raises:
        InputError: the builder doesn't know the architecture, or the extra is missing.
    """
    require_onnx()
    target = cache_folder("bases", base.key) / f"onnx-graph-{graph_version()}"
    return cached(target, lambda folder: build_graph(base.folder, folder))


def graph_version() -> str:
    """All that a float graph and its map depend on beside the base, for the cache."""
    own = hashlib.sha256()  # how the builder is asked, and how layers are found
    for name in GRAPH_MODULES:
        own.update(Path(__file__).with_name(name).read_bytes())
    builder, models = (importlib.metadata.version(package) for package in (BUILDER, "transformers"))
    return f"genai-{builder}-{models}-{own.hexdigest()[:12]}"


def build_graph(source: Path, destination: Path) -> None:
    """Build the float32 graph of a Hugging Face folder, and find its layers in it.

    Raises:
        InputError: the builder doesn't know the architecture.
    """
    require_onnx()
    _build(source, destination)
    with stage("finding the layers in the graph"):
        map_graph(source, destination, _build).write(destination)


def _build(source: Path, destination: Path) -> None:
    what = f"building the ONNX graph of {source.name}"
    with stage(what), tempfile.TemporaryDirectory(prefix="edgekit-builder-") as scratch:
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder"]
        command += [
            "-m",
            str(source),
            "-i",
            str(source),
            "-o",
            str(destination),
            "-p",
            "fp32",
            "-e",
            "cpu",
            "-c",
            scratch,
            "--extra_options",
            "hf_remote=false",
        ]
        done = subprocess.run(command, capture_output=True, text=True)
    log.debug("%s%s", done.stdout, done.stderr)
    if done.returncode:
        raise InputError(f"ONNX Runtime GenAI's model builder {refusal(source, done.stderr)}", OTHER_FORMAT)


def refusal(source: Path, said: str) -> str:
    """What the builder can't do, from the last line that it said."""
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    architecture = (config.get("architectures") or [config.get("model_type", "this model")])[0]
    line = (said.strip().splitlines() or ["it said nothing"])[-1]
    if UNKNOWN in line:
        return f"doesn't know {architecture}"
    return f"can't build {architecture} ({line})"
