"""Real installs on emulated boards: minutes each, so only with --targets (make targets)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgekit.bases.demo_vlm.build import NAME
from edgekit_exporters.base import Base
from tests.vlm import Model, make_model

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--targets"):
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="emulated boards take minutes: make targets"))


@pytest.fixture(scope="session")
def camera(demo_base: Base, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A base that was trained: of random weights, near ties turn with the roundings of another CPU's kernels."""
    torch.manual_seed(0)
    return make_model(NAME, tmp_path_factory.mktemp("camera"), "Q4_0", std=0.05)
