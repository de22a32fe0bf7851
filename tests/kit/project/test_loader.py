"""Whatever is wrong in edgekit.yaml is named with its line, and how to mend it."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from edgekit.project import Adapter, Gate, Project, load_project
from edgekit_runtime.errors import InputError

GOOD = """\
project: line-3
base: smollm2-135m
data: {train: data/train.jsonl, eval: data/eval.jsonl}
adapters:
  inspection:
    rank: 8
    targets: [q_proj, v_proj]
    generation: {max_tokens: 64, temperature: 0}
  imported: {path: some/folder, version: 2.1.0}
export: {quantize: Q4_0}
"""


def load(folder: Path, text: str) -> Project:
    (folder / "edgekit.yaml").write_text(text)
    return load_project(folder)


def test_values_defaults_and_paths_are_resolved(tmp_path: Path) -> None:
    project = load(tmp_path, GOOD)
    inspection, imported = project.adapters.values()
    assert (inspection.rank, inspection.lora_alpha, inspection.targets) == (8, 16, ("q_proj", "v_proj"))
    assert inspection.generation.as_dict() == {"max_tokens": 64, "temperature": 0.0}
    assert (imported.path, imported.version) == (tmp_path / "some/folder", "2.1.0")
    assert project.data_for("inspection").train.path == tmp_path / "data/train.jsonl"
    assert (project.export.format, project.export.quantize) == ("gguf", "Q4_0")


def test_an_adapters_own_data_goes_before_the_projects(tmp_path: Path) -> None:
    project = load(tmp_path, GOOD.replace("rank: 8", "rank: 8\n    data: {train: a.jsonl, eval: b.jsonl}"))
    assert project.data_for("inspection").eval.path == tmp_path / "b.jsonl"
    assert project.data_for("imported").eval.path == tmp_path / "data/eval.jsonl"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rank: 8", "rnak: 8", r"yaml:6: adapters\.inspection\.rnak: unknown key: did you mean rank\?"),
        ("rank: 8", "rank: eight", r"yaml:6: adapters\.inspection\.rank: 'eight' is not a whole number"),
        ("rank: 8", "rank: true", r"yaml:6: .*not a whole number"),
        ("rank: 8", "rank: 0", r"yaml:6: .*use at least 1"),
        ("rank: 8", "learning_rate: -1", r"yaml:6: .*use more than 0"),
        ("rank: 8", "rank_pattern: {q_proj: two}", r"yaml:6: .*rank_pattern\.q_proj: 'two' is not a whole number"),
        ("{quantize: Q4_0}", "{imatrix: maybe}", r"yaml:\d+: .*'maybe' is not true or false"),
        ("{quantize: Q4_0}", "{tensor_types: [a]}", r"yaml:\d+: .*has to be a mapping"),
        ("rank: 8", "method: magic", r"yaml:6: .*use one of qlora, lora"),
        ("[q_proj, v_proj]", "[]", r"yaml:7: .*names no layers"),
        ("rank: 8", "decode_budget: 0.9", r"yaml:6: .*only targets: auto keeps one: targets: auto, or leave it out"),
        ("[q_proj, v_proj]", "auto, decode_budget: 1.0", r"yaml:7: "),
        (
            "[q_proj, v_proj]",
            "auto\n    method: dora",
            r"yaml:7: .*auto doesn't go with method: dora: use one of",
        ),
        ("rank: 8", "schema: nowhere.json", r"yaml:6: .*can't be read \(No such"),
        ("project: line-3", "project: Line 3", r"yaml:1: project: 'Line 3' is not possible"),
        ("base: smollm2-135m\n", "", r"yaml:1: base is missing: add it"),
        ("  inspection:", "  base:", r"yaml:5: adapters\.base: .*no adapter name"),
        ("max_tokens", "max_token", r"yaml:8: .*did you mean max_tokens"),
        ("train: data/train.jsonl, ", "", r"yaml:3: data\.train is missing"),
        ("export: {quantize: Q4_0}", "export: [Q4_0]", r"yaml:10: export has to be a mapping of keys"),
        ("  inspection:", "  imported: {}\n  inspection:", r"yaml:\d+: found duplicate key"),
        ("rank: 8", "rank: [8", r"yaml:\d+: "),
        ("smollm2-135m", "smol\x07lm", r"yaml:2: YAML allows no '\\x07': take that sign out"),
        ("rank: 8", "rank: &eight true", r"yaml:6: .*rank: True is not a whole number"),
        ("project: line-3", "project: !!binary bGluZQ==", r"yaml:1: project: b'line' is not text"),
        ("rank: 8", "rank: 8.0", r"yaml:6: .*rank: 8\.0 is not a whole number"),
        ("rank: 8", "true: 8", r"yaml:6: adapters\.inspection\.True: unknown key"),
        ("rank: 8", "<<: {rank: 0}", r"yaml:5: adapters\.inspection\.rank: 0 is not possible: use at least 1"),
        ("rank: 8", "name: inspection", r"yaml:6: adapters\.inspection\.name: unknown key"),
        ("rank: 8", "invocation: go", r"yaml:6: .*only an activated LoRA has one: method: alora"),
        ("rank: 8", "schema: {since: 2026-01-01}", r"yaml:6: adapters\.inspection\.schema: it is no JSON"),
        (
            "rank: 8",
            "schema: {items: {not: {}}}",
            r"yaml:6: .*schema: the schema asks for not at #/items, which can't be",
        ),
        ("rank: 8", f"dropout: 1{'0' * 400}", r"yaml:6: .*dropout: 10+ is not a number"),
        ("{path: some/folder, version: 2.1.0}", "false", r"yaml:9: adapters\.imported has to be a mapping"),
        ("project: line-3", "folder: /", r"yaml:1: folder: unknown key: the keys here are project, base"),
    ],
)
def test_mistakes_are_named_with_line_and_key(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in GOOD
    with pytest.raises(InputError, match=message):
        load(tmp_path, GOOD.replace(old, new, 1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"yaml:1: it has to be a mapping"),
        ("- a", r"yaml:1: it has to be a mapping"),
        ("project: p\nbase: b\nadapters:\n", r"yaml:3: adapters: it has to be a mapping: adapters: {inspection"),
        ("project: p\nbase: b\nadapters: {}\n", r"yaml:3: adapters: there is none: describe at least one adapter"),
    ],
)
def test_a_file_without_adapters_is_told(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        load(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rank: 0\n    epochs: 0", r"yaml:6: adapters\.inspection\.rank:"),
        ("epochs: 0\n    rank: 0", r"yaml:6: adapters\.inspection\.epochs:"),
        ("rank: 0\n    rnak: 8", r"yaml:7: adapters\.inspection\.rnak: unknown key"),
        ("data: {}\n    rank: 0", r"yaml:7: adapters\.inspection\.rank:"),
        ("data: {}", r"yaml:6: adapters\.inspection\.data\.train is missing"),
    ],
)
def test_of_several_mistakes_unknown_keys_are_told_first_and_missing_ones_last(
    text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        load(tmp_path, GOOD.replace("rank: 8", text))


def test_values_that_an_alias_repeats_are_read_at_each_place(tmp_path: Path) -> None:
    project = load(
        tmp_path,
        GOOD.replace("rank: 8", "rank: &r 8\n    alpha: *r\n    alpha_pattern: {0: *r}\n    connector: &yes true"),
    )
    adapter = project.adapter("inspection")
    assert (adapter.rank, adapter.alpha, adapter.connector) == (8, 8, True)
    assert adapter.alpha_pattern == {"0": 8}  # a key is text, whatever YAML makes of it
    assert [type(each) for each in (adapter.rank, adapter.alpha, adapter.connector)] == [int, int, bool]


def test_a_project_changed_in_code_keeps_the_rules_of_the_file(tmp_path: Path) -> None:
    project = load(tmp_path, GOOD)
    changed = replace(project, gate=Gate(rows=3, min_gain=-100), adapters={"a": Adapter("a", rank=2)})
    assert (changed.gate.rows, changed.gate.min_gain, changed.adapter().lora_alpha) == (3, -100.0, 4)
    assert (changed.folder, changed.data) == (project.folder, project.data)
    with pytest.raises(ValueError, match="rank"):
        replace(changed.adapter(), rank="8")  # type: ignore[arg-type]
    with pytest.raises(FrozenInstanceError):
        changed.gate.rows = 4  # type: ignore[misc]


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="edgekit init DIR"):
        load_project(tmp_path)


def test_adapters_are_found_by_name_or_named(tmp_path: Path) -> None:
    project = load(tmp_path, GOOD)
    with pytest.raises(InputError, match="name one of inspection, imported"):
        project.adapter()
    with pytest.raises(InputError, match="it has inspection, imported"):
        project.adapter("other")


values = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.lists(st.integers(), max_size=2)
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from(["project", "task", "base", "data", "adapters", "export"]), value=values)
def test_any_value_of_any_key_is_taken_or_refused_but_never_crashes(key: str, value: Any, tmp_path: Path) -> None:
    yaml = YAML()
    document = yaml.load(GOOD)
    document[key] = value
    with (tmp_path / "edgekit.yaml").open("w") as stream:
        yaml.dump(document, stream)
    try:
        load_project(tmp_path)
    except InputError:
        pass


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("project: line-3", "project: line\x07"),
        ("project: line-3", "project: 2026-99-99"),
        ("rank: 8", "rank: !!int abc"),
        ("some/folder", "~nobody-of-this-name/x"),
        ("some/folder", '"a\\0b"'),
        ("some/folder", "''"),
        ("some/folder", "' '"),
        ("rank: 8", "rank: " + "[" * 3000 + "]" * 3000),
    ],
)
def test_what_the_yaml_reader_gives_no_line_for_is_bad_input_too(old: str, new: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="edgekit.yaml"):
        load(tmp_path, GOOD.replace(old, new))


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf"])
@pytest.mark.parametrize("key", ["max_mean_kl", "max_loss_points", "min_score", "min_gain"])
def test_a_limit_that_is_no_number_is_refused(tmp_path: Path, key: str, value: str) -> None:
    (tmp_path / "edgekit.yaml").write_text(f"project: p\nbase: b\nadapters: {{a: }}\ngate: {{{key}: {value}}}\n")
    with pytest.raises(InputError, match=rf"edgekit.yaml:4: gate.{key}: .* is no number to compare with"):
        load_project(tmp_path)


def test_the_gate_s_least_score_and_gain_are_read(tmp_path: Path) -> None:
    (tmp_path / "edgekit.yaml").write_text(
        "project: p\nbase: b\nadapters: {a: }\ngate: {min_score: 80, min_gain: -100}\n"
    )
    gate = load_project(tmp_path).gate
    assert (gate.min_score, gate.min_gain) == (80.0, -100.0)
