"""Templates from edgekit.yaml to the device: what was trained is what is asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit.bases.resolve import project_base, resolve_base
from edgekit.evaluation.evaluate import evaluate
from edgekit.exporting.export import export
from edgekit.project import load_project
from edgekit.training.run import train
from edgekit_exporters.gguf.base import base_gguf
from edgekit_exporters.hf.templates import template_facts, with_template
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.adapter import AdapterFacts
from edgekit_runtime.formats.gguf import read_gguf
from edgekit_runtime.prompts.template import TemplateFacts
from edgekit_runtime.runtime import Runtime
from tests import chat_templates as forms

CALL = {"type": "function", "function": {"name": "measure", "arguments": {"part": "B"}}}
TOOL = {"type": "function", "function": {"name": "measure", "parameters": {"type": "object", "properties": {}}}}


def _with_key(folder: Path, text: str) -> None:
    file = folder / "edgekit.yaml"
    file.write_text(file.read_text() + text)


def _template(folder: Path, source: str) -> None:
    (folder / "own.jinja").write_text(source)
    if "chat_template" not in (folder / "edgekit.yaml").read_text():
        _with_key(folder, "chat_template: own.jinja\n")


@pytest.mark.parametrize(
    ("form", "arguments", "ending"),
    [
        (forms.DEEPSEEK_R1, None, "<|Assistant|><think>\n"),
        (forms.QWEN3, {"enable_thinking": False}, "assistant\n<think>\n\n</think>\n\n"),
        (forms.SMOLLM3, {"enable_thinking": False}, "assistant\n<think>\n\n</think>\n\n"),
    ],
)
def test_a_reasoning_template_trains_and_the_device_asks_as_in_training(
    form: str, arguments: dict[str, Any] | None, ending: str, tiny_project: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tiny_project()
    _template(folder, form)
    project = load_project(folder)
    record = json.loads((train(project) / "run.json").read_text())
    assert record["reasoning"] == "drop"
    bundle, manifest = export(project, output=tmp_path / "bundle", accept_loss="three steps")
    entry = manifest.adapter("small")
    assert entry.template_arguments == arguments
    assert AdapterFacts.read(bundle / entry.file).template_arguments == arguments
    assert read_gguf(bundle / manifest.base.file).metadata["tokenizer.chat_template"] == form
    report = json.loads((bundle / "report" / "report.json").read_text())
    assert report["adapters"][0]["other_prompts"] == 0
    with Runtime(bundle) as runtime:
        tokens = runtime.encode([{"role": "user", "content": "scratch of 3 mm"}], "small").tokens
        assert b"".join(map(runtime.piece, tokens)).decode().endswith(ending)
    assert evaluate(project, artifact=bundle, limit=1).rows == 1


def test_another_template_changes_no_block_and_reaches_every_file(
    tiny_chat_base: Path, tmp_path: Path, tiny_project: Callable[..., Path]
) -> None:
    folder = tiny_project()
    _template(folder, forms.PHI3)
    project = load_project(folder)
    base, stock = project_base(project), resolve_base(str(tiny_chat_base))
    assert base.family == stock.family
    assert base.key != stock.key
    assert base_gguf(base, "F16") == base_gguf(stock, "F16")
    assert template_facts(base.folder).sources == {"default": forms.PHI3}
    assert template_facts(base.folder).tokens == template_facts(stock.folder).tokens
    train(project)
    _template(folder, forms.CHATML)
    with pytest.raises(InputError, match="trained with another chat template"):
        evaluate(load_project(folder), limit=1)


def test_named_templates_travel_and_tools_reach_the_device(
    tiny_chat_base: Path, tmp_path: Path, tiny_project: Callable[..., Path]
) -> None:
    import shutil

    named = tmp_path / "named"
    shutil.copytree(tiny_chat_base, named)
    (named / "chat_template.jinja").unlink()
    config = json.loads((named / "tokenizer_config.json").read_text())
    assert isinstance(forms.HERMES, dict)
    config["chat_template"] = [{"name": name, "template": text} for name, text in forms.HERMES.items()]
    (named / "tokenizer_config.json").write_text(json.dumps(config))
    folder = tiny_project()
    (folder / "edgekit.yaml").write_text((folder / "edgekit.yaml").read_text().replace(str(tiny_chat_base), str(named)))
    project = load_project(folder)
    train(project)
    bundle, manifest = export(project, output=tmp_path / "bundle", accept_loss="three steps")
    found = TemplateFacts.read(read_gguf(bundle / manifest.base.file))
    assert found == template_facts(named)
    with Runtime(bundle) as runtime:
        asked = [{"role": "user", "content": "measure"}]
        plain, called = (runtime.encode(asked, "small", tools=tools).tokens for tools in ((), (TOOL,)))
        assert b"<tools>" in b"".join(map(runtime.piece, called))
        assert b"<tools>" not in b"".join(map(runtime.piece, plain))
        assert runtime.generate(messages=asked, tools=[TOOL], max_tokens=3).usage.prompt_tokens == len(called)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, r"the chat template .*own\.jinja can't be read"),
        (b"{% if %}", r"own\.jinja is broken at line 1"),
        (b" \n", r"own\.jinja is empty"),
        (b"\xff\xfe", "it is not UTF-8"),
    ],
)
def test_a_template_that_is_none_is_refused(
    content: bytes | None, problem: str, tiny_chat_base: Path, tmp_path: Path
) -> None:
    path = tmp_path / "own.jinja"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=problem):
        with_template(resolve_base(str(tiny_chat_base)), path)


@pytest.mark.parametrize("key", ["reasoning: maybe", "loss: first"])
def test_reasoning_and_loss_are_words_of_a_list(key: str, tiny_project: Callable[..., Path]) -> None:
    name, _, value = key.partition(": ")
    folder = tiny_project(**{name: value})
    with pytest.raises(InputError, match=rf"edgekit\.yaml:\d+: adapters\.small\.{name}: '{value}' is not possible"):
        load_project(folder)


def test_reasoning_other_than_in_training_is_refused(tiny_project: Callable[..., Path]) -> None:
    train(load_project(tiny_project(reasoning="keep")))
    with pytest.raises(InputError, match="was trained with reasoning: keep, and edgekit.yaml says drop"):
        evaluate(load_project(tiny_project(reasoning="drop")), limit=1)


def test_every_turn_is_learnt_when_the_loss_is_on_all(tiny_project: Callable[..., Path]) -> None:
    from edgekit.data import load_rows
    from edgekit.encoding.encoder import IGNORED, Encoder
    from edgekit.training.prepared import _examples

    folder = tiny_project(loss="all")
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "one"}]
    (folder / "data" / "train.jsonl").write_text(json.dumps({"messages": talk + talk}) + "\n")
    project = load_project(folder)
    (row,) = load_rows(folder / "data" / "train.jsonl")
    encoder = Encoder(project_base(project).folder)
    (example,) = _examples(encoder, row, project.adapters["small"], 200, [])
    learnt = [label for label in example["labels"] if label != IGNORED]
    assert encoder.tokenizer.decode(learnt) == "one<|im_end|>one<|im_end|>"
    assert (train(project) / "run.json").is_file()
