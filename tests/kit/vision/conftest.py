"""Tiny image models, converted once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgekit_exporters.base import Base
from edgekit_runtime import Runtime
from tests.vlm import Model, make_model, save_pixtral


@pytest.fixture(scope="session")
def quantized(smolvlm: Model, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The same, as devices run it: whose bits don't depend on how requests are batched."""
    return make_model(smolvlm.folder, tmp_path_factory.mktemp("quantised"), "Q8_0")


@pytest.fixture(scope="session")
def pixtral(demo_base: Base, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("pixtral")
    return make_model(save_pixtral(demo_base.folder, folder / "tiny-pixtral"), folder)


@pytest.fixture(scope="module")
def seeing(quantized: Model) -> Iterator[Runtime]:
    with Runtime(quantized.bundle, parallel=2, context=256) as runtime:
        yield runtime
