"""The table of what llama.cpp reads is that of the version that is installed: its own source is asked."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator

import pytest

from edgekit_exporters.conversion.converters import engine_version, source_distribution
from edgekit_runtime.formats.base_header import MOST_EXPERTS, MOST_LAYERS, _expected
from edgekit_runtime.formats.llama_keys import SQUARE_HEADS
from edgekit_runtime.formats.vocabulary_header import BOS_UNASKED

NAMES = re.compile(r'\{\s*(LLM_KV_\w+),\s*"([^"]+)"\s*\}')
READS = re.compile(r"\bget_(key|key_or_arr|arr)\(\s*(LLM_KV_\w+)")
CLIP_NAMES = re.compile(r'#define (KEY_\w+)\s+"([^"]+)"')
CLIP_READS = re.compile(r"\bget_(u32|i32|f32|bool|string|arr_int|arr_f32)\((?:string_format\()?(KEY_\w+)")
CLIP_TYPES = {"arr_int": "[I32]", "arr_f32": "[F32]", "string": "STRING"}


@pytest.fixture(scope="module")
def source() -> dict[str, str]:
    """The files of src/ and of tools/mtmd/, by name."""
    wanted = re.compile(r"vendor/llama\.cpp/(src/(?:models/)?|tools/mtmd/)([\w.-]+\.(?:cpp|h))$")
    found = {}
    with tarfile.open(source_distribution(engine_version())) as archive:
        for member in archive:
            if match := wanted.search(member.name):
                stream = archive.extractfile(member)
                assert stream is not None
                found[match[1] + match[2]] = stream.read().decode()
    return found


def read_by_models(source: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Each key of an architecture or of every file that is read typed, and how."""
    names = dict(NAMES.findall(source["src/llama-arch.cpp"]))
    for name, text in source.items():
        if name.startswith("src/"):
            for how, key in READS.findall(text):
                yield names[key].replace("%s", "llama"), how


def test_every_key_that_a_model_reads_is_in_the_table(source: dict[str, str]) -> None:
    reads = list(read_by_models(source))
    assert len(reads) > 500
    table = _expected("llama")
    assert {key for key, _ in reads} <= table.keys()
    for key, how in reads:
        arrays = [each for each in table[key] if each.startswith("[")]
        assert bool(arrays) or how == "key", key
        assert len(arrays) < len(table[key]) or how == "arr", key


def test_every_key_that_a_projector_is_read_for_is_in_the_table(source: dict[str, str]) -> None:
    names = dict(CLIP_NAMES.findall(source["tools/mtmd/clip-impl.h"]))
    reads = CLIP_READS.findall(source["tools/mtmd/clip.cpp"])
    assert len(reads) > 100
    for kind, key in reads:
        for part in ("vision", "audio", "gen.audio"):
            taken = _expected("clip")[names[key].replace("%s", part)]
            assert taken == (CLIP_TYPES.get(kind, kind.upper()),), key


def test_the_limits_are_those_of_the_source(source: dict[str, str]) -> None:
    header = source["src/llama-hparams.h"]
    assert re.search(rf"LLAMA_MAX_LAYERS +{MOST_LAYERS}\b", header)
    assert re.search(rf"LLAMA_MAX_EXPERTS +{MOST_EXPERTS}\b", header)


def test_architectures_with_one_width_of_heads_are_those_that_assert_it(source: dict[str, str]) -> None:
    known = set(re.findall(r'\{\s*LLM_ARCH_\w+,\s*"([^"]+)"', source["src/llama-arch.cpp"]))
    both = (
        r"^\s*GGML_ASSERT\(n_embd_head == hparams\.n_embd_head_k\(\)\);",
        r"^\s*GGML_ASSERT\(n_embd_head == n_rot\);",
    )
    asserting = {
        name.removeprefix("src/models/").removesuffix(".cpp")
        for name, text in source.items()
        if name.startswith("src/models/") and all(re.search(each, text, re.M) for each in both)
    }
    assert set(SQUARE_HEADS.split()) == asserting & known


def test_the_vocabularies_that_begin_each_text_with_bos_are_those_of_the_source(source: dict[str, str]) -> None:
    asked = re.findall(r"((?:tokenizer_pre ==\s*\"[^\"]+\"[\s|]*)+)\) \{([^}]*)", source["src/llama-vocab.cpp"])
    found = {name for names, body in asked if "add_bos = true" in body for name in re.findall(r'"([^"]+)"', names)} | {
        "gemma4",
        "granite-embed-multi-311m",
    }  # by a rule of its own
    assert found == set(BOS_UNASKED.split())
