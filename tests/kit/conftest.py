"""What several parts of the kit are tested with."""

from __future__ import annotations

import pytest

from edgekit_exporters.base import Base
from tests.vlm import Model, make_model, save_smolvlm


@pytest.fixture(scope="session")
def smolvlm(demo_base: Base, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("smolvlm")
    return make_model(save_smolvlm(demo_base.folder, folder / "tiny-smolvlm"), folder)
