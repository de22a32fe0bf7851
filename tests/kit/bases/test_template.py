"""Bases that bring no chat template: refused with what to do, and usable with a known one or a file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit.bases.resolve import check_project_base, project_base, resolve_base
from edgekit.cli import main
from edgekit.data import Row
from edgekit.encoding.encoder import Encoder
from edgekit.exporting.export import export
from edgekit.project import load_project
from edgekit.training.run import train
from edgekit_exporters.gguf.base import base_gguf
from edgekit_exporters.gguf.end_tokens import end_metadata
from edgekit_exporters.gguf.metadata import rewrite_metadata
from edgekit_exporters.hf.known_templates import KNOWN_TEMPLATES
from edgekit_exporters.hf.templates import with_template
from edgekit_runtime.engines.llama.vocabulary import LlamaVocabulary
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.end_tokens import KEY_END_TOKENS
from edgekit_runtime.formats.gguf import read_gguf
from edgekit_runtime.prompts.template import KEY_TEMPLATE, ChatTemplate

# A control token of the vocabulary that llama.cpp doesn't know as an end.
END = "<empty_output>"
OWN = (
    "{% for message in messages %}{{ message.role + ': ' + message.content + '" + END + "' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
TALK = [
    {"role": "system", "content": "Be terse."},
    {"role": "user", "content": "one?"},
    {"role": "assistant", "content": "ONE"},
    {"role": "user", "content": "two?"},
]


@pytest.fixture(scope="session")
def plain_base(tiny_chat_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base without its chat template."""
    folder = tmp_path_factory.mktemp("plain") / "tiny-plain"
    shutil.copytree(tiny_chat_base, folder)
    (folder / "chat_template.jinja").unlink()
    return folder


@pytest.fixture(scope="session")
def plain_gguf(tiny_chat_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as GGUF."""
    path = tmp_path_factory.mktemp("plain") / "plain.gguf"
    rewrite_metadata(base_gguf(resolve_base(str(tiny_chat_base)), "F16"), path, {KEY_TEMPLATE: None})
    return path


@pytest.fixture
def on(tiny_project: Callable[..., Path], tiny_chat_base: Path) -> Callable[..., Any]:
    """The tiny project over another base, with a chat template when one is named."""

    def make(base: Path, template: str | None = None, **options: Any) -> Any:
        file = tiny_project(**options) / "edgekit.yaml"
        text = file.read_text().replace(str(tiny_chat_base), str(base))
        file.write_text(text + (f"chat_template: {template}\n" if template else ""))
        return load_project(file.parent)

    return make


@pytest.fixture
def every_token(plain_base: Path, tmp_path: Path) -> Path:
    """The tiny base with the tokens of all known templates."""
    from transformers import AutoTokenizer

    folder = tmp_path / "all-tokens"
    shutil.copytree(plain_base, folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokens = sorted({token for each in KNOWN_TEMPLATES.values() for token in each.tokens})
    tokenizer.add_special_tokens({"additional_special_tokens": tokens})
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["folder", "gguf"])
def test_a_base_without_a_template_is_refused_with_one_that_fits(
    kind: str, plain_base: Path, plain_gguf: Path, on: Callable[..., Any]
) -> None:
    base = plain_base if kind == "folder" else plain_gguf
    with pytest.raises(InputError, match="has no chat template") as refused:
        check_project_base(on(base))
    assert refused.value.hint is not None
    assert "set `chat_template: chatml` (or a file) in edgekit.yaml" in refused.value.hint
    assert "alpaca" in refused.value.hint
    assert "phi-3" not in refused.value.hint  # its tokens aren't there


@pytest.mark.parametrize("kind", ["folder", "gguf"])
def test_a_known_template_whose_tokens_are_missing_is_refused_by_name(
    kind: str, plain_base: Path, plain_gguf: Path, on: Callable[..., Any]
) -> None:
    project = on(plain_base if kind == "folder" else plain_gguf, "phi-3")
    for check in (check_project_base, project_base):
        with pytest.raises(InputError, match=r"chat_template: phi-3 needs .*<\|end\|>.*doesn't have") as refused:
            check(project)
        assert "chatml" in str(refused.value.hint)


def test_a_misspelt_name_is_told(plain_base: Path, on: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match="can't be read") as refused:
        check_project_base(on(plain_base, "chatlm"))
    assert "did you mean chatml?" in str(refused.value.hint)


def test_an_instruct_base_needs_nothing(tiny_chat_base: Path, on: Callable[..., Any]) -> None:
    check_project_base(on(tiny_chat_base))
    assert project_base(on(tiny_chat_base)).stock is None


@pytest.mark.parametrize("name", KNOWN_TEMPLATES)
def test_a_known_template_renders_all_roles(name: str) -> None:
    template = ChatTemplate(KNOWN_TEMPLATES[name].source, {"eos_token": "</s>"})
    text = template.render(TALK)
    places = [text.find(each["content"]) for each in TALK]
    assert places == sorted(places)
    assert -1 not in places
    history = template.render(TALK, add_generation_prompt=False)
    assert text.startswith(history)
    end = (KNOWN_TEMPLATES[name].tokens or ("</s>",))[-1]
    assert template.render(TALK[:3], add_generation_prompt=False).rstrip().endswith(f"ONE{end}") or name == "llama-2"


@pytest.mark.parametrize("name", ["llama-3", "mistral"])
def test_the_end_of_a_known_templates_turn_is_learnt(name: str, every_token: Path) -> None:
    encoder = Encoder(with_template(resolve_base(str(every_token)), name).folder)
    answer = encoder.answer_ids(Row(tuple(TALK), "TWO", (), "here"), None)
    assert encoder.decode(answer) == "TWO"
    end = (KNOWN_TEMPLATES[name].tokens or ("<|im_end|>",))[-1]
    assert encoder.tokenizer.convert_ids_to_tokens(answer[-1]) == end
    assert answer[-1] in encoder.end_tokens()


def test_a_gguf_without_a_template_trains_and_its_turns_end_on_the_device(
    plain_gguf: Path, on: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "own.jinja").write_text(OWN)
    project = on(plain_gguf, str(tmp_path / "own.jinja"), system="Be terse.")
    train(project)
    bundle, manifest = export(project, output=tmp_path / "bundle", accept_loss="three steps")
    file = bundle / manifest.base.file
    metadata = read_gguf(file).metadata
    assert metadata[KEY_TEMPLATE] == OWN
    report = json.loads((bundle / "report" / "report.json").read_text())
    assert report["adapters"][0]["other_prompts"] == 0
    end = metadata["tokenizer.ggml.tokens"].index(END)
    assert json.loads(metadata[KEY_END_TOKENS]) == [end]
    vocabulary = LlamaVocabulary.open(file)
    assert not vocabulary.marks_end(end)
    assert all(map(vocabulary.is_end, Encoder(project_base(project).folder).end_tokens()))
    vocabulary.close()


def test_a_file_says_nothing_of_ends_that_the_engine_finds_by_itself(plain_base: Path, plain_gguf: Path) -> None:
    folder = with_template(resolve_base(str(plain_base)), "chatml").folder
    assert end_metadata(folder, plain_gguf) == {KEY_END_TOKENS: None}


def test_a_new_project_on_such_a_base_has_a_template_that_fits(
    plain_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", str(tmp_path / "new"), "--base", str(plain_base)]) == 0
    assert "has no chat template" in capsys.readouterr().out
    project = load_project(tmp_path / "new")
    assert (project.base, project.chat_template) == (str(plain_base), "chatml")
    check_project_base(project)
