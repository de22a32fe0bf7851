"""The connector of an image base, for adapters that have trained it: the linear layer that ends a projector file.

Encoder and connector are one file, which all adapters of a bundle share.  Another connector therefore makes another
base, with a family of its own: an adapter that was trained with it fits no device that has the original one, and the
other way round.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from edgekit_exporters.base import SETTINGS, Base
from edgekit_exporters.cache import cache_folder, cached
from edgekit_exporters.gguf.projector import projector_gguf
from edgekit_exporters.peft.intake import take_in_any
from edgekit_runtime.errors import InputError

WEIGHT = "connector.modality_projection.proj.weight"  # end of its name in the whole model
ENCODER = "vision_model."
DIGITS = 8


def base_connector(base: Base) -> torch.Tensor:
    """The base's own connector, [width, inputs], float32.

    Raises:
        InputError: the base reads no images, or its connector is no single linear layer.
    """
    found = [value for name, value in _tensors(base).items() if name.endswith(WEIGHT)]
    if not found:
        raise InputError(
            f"the connector of {base.name} is no single linear layer, and only such are trained",
            "take connector: true out, or use a SmolVLM or Idefics3 base",
        )
    return found[0].float()


def trained_connector(path: Path, base: Base) -> torch.Tensor | None:
    """The connector that an adapter of ``base`` has trained, [width, inputs], float32; None when it hasn't.

    Raises:
        InputError: not a sound adapter of this base.
    """
    return take_in_any(path, base).connector


def with_connector(base: Base, weight: torch.Tensor) -> Base:
    """``base`` with another connector, [width, inputs]."""
    own = base_connector(base)
    if own.shape != weight.shape:
        raise InputError(
            f"the connector of {base.name} is {tuple(own.shape)} and the adapter's {tuple(weight.shape)}",
            "export it with the base it was trained on",
        )
    return _replaced(base, weight, "connector")


def encoder_gguf(base: Base, float_type: str) -> Path:
    """A projector file whose "embeddings" are what the base's connector reads: its own connector is the identity.

    Encoder and what the connector reads are rounded as in the projector file of that type.

    Raises:
        InputError: as :func:`base_connector`, or llama.cpp can't convert it.
    """
    inputs = base_connector(base).shape[1]
    return projector_gguf(_replaced(base, torch.eye(inputs), "encoder"), float_type)


def _replaced(base: Base, weight: torch.Tensor, label: str) -> Base:
    digest = hashlib.sha256(weight.contiguous().numpy().tobytes()).hexdigest()[:DIGITS]
    family = f"{base.family}-{label}-{digest}"
    folder = cached(cache_folder("connectors", base.key) / family, lambda target: _stage(base, weight, target))
    return replace(base, family=family, vision=folder, stock=None)


def _stage(base: Base, weight: torch.Tensor, folder: Path) -> None:
    """What the converter of projectors reads: settings, the encoder and ``weight``."""
    from safetensors.torch import save_file

    assert base.vision is not None  # it has a connector
    folder.mkdir()
    for path in base.vision.iterdir():
        if path.suffix in SETTINGS and not path.name.endswith(".index.json"):
            (folder / path.name).write_bytes(path.read_bytes())
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["text_config"]["hidden_size"] = weight.shape[0]  # which is the width that the file will name
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    tensors = {
        name: weight.contiguous() if name.endswith(WEIGHT) else value
        for name, value in _tensors(base).items()
        if name.endswith(WEIGHT) or ENCODER in name
    }
    save_file(tensors, folder / "model.safetensors")


def _tensors(base: Base) -> dict[str, torch.Tensor]:
    from safetensors import safe_open

    if base.vision is None:
        raise InputError(f"the base {base.name} reads no images", "use one that does, demo-vlm say")
    tensors = {}
    for path in sorted(base.vision.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                if ENCODER in name or name.endswith(WEIGHT):
                    tensors[name] = file.get_tensor(name)
    return tensors
