"""Adapters combined: `cat` is the sum of their updates, the other methods are PEFT's, what can't be one is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel

from edgekit.bases.resolve import resolve_base
from edgekit_exporters.base import Base
from edgekit_exporters.gguf.adapter import AdapterSource, write_adapter_gguf
from edgekit_exporters.gguf.base import base_gguf
from edgekit_exporters.peft.canonical import CanonicalAdapter, LowRank, NotAdditive, canonicalize
from edgekit_exporters.peft.combinations import COMBINATIONS, EXACT, Combination
from edgekit_exporters.peft.combine import Part, combine
from edgekit_exporters.peft.della import della
from edgekit_exporters.peft.written import write_peft
from edgekit_runtime.engines import forced_logits
from edgekit_runtime.engines.llama.engine import LlamaEngine
from edgekit_runtime.errors import InputError
from tests.adapters import save_random_lora
from tests.exporters.conftest import load

IDS = torch.randint(96, (4, 16), generator=torch.Generator().manual_seed(0))
WEIGHTS = (0.7, -0.3)
PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "rslora and plain, other ranks": ({"r": 4, "use_rslora": True}, {"r": 6}),
    "patterns and some layers": (
        {"rank_pattern": {"v_proj": 2, "layers.0.mlp.up_proj": 7}, "alpha_pattern": {"q_proj": 3}},
        {"target_modules": ["q_proj", "down_proj"], "layers_to_transform": [1]},
    ),
    "pissa and olora": ({"init_lora_weights": "pissa"}, {"init_lora_weights": "olora"}),
    "embedding and output": ({"target_modules": ["embed_tokens", "lm_head", "q_proj"]}, {}),
}


def random_lora(base: Base, folder: Path, seed: int, **options: Any) -> Path:
    torch.manual_seed(seed)
    settings: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"} | options
    save_random_lora(load(base), folder, std=0.1, **settings)
    return folder


def combined(base: Base, folders: list[Path], target: Path, how: Combination, weights: Any = WEIGHTS) -> Path:
    parts = [Part(each.name, canonicalize(each, base), w) for each, w in zip(folders, weights, strict=True)]
    target.mkdir()
    write_peft(combine(parts, how), base, str(base.folder), target)
    return target


def summed_logits(base: Base, folders: list[Path]) -> torch.Tensor:
    """Of the base whose weights have the weighted sum of what merging each adapter changes in them, by PEFT alone."""
    model = load(base)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    for folder, weight in zip(folders, WEIGHTS, strict=True):
        merged = PeftModel.from_pretrained(load(base), str(folder)).merge_and_unload()
        for name, value in merged.named_parameters():
            model.get_parameter(name).data += weight * (value.detach() - before[name])
    with torch.inference_mode():
        return model(IDS).logits


def kl(wanted: torch.Tensor, found: torch.Tensor) -> float:
    wanted, found = wanted.log_softmax(-1), found.log_softmax(-1)
    assert torch.isfinite(wanted).all()
    assert torch.isfinite(found).all()
    return float((wanted.exp() * (wanted - found)).sum(-1).mean())


@pytest.mark.parametrize("options", PAIRS.values(), ids=PAIRS.keys())
def test_cat_is_the_weighted_sum_of_the_updates(options: Any, tiny_base: Base, tmp_path: Path) -> None:
    folders = [random_lora(tiny_base, tmp_path / f"{n}", n, **each) for n, each in enumerate(options)]
    made = combined(tiny_base, folders, tmp_path / "made", Combination())
    wanted = summed_logits(tiny_base, folders)
    with torch.inference_mode():
        found = PeftModel.from_pretrained(load(tiny_base), str(made)).eval()(IDS).logits
        bare = load(tiny_base)(IDS).logits
    assert kl(wanted, found) < 1e-5 < kl(wanted, bare)


def test_cat_is_the_weighted_sum_on_the_engine(tiny_chat_base: Path, tmp_path: Path) -> None:
    base = resolve_base(str(tiny_chat_base))
    folders = [
        random_lora(base, tmp_path / "a", 0, use_rslora=True),
        random_lora(base, tmp_path / "b", 1, r=6, target_modules=["v_proj", "up_proj"]),
    ]
    made = combined(base, folders, tmp_path / "made", Combination(), (0.7, 0.3))
    engine = LlamaEngine(base_gguf(base, "F32"), context=64, threads=1)
    try:
        for folder in (*folders, made):
            file = tmp_path / f"{folder.name}.gguf"
            write_adapter_gguf(AdapterSource(folder.name, "1", folder), base, file, float_type="F32")
            engine.load_adapter(folder.name, file)
        ids = torch.randint(400, 40000, (24,), generator=torch.Generator().manual_seed(0)).tolist()
        both = torch.from_numpy(forced_logits(engine, ids, (("a", 0.7), ("b", 0.3))).copy())
        one = torch.from_numpy(forced_logits(engine, ids, (("made", 1.0),)).copy())
        alone = torch.from_numpy(forced_logits(engine, ids, (("a", 0.7),)).copy())
    finally:
        engine.close()
    assert kl(both, one) < 1e-5 < kl(both, alone)


@pytest.mark.parametrize("method", ["linear", "svd", "ties", "ties_svd", "magnitude_prune", "magnitude_prune_svd"])
def test_methods_are_those_of_peft(method: str, tiny_base: Base, tmp_path: Path) -> None:
    folders = [random_lora(tiny_base, tmp_path / f"{n}", n, r=4, lora_alpha=4) for n in range(2)]
    model = PeftModel.from_pretrained(load(tiny_base), str(folders[0]), adapter_name="a")
    model.load_adapter(str(folders[1]), "b")
    model.add_weighted_adapter(["a", "b"], [0.7, 0.3], "both", method, density=0.4, svd_rank=3)
    parts = [Part(each.name, canonicalize(each, tiny_base), w) for each, w in zip(folders, (0.7, 0.3), strict=True)]
    made = combine(parts, Combination(method, rank=3, density=0.4))
    for name, layer in made.layers.items():
        theirs = model.base_model.model.get_submodule(name).get_delta_weight("both")
        torch.testing.assert_close(layer.b @ layer.a, theirs, rtol=1e-3, atol=1e-5)


def part(name: str, seed: int, weight: float = 1.0, rank: int = 4) -> Part:
    generator = torch.Generator().manual_seed(seed)
    pair = LowRank(torch.randn(rank, 24, generator=generator), torch.randn(16, rank, generator=generator))
    return Part(name, CanonicalAdapter({"layer": pair}), weight)


@pytest.mark.parametrize("method", COMBINATIONS)
def test_a_seed_gives_the_same_combination_again_and_leaves_other_draws_alone(method: str) -> None:
    parts = [part("a", 0), part("b", 1, rank=6)]
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, again = (combine(parts, Combination(method, seed=3)).layers["layer"] for _ in range(2))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(one.a, again.a)
    assert torch.equal(one.b, again.b)
    assert one.rank == (10 if method in EXACT else 6)


def test_della_keeps_the_mean_drops_the_smallest_likeliest_and_elects_signs() -> None:
    torch.manual_seed(0)
    row = torch.linspace(0.1, 1.0, 10).repeat(4000, 1)
    kept = della([row], [1.0], 0.5)
    torch.testing.assert_close(kept.mean(0), row[0], rtol=0.1, atol=0.01)
    stays = (kept != 0).float().mean(0)
    assert abs(float(stays.mean()) - 0.5) < 0.02
    assert stays[0] < 0.46
    assert stays[-1] > 0.54
    assert torch.equal(
        della([torch.tensor([[2.0, 1.0]]), torch.tensor([[-1.0, 3.0]])], [1, 1], 1.0), torch.tensor([[2.0, 2.0]])
    )


def test_what_can_t_be_combined_is_refused_by_name(tiny_base: Base, tiny_adapter: Callable[..., Path]) -> None:
    dora = tiny_adapter(use_dora=True)
    with pytest.raises(NotAdditive, match="DoRA"):
        canonicalize(dora, tiny_base)
    activated = Part("watch", CanonicalAdapter(part("b", 1).adapter.layers, (3, 4)), 1.0)
    with pytest.raises(InputError, match=r"a and watch don't work from the same place"):
        combine([part("a", 0), activated], Combination())
    both = combine([activated, activated], Combination())
    assert both.invocation == (3, 4)
    tokens = Part("b", canonicalize(tiny_adapter(trainable_token_indices=[1, 2]), tiny_base), 1.0)
    with pytest.raises(InputError, match=r"b changes single tokens of model\.embed_tokens"):
        combine([tokens, tokens], Combination())


def test_config_is_read_by_peft_as_plain_lora(tiny_base: Base, tmp_path: Path) -> None:
    folders = [random_lora(tiny_base, tmp_path / f"{n}", n, r=2 + n) for n in range(2)]
    made = combined(tiny_base, folders, tmp_path / "made", Combination("svd", rank=3))
    config = LoraConfig.from_pretrained(str(made))
    assert (config.r, config.lora_alpha, config.base_model_name_or_path) == (3, 3, str(tiny_base.folder))
