"""What several parts of the kit are tested with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgekit_exporters.base import Base
from tests.vlm import Model, make_model, save_smolvlm


@pytest.fixture(scope="session")
def smolvlm(demo_base: Base, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("smolvlm")
    return make_model(save_smolvlm(demo_base.folder, folder / "tiny-smolvlm"), folder)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Matrices this small cost more in waiting for a second thread than in work, above all on a busy machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
