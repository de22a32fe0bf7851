"""The service that all clients ask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit_exporters.base import Base
from tests.service import Service, serving


@pytest.fixture(scope="session")
def real_bundle(demo_base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo base in float16, with an adapter ``one`` that was trained for nothing."""
    import torch
    from transformers import AutoModelForCausalLM

    from edgekit_exporters.bundle import write_bundle
    from edgekit_exporters.gguf.adapter import AdapterSource
    from edgekit_exporters.gguf.base import base_gguf
    from tests.adapters import save_random_lora
    from tests.goods import text_plan

    folder = tmp_path_factory.mktemp("conformance")
    torch.manual_seed(1)
    model: Any = AutoModelForCausalLM.from_pretrained(demo_base.folder, dtype=torch.float32)
    save_random_lora(model, folder / "one", std=0.02, r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
    plan = text_plan(demo_base, base_gguf(demo_base, "F16"), [AdapterSource("one", "1.0.0", folder / "one")])
    write_bundle(plan, folder / "bundle")
    return folder / "bundle"


@pytest.fixture(scope="session")
def service(real_bundle: Path) -> Iterator[Service]:
    with serving(real_bundle, "--context", "1024", "--parallel", "4") as started:
        yield started
