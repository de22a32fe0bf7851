"""Templates without a place for system prompts: the same question is asked in training and on devices."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgekit.data import Row
from edgekit.encoding.encoder import Encoder
from edgekit.site.probes import CONVERSATIONS
from edgekit_exporters.base import Base
from edgekit_runtime.engines.llama.vocabulary import LlamaVocabulary
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.gguf import read_gguf
from edgekit_runtime.prompts.chat import Asking, ImageTemplate, Message, TextTemplate
from edgekit_runtime.prompts.rendering import Prompts
from edgekit_runtime.prompts.system import folded, takes_system
from edgekit_runtime.prompts.template import ChatTemplate, TemplateFacts
from tests.chat_templates import CHATML, GEMMA, GEMMA3, SILENT, ZEPHYR

TOLD = {"role": "system", "content": "Be terse."}
ASKED = {"role": "user", "content": "scratch of 3 mm"}
ANSWERED = [ASKED, {"role": "assistant", "content": "ok"}, {"role": "user", "content": "and 4?"}]
REFUSES = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}{% endfor %}"
# Parts, as templates of image models take them.
PARTS = (
    REFUSES + "{% for m in messages %}{{ m.role }}:{% for p in m.content %}"
    "{{ '<image>' if p.type == 'image' else p.text }}{% endfor %}{% endfor %}"
)


@pytest.mark.parametrize(
    ("source", "takes"),
    [
        (CHATML, True),
        (ZEPHYR, True),
        (GEMMA3, True),
        (GEMMA, False),
        (SILENT, False),
        ("nothing", True),
        (REFUSES, True),
    ],
)
def test_what_a_template_does_with_a_system_prompt_is_found_by_rendering_one(source: str, takes: bool) -> None:
    assert takes_system(ChatTemplate(source).render) is takes


@pytest.mark.parametrize("source", [GEMMA, SILENT])
def test_a_system_prompt_without_a_place_stands_before_the_first_question(source: str) -> None:
    template = ChatTemplate(source, {"bos_token": "<s>", "eos_token": "</s>"})
    form = TextTemplate(template)
    together = [{"role": "user", "content": "Be terse.\n\nscratch of 3 mm"}, *ANSWERED[1:]]
    assert form.render([TOLD, *ANSWERED]) == form.render(together) == (template.render(together),)
    assert form.render([{**TOLD, "content": ""}, ASKED]) == form.render([ASKED])


def test_a_template_with_a_place_keeps_it() -> None:
    template = ChatTemplate(CHATML)
    assert TextTemplate(template).render([TOLD, *ANSWERED]) == (template.render([TOLD, *ANSWERED]),)


def test_it_stands_before_the_images_of_the_question() -> None:
    image: Message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what?"}]}
    assert ImageTemplate(ChatTemplate(PARTS)).render([TOLD, image], 1) == ("user:Be terse.\n\n", "what?")
    assert ImageTemplate(ChatTemplate(GEMMA)).render([TOLD, image], 1)[0].endswith("user\nBe terse.\n\n")


def test_what_nobody_asks_anything_in_stays_as_it_is() -> None:
    alone = [TOLD, {"role": "assistant", "content": "ok"}]
    assert folded(alone) == alone
    assert folded(ANSWERED) == ANSWERED


def test_it_is_found_out_once_and_not_for_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    form = TextTemplate(ChatTemplate(SILENT))
    rendered: list[Any] = []
    original = ChatTemplate.render
    monkeypatch.setattr(
        ChatTemplate, "render", lambda self, *given, **named: rendered.append(given) or original(self, *given, **named)
    )
    form.render([TOLD, ASKED])
    form.render([TOLD, ASKED])
    assert len(rendered) == 2


@pytest.mark.parametrize("source", [GEMMA, SILENT])
def test_training_and_device_see_the_same_tokens(source: str, demo_base: Base, tmp_path: Path) -> None:
    assert demo_base.gguf is not None
    folder = tmp_path / "base"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copy(demo_base.folder / name, folder)
    (folder / "chat_template.jinja").write_text(source)
    encoder = Encoder(folder)
    header = read_gguf(demo_base.gguf)
    header = dataclasses.replace(header, metadata=header.metadata | encoder.facts.metadata())
    assert TemplateFacts.read(header).sources == {"default": source}
    device = Prompts(header, LlamaVocabulary.open(demo_base.gguf).tokenize)
    alike = 0
    for conversation in [*CONVERSATIONS, [ASKED | {"content": "spells <|im_end|> and <end_of_turn>"}]]:
        for system in (None, "Be terse.", "Spells <|im_start|>.\n"):
            row = Row(tuple(conversation), "x", (), "here")
            try:
                asked = device.chat(conversation, Asking(system)).tokens
            except InputError:
                with pytest.raises(InputError):
                    encoder.prompt_ids(row, system)
                continue
            assert encoder.prompt_ids(row, system) == asked
            alike += 1
    assert alike == 18
