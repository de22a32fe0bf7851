"""Tiny image models, converted once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgekit.bases import resolve_base
from edgekit_exporters.base import Base
from edgekit_exporters.bundle import ANY_ISA, BundlePlan, write_bundle
from edgekit_exporters.gguf_adapter import AdapterSource
from edgekit_exporters.gguf_base import gguf_from_folder
from edgekit_exporters.vision import projector_gguf
from edgekit_runtime import Runtime
from tests.adapters import save_random_lora
from tests.vlm import save_pixtral, save_smolvlm


@dataclass(frozen=True)
class Model:
    """``folder`` in transformers' form, ``bundle`` in the device's."""

    folder: Path
    base: Base
    bundle: Path


def _model(folder: Path, scratch: Path, quantization: str = "F32") -> Model:
    base = resolve_base(str(folder))
    text = scratch / "model.gguf"
    gguf_from_folder(base.folder, text, quantization)
    adapters = []
    for name in ("one", "two"):
        save_random_lora(_text_model(base), scratch / name, std=0.3, r=4, target_modules="all-linear")
        adapters.append(AdapterSource(name, "1", scratch / name, system=f"You are {name}."))
    plan = BundlePlan(
        name="tiny",
        version="1",
        task="caption",
        base=base,
        base_file=text,
        projector=projector_gguf(base, "F32"),
        merged=[],
        adapters=adapters,
        default_adapter=None,
        isa=ANY_ISA,
    )
    write_bundle(plan, scratch / "bundle")
    return Model(folder, base, scratch / "bundle")


def _text_model(base: Base) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(base.folder)


@pytest.fixture(scope="session")
def smolvlm(demo_base: Base, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("smolvlm")
    return _model(save_smolvlm(demo_base.folder, folder / "tiny-smolvlm"), folder)


@pytest.fixture(scope="session")
def quantised(smolvlm: Model, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The same, as devices run it: whose bits don't depend on how requests are batched."""
    return _model(smolvlm.folder, tmp_path_factory.mktemp("quantised"), "Q8_0")


@pytest.fixture(scope="session")
def pixtral(demo_base: Base, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("pixtral")
    return _model(save_pixtral(demo_base.folder, folder / "tiny-pixtral"), folder)


@pytest.fixture(scope="module")
def seeing(quantised: Model) -> Iterator[Runtime]:
    with Runtime(quantised.bundle, parallel=2, context=256) as runtime:
        yield runtime
