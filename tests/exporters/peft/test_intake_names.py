"""Names in adapter files: wrappers of a training are understood where that is certain, all else is refused by name."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from edgekit_exporters.base import Base
from edgekit_exporters.hf.plain_files import ADAPTER_CONFIG
from edgekit_exporters.peft.files import WEIGHTS_FILE
from edgekit_exporters.peft.intake import _taken, take_in
from edgekit_runtime.errors import InputError
from tests.exporters.peft.intake import changed, edit_weights, own_logits, peft_answers, save_adapter

TARGETS = ["q_proj", "down_proj", "lm_head"]
PEFT = "base_model.model."
TOWERS = {  # what layers and the output matrix are called in image models
    "none": ("model.layers.", "lm_head."),
    "inside": ("model.language_model.layers.", "lm_head."),
    "outside": ("language_model.model.layers.", "language_model.lm_head."),
    "idefics": ("model.text_model.layers.", "lm_head."),
    "both": ("model.language_model.layers.", "model.language_model.lm_head."),
    "bare": ("language_model.layers.", "lm_head."),
}
LEADING = st.lists(st.sampled_from([PEFT, "module.", "_orig_mod.", "_fsdp_wrapped_module."]), max_size=4)


@pytest.fixture(scope="module")
def clean(tiny_base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_adapter(tiny_base, tmp_path_factory.mktemp("clean") / "adapter", target_modules=TARGETS)
    edit_weights(folder, lambda weights: weights.pop(f"{PEFT}lm_head.base_layer.weight"))
    return folder


@pytest.fixture(scope="module")
def wanted(clean: Path, tiny_base: Base) -> torch.Tensor:
    return peft_answers(tiny_base, clean)


def _copy(clean: Path, folder: Path, weights: dict[str, torch.Tensor]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / ADAPTER_CONFIG).write_bytes((clean / ADAPTER_CONFIG).read_bytes())
    save_file(weights, folder / WEIGHTS_FILE)
    _taken.cache_clear()
    return folder


@given(
    leading=LEADING,
    tower=st.sampled_from(list(TOWERS)),
    inside=st.sampled_from(["", "_orig_mod.", "_checkpoint_wrapped_module._fsdp_wrapped_module."]),
    adapter=st.sampled_from(["", ".default", ".my-adapter_2"]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_way_to_wrap_a_model_gives_the_same_adapter(
    leading: list[str],
    tower: str,
    inside: str,
    adapter: str,
    clean: Path,
    wanted: torch.Tensor,
    tiny_base: Base,
    tmp_path: Path,
) -> None:
    layers, output = TOWERS[tower]

    def rename(name: str) -> str:
        name = name.removeprefix(PEFT)
        name = re.sub(r"^model\.layers\.(\d+)\.", rf"{layers}\1.{inside}", name)
        name = re.sub(r"^lm_head\.", output, name)
        return "".join(leading) + re.sub(r"\.(lora_[AB])\.", rf".\1{adapter}.", name)

    weights = {rename(name): value for name, value in load_file(clean / WEIGHTS_FILE).items()}
    assert torch.equal(own_logits(tiny_base, _copy(clean, tmp_path / "wrapped", weights)), wanted)


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_change_of_names_is_the_same_adapter_or_refused_with_the_name_in_the_file(
    data: st.DataObject, clean: Path, wanted: torch.Tensor, tiny_base: Base, tmp_path: Path
) -> None:
    """One word put in, taken out or repeated, in all names or in one."""
    weights = load_file(clean / WEIGHTS_FILE)
    words = [
        "_orig_mod",
        "module",
        "model",
        "language_model",
        "base_model",
        "layers",
        "0",
        "default",
        "vision_tower",
        "x",
    ]
    at, word = data.draw(st.integers(0, 5)), data.draw(st.sampled_from(words))
    taken_out, in_all = data.draw(st.booleans()), data.draw(st.booleans())
    one = data.draw(st.sampled_from(sorted(weights)))

    def rename(name: str) -> str:
        parts = name.split(".")
        parts[at : at + taken_out] = [] if taken_out else [word]
        return ".".join(parts)

    renamed = {rename(name) if in_all or name == one else name: value for name, value in weights.items()}
    folder = _copy(clean, tmp_path / "changed", renamed)
    refused: InputError | None = None
    try:
        logits = own_logits(tiny_base, folder)
    except InputError as error:
        refused = error
    if refused is None:
        assert torch.equal(logits, wanted)
    else:
        assert any(name in str(refused) for name in (*renamed, *weights))


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", PEFT])
def test_what_was_left_out_is_told_in_one_line(
    prefix: str, clean: Path, tiny_base: Base, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = changed(clean, tmp_path / "wrapped", rename=lambda name: prefix + name)
    with caplog.at_level(logging.INFO, "edgekit_exporters"):
        take_in(folder, tiny_base)
        _taken.cache_clear()
        take_in(folder, tiny_base)
    assert [prefix in message and "10 tensors" in message for message in caplog.messages] == [True]


def test_a_clean_adapter_is_taken_without_a_word(
    clean: Path, tiny_base: Base, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "edgekit_exporters"):
        take_in(clean, tiny_base)
    assert not caplog.messages


def test_another_name_is_refused_with_the_nearest(clean: Path, tiny_base: Base, tmp_path: Path) -> None:
    folder = changed(clean, tmp_path / "a", rename=lambda name: name.replace("q_proj", "query_proj"))
    with pytest.raises(
        InputError, match=r"self_attn\.query_proj\.lora_A.*nearest .* model\.layers\.\d\.self_attn\.\w_proj"
    ):
        take_in(folder, tiny_base)
    folder = changed(clean, tmp_path / "b", rename=lambda name: name.replace(".layers.1.", ".layers.9."))
    with pytest.raises(InputError, match=r"layers\.9\."):
        take_in(folder, tiny_base)


@pytest.mark.parametrize("second", ["_orig_mod.", "module.", PEFT])
def test_two_names_of_one_place_are_refused(second: str, clean: Path, tiny_base: Base, tmp_path: Path) -> None:
    weights = load_file(clean / WEIGHTS_FILE)
    first = min(weights)
    folder = _copy(clean, tmp_path / "twice", weights | {second + first: weights[first] * 2})
    with pytest.raises(InputError, match="two tensors for one place"):
        take_in(folder, tiny_base)
    both = weights | {first.replace("lora_A.", "lora_A.other."): weights[first] * 2}
    with pytest.raises(InputError, match="two tensors for one place"):
        take_in(_copy(clean, tmp_path / "twice", both), tiny_base)


@pytest.mark.parametrize("edit", ["layer", "half", "more", "copy", "kind"])
def test_every_tensor_is_used_and_every_place_is_filled(
    edit: str, clean: Path, tiny_base: Base, tmp_path: Path
) -> None:
    weights: dict[str, Any] = load_file(clean / WEIGHTS_FILE)
    lost = min(weights)
    if edit == "layer":
        weights = {name: value for name, value in weights.items() if ".layers.1." not in name}
    elif edit == "half":
        del weights[lost]
    elif edit == "more":
        weights[f"{PEFT}model.layers.0.self_attn.k_proj.lora_A.weight"] = torch.ones(4, 32)
    elif edit == "copy":
        weights[f"{PEFT}model.norm.weight"] = torch.full((32,), 3.0)
    else:
        weights[lost] = torch.ones(weights[lost].shape, dtype=torch.int8)
    said = {
        "layer": r"no tensor .*layers\.1",
        "half": re.escape(lost),
        "more": "k_proj",
        "copy": "no copy of the base",
        "kind": "int8, none of the floats",
    }
    with pytest.raises(InputError, match=said[edit]):
        take_in(_copy(clean, tmp_path / "edited", weights), tiny_base)


def test_the_base_weights_of_a_whole_state_may_lie_beside_the_pairs(
    clean: Path, wanted: torch.Tensor, tiny_base: Base, tmp_path: Path
) -> None:
    weights = load_file(clean / WEIGHTS_FILE)
    own = load_file(tiny_base.folder / "model.safetensors")
    copies = {
        f"{PEFT}model.norm.weight": own["model.norm.weight"],
        f"{PEFT}lm_head.base_layer.weight": own["lm_head.weight"].bfloat16(),
        f"{PEFT}model.layers.0.self_attn.q_proj.base_layer.weight": own["model.layers.0.self_attn.q_proj.weight"],
    }
    folder = _copy(clean, tmp_path / "state", weights | copies)
    assert torch.equal(own_logits(tiny_base, folder), wanted)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_single_value_that_is_not_finite_is_refused_by_name(
    value: float, dtype: torch.dtype, clean: Path, tiny_base: Base, tmp_path: Path
) -> None:
    weights = {name: each.to(dtype) for name, each in load_file(clean / WEIGHTS_FILE).items()}
    name = max(weights)
    weights[name].view(-1)[5] = value
    with pytest.raises(InputError, match=f"{re.escape(name)} holds numbers that are not finite"):
        take_in(_copy(clean, tmp_path / "spoilt", weights), tiny_base)


def test_targets_by_the_names_of_the_image_model_are_understood(
    clean: Path, wanted: torch.Tensor, tiny_base: Base, tmp_path: Path
) -> None:
    def rename(name: str) -> str:
        return name.replace("model.model.layers", "model.model.language_model.layers")

    pattern = r"^(?:model\.language_model\.layers\.\d+\.(?:self_attn\.q_proj|mlp\.down_proj)|lm_head)$"
    by_pattern = changed(clean, tmp_path / "a", config={"target_modules": pattern}, rename=rename)
    assert torch.equal(own_logits(tiny_base, by_pattern), wanted)
    names = [f"model.language_model.layers.{n}.{m}" for n in (0, 1) for m in ("self_attn.q_proj", "mlp.down_proj")]
    by_list = changed(clean, tmp_path / "b", config={"target_modules": [*names, "lm_head"]}, rename=rename)
    assert torch.equal(own_logits(tiny_base, by_list), wanted)
    alphas = {"alpha_pattern": {r"^model\.language_model\.layers\.0\.self_attn\.q_proj": 3}}
    uncertain = changed(clean, tmp_path / "c", config=alphas, rename=rename)
    with pytest.raises(InputError, match="alpha_pattern"):
        take_in(uncertain, tiny_base)
