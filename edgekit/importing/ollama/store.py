"""Models that Ollama keeps on this machine: their manifests name blobs, by digest.

``MODELS/manifests/HOST/NAMESPACE/MODEL/TAG`` is JSON with a list of layers; ``MODELS/blobs/sha256-…`` are their
contents (packages manifest and types/model of Ollama).  Everything is read, nothing is changed.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit_runtime.errors import InputError, shown

VARIABLE = "OLLAMA_MODELS"
# Where it keeps models: of this user, and of the service that its installer sets up.
PLACES = ("~/.ollama/models", "/usr/share/ollama/.ollama/models", "/var/lib/ollama/.ollama/models")
HOST, NAMESPACE, TAG = "registry.ollama.ai", "library", "latest"
KIND = "application/vnd.ollama.image."
MODEL, ADAPTER, PROJECTOR, TEMPLATE = "model", "adapter", "projector", "template"
SYSTEM, PARAMETERS, MESSAGES, LICENSE = "system", "params", "messages", "license"
OLD_TEMPLATE, TENSOR = "prompt", "tensor"
LARGEST = 4 * 1024 * 1024  # of a manifest or a text, in bytes
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"
_NAME = re.compile(
    rf"(?:(?:(?P<host>[A-Za-z0-9_][A-Za-z0-9_.:-]*)/)?(?P<namespace>{_PART})/)?(?P<model>{_PART})(?::(?P<tag>{_PART}))?"
)
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")


@dataclass(frozen=True)
class StoredModel:
    """A model of the store.

    Attributes:
        name: the model and, unless it is ``latest``, its tag: what people call it.
        files: blobs by their kind: ``model``, ``adapter``, ``projector``, each in their order.
        texts: contents by their kind: ``template``, ``system``, ``params``, ``messages``, ``license``.
    """

    name: str
    files: dict[str, list[Path]] = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)


def is_name(text: str) -> bool:
    """Whether a text can be the name of a model."""
    return _NAME.fullmatch(text) is not None


def find_model(name: str) -> StoredModel | None:
    """The model of this name, ``llama3.2`` or ``owner/mario:7b`` say; None where the store has none.

    Raises:
        InputError: its manifest or a blob can't be read.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    host, namespace, tag = found["host"] or HOST, found["namespace"] or NAMESPACE, found["tag"] or TAG
    for place in _places():
        manifest = place / "manifests" / host / namespace / found["model"] / tag
        if manifest.is_file():
            known = found["model"] if tag == TAG else f"{found['model']}-{tag}"
            return _read(manifest, place / "blobs", known)
    return None


def _places() -> list[Path]:
    given = os.environ.get(VARIABLE)
    return [Path(given)] if given else [Path(each).expanduser() for each in PLACES]


def _read(manifest: Path, blobs: Path, name: str) -> StoredModel:
    model = StoredModel(name)
    layers = _json(manifest).get("layers")
    for layer in layers if isinstance(layers, list) else ():
        kind, blob = _layer(layer, blobs, manifest)
        if kind == TENSOR:
            raise InputError(
                f"the model {name} of Ollama is safetensors in many parts",
                "name the safetensors folder that it was made of in FROM",
            )
        if kind in (MODEL, ADAPTER, PROJECTOR):
            model.files.setdefault(kind, []).append(blob)
        elif kind in (TEMPLATE, OLD_TEMPLATE, SYSTEM, PARAMETERS, MESSAGES, LICENSE):
            model.texts.setdefault(TEMPLATE if kind == OLD_TEMPLATE else kind, []).append(_text(blob))
    if not model.files.get(MODEL):
        raise InputError(f"the model {name} of Ollama has no weights on this machine", "name a GGUF file in FROM")
    return model


def _layer(layer: Any, blobs: Path, manifest: Path) -> tuple[str, Path]:
    kind = layer.get("mediaType") if isinstance(layer, dict) else None
    digest = _DIGEST.fullmatch(str(layer.get("digest"))) if isinstance(layer, dict) else None
    if not isinstance(kind, str) or digest is None:
        raise _damaged(manifest, "a layer has no type or digest")
    blob = blobs / f"sha256-{digest[1]}"
    if not blob.is_file():
        raise _damaged(manifest, f"{blob} is missing")
    return kind.removeprefix(KIND), blob


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(_text(path))
    except (ValueError, RecursionError):
        raise _damaged(path, "it is not JSON") from None
    if not isinstance(document, dict):
        raise _damaged(path, "it is no JSON object")
    return document


def _text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise _damaged(path, f"it has more than {LARGEST // 2**20} MiB")
        return data.decode()
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror})", "see who may read Ollama's files") from None
    except UnicodeDecodeError:
        raise _damaged(path, "it is no text") from None


def _damaged(path: Path, problem: str) -> InputError:
    return InputError(f"Ollama's {shown(str(path))} is damaged: {problem}", "`ollama pull` the model again")
