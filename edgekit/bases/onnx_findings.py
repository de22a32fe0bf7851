"""What a tiny model of a base has shown of ONNX Runtime, kept in the cache."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from edgekit.bases.probe.findings import Findings
from edgekit_exporters.cache import cache_folder, cached
from edgekit_exporters.onnx.builder import graph_version, require_onnx
from edgekit_exporters.progress import stage
from edgekit_runtime.engines import onnx


def onnx_findings(folder: Path) -> Findings:
    """Of the text model in a Hugging Face folder; made once for a configuration and these versions.

    Raises:
        InputError: the extra is missing, or GenAI's model builder or ONNX Runtime refuses it.
    """
    require_onnx()
    from edgekit.bases.probe.shrunk import shrunk

    try:
        small = shrunk(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except Exception as error:  # of a configuration with rules of its own
        return Findings(unknown=f"no small model can be made of it ({error})")
    key = hashlib.sha256(json.dumps([small, graph_version(), _sources()], sort_keys=True).encode())
    file = cache_folder("probes") / f"onnx-{key.hexdigest()[:24]}.json"
    made = json.loads(cached(file, lambda target: _make(small, target)).read_text(encoding="utf-8"))
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in made.items()}
    return Findings(**values)


def _make(small: Mapping[str, Any], file: Path) -> None:
    with stage("checking that ONNX Runtime computes this base as training does (once)"):
        found = _found(small)
        if found.unknown is None and not found.agrees and small.get("sliding_window"):
            shorter = _found({**small, "sliding_window": None})
            found = replace(shorter, window_ignored=True) if shorter.agrees else found
    file.write_text(json.dumps(asdict(found)), encoding="utf-8")


def _found(config: Mapping[str, Any]) -> Findings:
    from edgekit.bases.onnx_probe import measure_onnx
    from edgekit.bases.probe.measure import write_tiny

    with tempfile.TemporaryDirectory(prefix="edgekit-probe-") as scratch:
        try:
            written = write_tiny(config, Path(scratch, "base"))
        except Exception as error:  # a shrunk configuration may contradict itself
            return Findings(unknown=f"no small model can be made of it ({error})")
        measured = measure_onnx(written)
    return Findings(
        agrees=measured.agrees,
        kl=max(each.kl for each in (measured.base, measured.adapted) if each is not None),
        usable=measured.placed,
        placeless=measured.missing,
        routers=measured.routers,
    )


def _sources() -> str:
    """Digest of what asks, and of the engine that answers."""
    here = Path(__file__).parent
    modules = [here / "onnx_findings.py", here / "onnx_probe.py"]
    for folder in (here / "probe", Path(onnx.__file__).parent):
        modules += sorted(folder.glob("*.py"))
    digest = hashlib.sha256(importlib.metadata.version("onnxruntime").encode())
    for path in modules:
        digest.update(path.read_bytes())
    return digest.hexdigest()
