"""Settings beside the project file are checked as those in it are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgekit.project import Project, load_project, read_settings, with_settings
from edgekit_runtime.errors import InputError, UsageError

FILE = """\
project: line-3
base: smollm2-135m
data: {train: data/train.jsonl, eval: data/eval.jsonl}
adapters:
  one: {rank: 8, generation: {max_tokens: 64, top_k: 5}}
  two: {data: {train: a.jsonl, eval: {hub: owner/rows, split: test}}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "edgekit.yaml").write_text(FILE)
    return load_project(tmp_path)


def changed(project: Project, *words: str, name: str = "one") -> Any:
    return with_settings(project, [name], read_settings(words)).adapter(name)


def test_values_are_yaml_and_only_the_named_adapter_changes(project: Project) -> None:
    after = with_settings(project, ["one"], read_settings(["rank=4", "targets=[q_proj, v_proj]", "system='a: b=c'"]))
    one = after.adapter("one")
    assert (one.rank, one.lora_alpha, one.targets, one.system) == (4, 8, ("q_proj", "v_proj"), "a: b=c")
    assert after.adapter("two") is project.adapter("two")
    assert project.adapter("one").rank == 8
    assert changed(project, "learning_rate=1.0e-4", "max_length=null").learning_rate == 1e-4


def test_dots_lead_into_what_a_key_holds(project: Project, tmp_path: Path) -> None:
    assert changed(project, "generation.max_tokens=7").generation.as_dict() == {"max_tokens": 7, "top_k": 5}
    patterns = changed(project, "rank_pattern.layers.0.q_proj=2", "rank_pattern.down_proj=3").rank_pattern
    assert patterns == {"layers.0.q_proj": 2, "down_proj": 3}
    data = changed(project, "data.eval=other.jsonl").data  # beside the project's own train rows
    assert (data.train.path, data.eval.path) == (tmp_path / "data/train.jsonl", tmp_path / "other.jsonl")
    data = changed(project, "data.eval.split=validation", name="two").data
    assert (data.train.path, data.eval.hub, data.eval.split) == (tmp_path / "a.jsonl", "owner/rows", "validation")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("rnak=8", r"^--set rnak: unknown key: .*did you mean rank\?"),
        ("rank=eight", r"^--set rank: 'eight' is not a whole number: write one"),
        ("rank=0", r"^--set rank: 0 is not possible: use at least 1"),
        ("method=lroa", r"^--set method: 'lroa' is not possible: .*did you mean lora\?"),
        ("generation.max_token=3", r"^--set generation\.max_token: unknown key: .*did you mean max_tokens\?"),
        ("generation.max_tokens.x=3", r"^--set generation\.max_tokens: .*is not a whole number"),
        ("rank.x=3", r"^--set rank: .*is not a whole number"),
        ("name=x", r"^--set name: unknown key"),
        ("lr_scheduler_kwargs.lr_end=1", r"^--set lr_scheduler_kwargs\.lr_end: scheduler: cosine has no such argument"),
        ("scheduler=cosine_with_min_lr", r"^--set scheduler: .*needs min_lr or min_lr_rate: lr_scheduler_kwargs"),
        (
            "lr_scheduler_kwargs.num_cycles=[1]",
            r"^--set lr_scheduler_kwargs\.num_cycles: .* is no number and no text",
        ),
        ("report_to=tensorbord", r"^--set report_to\.0: 'tensorbord' is not possible: .*did you mean tensorboard\?"),
        ("label_smoothing_factor=1", r"^--set label_smoothing_factor: 1 is not possible: use at most 0\.9"),
        ("invocation=go", r"^--set invocation: only an activated LoRA has one"),
        ("rank", r"it is no KEY=VALUE"),
        ("=8", r"it is no KEY=VALUE"),
        ("targets=[q_proj", r"the value is not YAML"),
    ],
)
def test_mistakes_have_the_words_of_the_file(project: Project, word: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        changed(project, word)


def test_a_key_twice_or_an_adapter_that_is_not_there_is_refused(project: Project) -> None:
    with pytest.raises(UsageError, match="rank is given twice"):
        read_settings(["rank=4", "rank=8"])
    with pytest.raises(InputError, match="no adapter 'three'"):
        with_settings(project, ["three"], {"rank": 4})
