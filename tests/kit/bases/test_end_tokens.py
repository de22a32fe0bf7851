"""Every id of generation_config.json's list ends an answer: in torch, on the device's engine and in a page."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from edgekit.bases.resolve import resolve_base
from edgekit.encoding.encoder import Encoder
from edgekit.site import build_site
from edgekit_exporters.bundle import BundlePlan, write_bundle
from edgekit_exporters.gguf.base import base_gguf
from edgekit_exporters.gguf.metadata import rewrite_metadata
from edgekit_runtime.engines.llama.vocabulary import LlamaVocabulary
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.base_header import check_base_header
from edgekit_runtime.formats.end_tokens import KEY_END_TOKENS
from edgekit_runtime.formats.gguf import read_gguf
from edgekit_runtime.runtime import Runtime
from tests.browser import needs_chromium

QUESTION = "What is a bracket?"
END = "<empty_output>"  # a control token of the vocabulary that llama.cpp doesn't know as an end


@dataclass(frozen=True)
class Ending:
    """A base whose generation_config.json lists END, which it likes a little better than its own fourth token."""

    folder: Path
    bundle: Path
    end: int
    before: tuple[int, ...]  # what it says before END


@pytest.fixture(scope="module")
def ending(tiny_chat_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Ending:
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("ending") / "tiny-ending"
    shutil.copytree(tiny_chat_base, folder)
    encoder = Encoder(folder)
    end = int(encoder.tokenizer.convert_tokens_to_ids(END))
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prompt = torch.tensor([encoder.prompt_ids(_row(), None)])
    said = model.generate(prompt, max_new_tokens=4, do_sample=False, eos_token_id=None)[0, prompt.shape[1] :].tolist()
    embeddings = model.get_input_embeddings().weight
    with torch.no_grad():
        embeddings[end] = 1.05 * embeddings[said[3]]
    model.generation_config.eos_token_id = [encoder.tokenizer.eos_token_id, end]
    model.save_pretrained(folder)
    base = resolve_base(str(folder))
    bundle = folder.with_name("bundle")
    settings: dict[str, Any] = {"name": "ending", "task": "text", "version": "1", "isa": "any"}
    write_bundle(
        BundlePlan(
            base=base, base_file=base_gguf(base, "F16"), merged=[], adapters=[], default_adapter=None, **settings
        ),
        bundle,
    )
    return Ending(folder, bundle, end, tuple(said[:3]))


def _row() -> Any:
    from edgekit.data import Row

    return Row(({"role": "user", "content": QUESTION},), "x", (), "here")


def test_a_listed_id_ends_an_answer_in_torch_and_on_the_engine(ending: Ending) -> None:
    from transformers import AutoModelForCausalLM

    encoder = Encoder(ending.folder)
    assert ending.end in encoder.end_tokens()
    model: Any = AutoModelForCausalLM.from_pretrained(ending.folder, dtype=torch.float32)
    prompt = torch.tensor([encoder.prompt_ids(_row(), None)])
    answer = model.generate(prompt, max_new_tokens=12, do_sample=False, eos_token_id=sorted(encoder.end_tokens()))
    assert answer[0, prompt.shape[1] :].tolist() == [*ending.before, ending.end]
    with Runtime(ending.bundle, threads=1) as runtime:
        said = runtime.generate(QUESTION, max_tokens=12)
    assert (said.finish_reason, said.usage.completion_tokens) == ("stop", len(ending.before))
    assert said.text == encoder.tokenizer.decode(list(ending.before))


@needs_chromium
def test_it_ends_one_in_a_page_too(ending: Ending, tmp_path: Path) -> None:
    from tests.site import ask, chromium, hosting, load_module, phone

    build_site(ending.bundle, tmp_path / "site")
    with Runtime(ending.bundle, threads=1) as native:
        want = native.generate(QUESTION, max_tokens=12)
    with hosting(tmp_path / "site") as host, chromium() as browser, phone(browser) as page:
        load_module(page, host)
        got = ask(page, prompt=QUESTION, max_tokens=12)
    assert (got["text"], got["finish_reason"]) == (want.text, "stop")
    assert got["usage"]["completion_tokens"] == want.usage.completion_tokens


def test_an_id_that_is_a_word_ends_nothing(tiny_chat_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "words"
    shutil.copytree(tiny_chat_base, folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 400, True, "x"]}))
    assert Encoder(folder).end_tokens() == Encoder(tiny_chat_base).end_tokens()


def test_a_tokenizer_without_an_end_is_refused(tiny_chat_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "endless"
    shutil.copytree(tiny_chat_base, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"eos_token": None}))
    with pytest.raises(InputError, match="has no eos_token, so that nothing ends an answer"):
        Encoder(folder)


@pytest.mark.parametrize("text", ["[99999999]", "[-1]", "{}", "[1.5]", "[true]", "[" * 3000, "[" + "1," * 3000 + "1]"])
def test_a_list_that_is_none_is_refused(text: str, ending: Ending, tmp_path: Path) -> None:
    file = tmp_path / "base.gguf"
    (made,) = ending.bundle.glob("base/*.gguf")
    rewrite_metadata(made, file, {KEY_END_TOKENS: text})
    with pytest.raises(InputError, match="edgekit.end_tokens is no list of ids"):
        check_base_header(read_gguf(file))
    with pytest.raises(InputError, match="edgekit.end_tokens is no list of ids"):
        LlamaVocabulary.open(file)
