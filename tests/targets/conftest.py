"""Real installs on emulated boards: minutes each, so only with --targets (make targets)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.conftest import smolvlm as smolvlm
from tests.kit.vision.conftest import quantised as quantised  # a caption bundle

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--targets"):
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="emulated boards take minutes: make targets"))
