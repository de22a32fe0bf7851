"""BOS: once where the base wants one, never where it doesn't, the same in training and on devices."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gguf
import pytest

from edgekit.bases.gguf_base import gguf_tokenizer
from edgekit.bases.resolve import resolve_base
from edgekit.data import Row
from edgekit.encoding.encoder import Encoder
from edgekit.site.probes import CONVERSATIONS
from edgekit_exporters.gguf.base import base_gguf
from edgekit_exporters.gguf.metadata import rewrite_metadata
from edgekit_runtime.engines.llama.vocabulary import LlamaVocabulary
from edgekit_runtime.formats.gguf import read_gguf
from edgekit_runtime.prompts.chat import Asking
from edgekit_runtime.prompts.rendering import Prompts

T = "tokenizer.ggml."
PLAIN = "{% for m in messages %}{{ m.role + ': ' + m.content + eos_token }}{% endfor %}assistant:"
WRITES = "{{ bos_token }}" + PLAIN
FIRST = "{% for m in messages %}{{ m.content }}{% endfor %} assistant:"  # begins with what somebody wrote
NONE: dict[str, Any] = {f"{T}add_bos_token": None, f"{T}add_eos_token": None}
ADDS = NONE | {f"{T}add_bos_token": True}


@pytest.fixture(scope="module")
def byte_level(tiny_chat_base: Path) -> Path:
    return base_gguf(resolve_base(str(tiny_chat_base)), "F16")


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary of pieces, as llama 2 has one: a space before each text, bytes for what it doesn't know."""
    path = tmp_path_factory.mktemp("pieces") / "pieces.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in (("block_count", 1), ("embedding_length", 32), ("context_length", 64), ("head_count", 4)):
        getattr(writer, f"add_{name}")(value)
    writer.add_feed_forward_length(64)
    writer.add_layer_norm_rms_eps(1e-5)
    words = ["▁", *"abcdefghijklmnopqrstuvwxyz:.?", "▁a", "in", "▁in", "er", "us", "▁us", "user"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * 259 + [-float(at) for at in range(len(words), 0, -1)])
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * len(words))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("kind", "changes", "adds"),
    [
        ("byte_level", NONE, False),
        ("byte_level", ADDS | {f"{T}add_eos_token": True}, True),
        ("pieces", NONE, True),
        ("pieces", NONE | {f"{T}add_bos_token": False}, False),
    ],
    ids=["bytes", "bytes-bos-eos", "pieces-bos", "pieces"],
)
def test_bos_stands_once_or_never_and_both_sides_agree(
    kind: str, changes: dict[str, Any], adds: bool, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    made, folder = tmp_path / "base.gguf", tmp_path / "unpacked"
    rewrite_metadata(request.getfixturevalue(kind), made, changes)
    gguf_tokenizer(made).save_pretrained(folder)
    header, vocabulary = read_gguf(made), LlamaVocabulary.open(made)
    bos = int(header.metadata[f"{T}bos_token_id"])
    spelt = [{"role": "user", "content": f"{header.metadata[f'{T}tokens'][bos]} is BOS"}]
    for template in (PLAIN, WRITES, FIRST):
        (folder / "chat_template.jinja").write_text(template)
        encoder = Encoder(folder)
        device = Prompts(
            dataclasses.replace(header, metadata=header.metadata | encoder.facts.metadata()), vocabulary.tokenize
        )
        for conversation in (*CONVERSATIONS, spelt):
            expected = device.chat(conversation, Asking(None)).tokens
            assert encoder.prompt_ids(Row(tuple(conversation), "x", (), "here"), None) == expected
            assert expected.count(bos) == (adds or template == WRITES)
            assert expected[0] == bos or not (adds or template == WRITES)
            assert expected[-1] not in encoder.end_tokens()
