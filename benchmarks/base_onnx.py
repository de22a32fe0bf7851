"""The column ONNX of docs/bases.md: a tiny random model in ONNX Runtime, measured like the others in llama.cpp."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from edgekit.bases.onnx_probe import OnnxMeasured, measure_onnx
from edgekit.bases.probe.measure import write_tiny
from edgekit.bases.probe.shrunk import known, shrunk
from edgekit_exporters.cache import cache_folder
from edgekit_exporters.onnx.builder import graph_version
from edgekit_runtime.errors import InputError

NO = "no"
BUILDER = "ONNX Runtime GenAI's model "


def onnx_cell(raw: Mapping[str, Any]) -> str:
    """The divergence of ONNX Runtime from torch, or why there is none; measured once.

    Args:
        raw: ``config.json``.
    """
    if not _is_known(raw["model_type"]):
        return NO
    place = cache_folder("bases-onnx") / hashlib.sha256(f"{raw}:{_version()}".encode()).hexdigest()[:24]
    if not place.is_file():
        place.write_text(_measured(raw), encoding="utf-8")
    return place.read_text(encoding="utf-8")


def _measured(raw: Mapping[str, Any]) -> str:
    small = shrunk(raw)
    try:
        found = _ask(small)
        window = known(raw).sliding_window if small.get("sliding_window") else None
        if found.agrees or window is None:
            return _cell(found)
        shorter = _ask({**small, "sliding_window": None})
    except InputError as error:
        return f"no: {error.problem.removeprefix(BUILDER)}"
    if not shorter.agrees:
        return _cell(found)
    is_shorter = window < known(raw).max_position_embeddings
    return _cell(shorter) + (f", up to {window} tokens" if is_shorter else "")


def _ask(config: Mapping[str, Any]) -> OnnxMeasured:
    with tempfile.TemporaryDirectory(prefix="edgekit-bases-onnx-") as scratch:
        return measure_onnx(write_tiny(config, Path(scratch, "base")))


def _cell(found: OnnxMeasured) -> str:
    if not found.base.agree:
        return f"wrong ({found.base.kl:.0e})"
    if found.adapted is None or not found.adapted.agree:
        return "wrong under an adapter"
    kl = f"{max(found.base.kl, found.adapted.kl):.0e}"
    kinds = dict.fromkeys(f"`{name.rpartition('.')[2]}`" for name in found.missing)
    return f"{kl}, no adapters of {', '.join(kinds)}" if kinds else kl


def _version() -> str:
    """All that a cell depends on beside the configuration."""
    root = Path(__file__).parents[1]
    folders = ("edgekit/bases/probe", "exporters/edgekit_exporters/onnx", "runtime/edgekit_runtime/engines/onnx")
    files = [path for folder in folders for path in sorted((root / folder).glob("*.py"))]
    digest = hashlib.sha256()
    for path in (*files, root / "edgekit/bases/onnx_probe.py", Path(__file__)):
        digest.update(path.read_bytes())
    packages = [importlib.metadata.version(name) for name in ("onnxruntime", "transformers", "torch")]
    return json.dumps([graph_version(), digest.hexdigest(), packages])


def _is_known(kind: str) -> bool:
    """Whether GenAI's builder names this architecture at all."""
    spec = importlib.util.find_spec("onnxruntime_genai")
    if spec is None or spec.origin is None:
        raise InputError("the ONNX column needs ONNX Runtime GenAI", "pip install 'edgekit[onnx]'")
    text = Path(spec.origin).with_name("models").joinpath("builder.py").read_text(encoding="utf-8")
    return f'"{MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]}"' in text
