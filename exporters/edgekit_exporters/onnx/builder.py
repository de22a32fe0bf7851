"""The float graph of a base, from ONNX Runtime GenAI's model builder, kept in the cache."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import logging
import subprocess
import sys
import tempfile
from pathlib import Path

from edgekit_exporters.base import Base
from edgekit_exporters.cache import cache_folder, cached
from edgekit_exporters.progress import stage
from edgekit_runtime.errors import InputError

log = logging.getLogger(__name__)

MODEL_FILE = "model.onnx"
BUILDER = "onnxruntime-genai"


def require_onnx() -> None:
    """Check that the extra is there.

    Raises:
        InputError: it isn't.
    """
    for module in ("onnx", "onnx_ir", "onnxruntime", "onnxruntime_genai", "onnxscript"):
        if importlib.util.find_spec(module) is None:
            raise InputError(f"ONNX files can't be made without {module}", "pip install 'edgekit[onnx]'")


def float_graph(base: Base) -> Path:
    """Folder of ``base`` as a float32 graph with tokenizer and genai_config.json; made once, then from the cache.

    Raises:
        InputError: the builder doesn't know the architecture, or the extra is missing.
    """
    require_onnx()
    asked_by = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]  # how the builder is asked is in here
    name = f"onnx-graph-genai-{importlib.metadata.version(BUILDER)}-{asked_by}"
    target = cache_folder("bases", base.key) / name
    return cached(target, lambda folder: build_graph(base.folder, folder))


def build_graph(source: Path, destination: Path) -> None:
    """Build the float32 graph of a Hugging Face folder.

    Raises:
        InputError: the builder doesn't know the architecture.
    """
    require_onnx()
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
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise InputError(
            f"ONNX Runtime GenAI's model builder can't build {source} ({said})", "export it with --format gguf"
        )
