"""adapter_config.json: whatever it says, the adapter is PEFT's or the refusal names file and key."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit_exporters.base import Base
from edgekit_exporters.hf.plain_files import ADAPTER_CONFIG
from edgekit_exporters.peft.intake import _taken, take_in
from edgekit_exporters.peft.settings import REFUSED, checked_settings
from edgekit_runtime.errors import InputError
from tests.exporters.peft.intake import changed, own_logits, peft_answers, save_adapter

KEYS = (
    *("r", "lora_alpha", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "lora_bias", "bias", "fan_in_fan_out"),
    *("ensure_weight_tying", "init_lora_weights", "modules_to_save", "trainable_token_indices"),
    *("target_parameters", "alora_invocation_tokens", "peft_type", *REFUSED, "a_switch_of_tomorrow"),
)
NUMBERS = st.one_of(
    st.integers(-2, 9), st.sampled_from([10**6, 10**30, 0.0, -0.0, 0.5, 4.0, -1.0, 1e300, math.inf, math.nan])
)
WORDS = st.sampled_from(
    [
        *(
            "",
            "q_proj",
            "v_proj",
            "down_proj",
            "lm_head",
            "norm",
            "layers",
            "all-linear",
            "ALL-LINEAR",
            "pissa",
            "none",
        ),
        *(
            "all",
            "true",
            "4",
            ".*(q_proj",
            "[",
            "*",
            r".*\.(q|v)_proj",
            "nowhere",
            "LORA",
            "lora",
            "(?i)q_proj",
            "(?P<x>q)",
        ),
    ]
)
PLAIN = st.one_of(st.none(), st.booleans(), NUMBERS, WORDS, st.text(max_size=4))
VALUES = st.one_of(
    PLAIN, st.lists(PLAIN, max_size=3), st.dictionaries(WORDS, PLAIN, max_size=2), st.lists(st.lists(PLAIN, max_size=2))
)


@pytest.fixture(scope="module")
def clean(tiny_base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(tiny_base, tmp_path_factory.mktemp("clean") / "adapter")


def _with(clean: Path, folder: Path, config: dict[str, Any]) -> Path:
    """The clean folder with other settings; JSON as Python writes it, NaN included."""
    document = json.loads((clean / ADAPTER_CONFIG).read_text())
    folder.mkdir(exist_ok=True)
    for path in clean.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / ADAPTER_CONFIG).write_text(json.dumps(document | config))
    return folder


@given(config=st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=2))
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_config_is_peft_or_an_input_error_that_names_its_file(
    config: dict[str, Any], clean: Path, tiny_base: Base, tmp_path: Path
) -> None:
    folder = _with(clean, tmp_path / "edited", config)
    _taken.cache_clear()  # the same sizes within one tick of the clock
    refused: InputError | None = None
    try:
        logits = own_logits(tiny_base, folder)
    except InputError as error:
        refused = error
    if refused is not None:
        assert refused.hint
        assert str(folder) in refused.problem
        return
    # PEFT itself stumbles over some keys that are off by null or zero, where they could be left out.
    document = json.loads((folder / ADAPTER_CONFIG).read_text())
    (folder / ADAPTER_CONFIG).write_text(json.dumps({key: value for key, value in document.items() if value}))
    assert torch.equal(logits, peft_answers(tiny_base, folder))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("lora_alpha", value) for value in (None, "16", 0, -4, math.nan, math.inf, 1e30, True, [8])),
        *(("r", value) for value in (None, "4", 0, -1, 4.0, 10**30, True, math.nan)),
        *(("target_modules", value) for value in (5, None, "", [], [5], ".*(q_proj", {"q_proj": 1}, [""])),
        *(
            ("rank_pattern", value)
            for value in ([4], "q_proj", {"q_proj": "4"}, {"[": 4}, {"q_proj": 0}, {"q_proj": None})
        ),
        *(("alpha_pattern", value) for value in ([4], {"q_proj": math.nan}, {"q_proj": -1}, {"(": 4})),
        *(("use_rslora", value) for value in ("false", 1, [])),
        *(("use_dora", value) for value in ("no", 2)),
        *(("bias", value) for value in ("some", True, 3)),
        *(("layers_to_transform", value) for value in ("0", [-1], [0.5], {})),
        *(("exclude_modules", value) for value in ("(", 3, [1])),
        *(("modules_to_save", value) for value in ("lm_head", [1], {"a": 1})),
        *(("trainable_token_indices", value) for value in ("1", [-1], {"embed_tokens": 3})),
        *(("alora_invocation_tokens", value) for value in ("ab", [1.5], [-1])),
        *(("init_lora_weights", value) for value in (3, "", [], "magic", "pissa_niter_4", "loftq", "corda")),
    ],
)
def test_a_value_that_can_not_be_right_is_refused_by_file_and_key(
    key: str, value: Any, clean: Path, tiny_base: Base, tmp_path: Path
) -> None:
    if (key, value) in (("use_rslora", []), ("layers_to_transform", {})):
        pytest.skip("nothing is off")
    folder = _with(clean, tmp_path / "edited", {key: value})
    with pytest.raises(InputError) as caught:
        take_in(folder, tiny_base)
    assert ADAPTER_CONFIG in caught.value.problem
    assert key in caught.value.problem or "initialised with" in caught.value.problem


@pytest.mark.parametrize("key", [*REFUSED, "a_switch_of_tomorrow"])
def test_what_is_on_and_not_understood_is_refused_by_name(
    key: str, clean: Path, tiny_base: Base, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"{key} is on.*train without {key}"):
        take_in(_with(clean, tmp_path / "on", {key: {"x": 1}}), tiny_base)
    for off in (None, False, [], "", 0):
        take_in(_with(clean, tmp_path / "off", {key: off}), tiny_base)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"r": 2}, r"r: .* has the rank 2 there, and 4 in"),
        ({"rank_pattern": {"v_proj": 7}}, r"rank_pattern: .*v_proj has the rank 7 there, and 4"),
        ({"target_modules": ["q_proj"]}, r"adapts model\.layers\.0\.\w+\.\w+, which adapter_config.json doesn't name"),
        ({"target_modules": ["q_proj", "v_proj", "down_proj", "o_proj"]}, r"no tensor .*o_proj.*\(and 3 more\)"),
        ({"target_modules": ["q_proj", "v_proj", "down_proj", "c_attn"]}, r"c_attn does not fit tiny"),
        ({"target_modules": ["q_proj", "v_proj", "down_proj", "norm"]}, r"norm is no linear layer"),
        ({"layers_to_transform": [0]}, r"adapts model\.layers\.1\."),
        ({"modules_to_save": ["score"]}, r"modules_to_save: score is no part of tiny"),
        ({"use_dora": True}, r"no tensor .*lora_magnitude_vector"),
        ({"trainable_token_indices": [96]}, r"trainable_token_indices: 96 is no token of tiny"),
    ],
)
def test_config_and_tensors_have_to_say_the_same(
    config: dict[str, Any], said: str, clean: Path, tiny_base: Base, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        take_in(changed(clean, tmp_path / "edited", config=config), tiny_base)


def test_a_config_needs_no_more_than_what_gives_the_strength(tmp_path: Path) -> None:
    least = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
    assert checked_settings(least, tmp_path / ADAPTER_CONFIG).bias == "none"
    for key in least:
        with pytest.raises(InputError, match=key):
            checked_settings({name: value for name, value in least.items() if name != key}, tmp_path / ADAPTER_CONFIG)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"{", "can't be read as JSON"),
        (b"[]", "is no JSON object"),
        (b"null", "is no JSON object"),
        (b"\xef\xbb\xbf{}", "byte-order mark"),
        ('{"r": 4}'.encode("utf-16"), "byte-order mark"),
        (b'{"r": "\xff"}', "not in UTF-8"),
        (b'{"r": 4, "r": 8}', "the key r stands twice"),
        (b"[" * 100_000, "can't be read as JSON"),
        (b'{"r": ' + b"9" * 5000 + b"}", "can't be read as JSON"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull"),
        (b'{"peft_type": "IA3"}', "'IA3' is not 'LORA'"),
    ],
)
def test_a_config_that_is_no_json_object_is_refused(
    content: bytes, said: str, clean: Path, tiny_base: Base, tmp_path: Path
) -> None:
    folder = _with(clean, tmp_path / "edited", {})
    (folder / ADAPTER_CONFIG).write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        take_in(folder, tiny_base)
    assert ADAPTER_CONFIG in str(caught.value)


@pytest.mark.parametrize(
    ("targets", "hint"),
    [
        ("q_proj", r'write the list \["q_proj"\]'),
        ("q_proj,v_proj", r'write the list \["q_proj", "v_proj"\]'),
        ("q_proj|v_proj", r'write the list \["q_proj", "v_proj"\]'),
        ("c_attn", "use the base that it was trained on"),
    ],
)
def test_names_where_a_pattern_has_to_be_are_told_apart_from_another_base(
    tiny_base: Base, tmp_path: Path, targets: str, hint: str
) -> None:
    folder = save_adapter(tiny_base, tmp_path / "a")
    with pytest.raises(InputError, match=f"fits no layer of .*{hint}"):
        take_in(changed(folder, tmp_path / "b", config={"target_modules": targets}), tiny_base)


@pytest.mark.parametrize(
    ("kind", "problem"), [(None, "is missing"), ("lora", "'lora' is not 'LORA'"), ("IA3", "'IA3'"), (["LORA"], "LORA")]
)
def test_a_config_of_something_else_is_told_as_that(kind: Any, problem: str) -> None:
    with pytest.raises(InputError, match=f"peft_type.*{re.escape(problem)}"):
        checked_settings({"peft_type": kind}, Path(ADAPTER_CONFIG))


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": r"(([a-z_.0-9]+)*)*X"},
        {"exclude_modules": r"(([a-z_.0-9]*)*)*!"},
        {"rank_pattern": {r"((\w|\.)+)+!": 8}},
    ],
    ids=lambda config: next(iter(config)),
)
def test_a_pattern_that_never_ends_is_refused(
    clean: Path, tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any]
) -> None:
    monkeypatch.setattr("edgekit_exporters.peft.pattern_time.SECONDS", 1.0)
    with pytest.raises(InputError, match=next(iter(config))) as caught:
        take_in(_with(clean, tmp_path / "slow", config), tiny_base)
    assert "takes more than 1 seconds" in str(caught.value)
