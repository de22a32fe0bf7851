"""KV caches in blocks: as large as said, the same bits in company and for any cut, never taken for another type."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize

from edgekit_runtime.engines import BARE, Part, forced_logits
from edgekit_runtime.engines.llama.engine import LlamaEngine
from edgekit_runtime.engines.llama.library import engine_log
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.gguf import read_gguf
from edgekit_runtime.formats.kv_cache import with_kv_cache
from edgekit_runtime.formats.manifest import F16, KV_CACHES
from edgekit_runtime.formats.model_facts import gguf_facts
from tests.raw_gguf import HEADS, Tensor, metadata_of_base, tensors_of_base, write_raw

HEAD = 64
BLOCKS = tuple(kind for kind in KV_CACHES if kind != F16)
CONTEXT = 768
LENGTHS = (600, 20, 530)  # over 512 cells llama.cpp's flash attention has other ways, for caches without blocks
PROMPT = [3 + 7 * number % 250 for number in range(CONTEXT)]

Open = Callable[..., LlamaEngine]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama of two layers and four heads of 64."""
    width = HEAD * HEADS
    metadata = metadata_of_base() | {
        "llama.context_length": ("U32", 2048),
        "llama.embedding_length": ("U32", width),
        "llama.rope.dimension_count": ("U32", HEAD),
    }
    tensors = {name: in_blocks(*tensor) for name, tensor in tensors_of_base(width).items()}
    return write_raw(tmp_path_factory.mktemp("base") / "base.gguf", metadata, tensors)


def in_blocks(type_name: str, shape: tuple[int, ...], data: bytes) -> Tensor:
    """A matrix at Q8_0, as devices have them: sums over floats depend on company on many CPUs."""
    if len(shape) == 1:
        return type_name, shape, data
    values = np.frombuffer(data, "<f4").reshape(shape[::-1])
    return "Q8_0", shape, quantize(values, GGMLQuantizationType.Q8_0).tobytes()


@pytest.fixture
def opened(base: Path) -> Iterator[Open]:
    """Open the base with a KV cache."""
    engines: list[LlamaEngine] = []

    def make(kv_cache: str, sequences: int = 1) -> LlamaEngine:
        engines.append(LlamaEngine(base, context=CONTEXT, threads=1, sequences=sequences, kv_cache=kv_cache))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def prefilled(engine: LlamaEngine, edges: Sequence[int], sequence: int = 0) -> np.ndarray:
    """Logits behind the prompt up to the last edge, cut at all of them."""
    engine.forget(sequence)
    for start, stop in itertools.pairwise((0, *edges)):
        engine.decode([Part(sequence, start, PROMPT[start:stop])])
    return engine.row(0).copy()


@pytest.mark.parametrize("kind", KV_CACHES)
def test_it_takes_what_is_said_of_it(kind: str, base: Path, opened: Open) -> None:
    facts = with_kv_cache(gguf_facts(read_gguf(base)), kind, "base")
    with engine_log() as heard:
        opened(kind, sequences=2)
    sizes = re.findall(r"KV buffer size = +([\d.]+) MiB", "".join(heard))
    assert [float(size) for size in sizes] == [pytest.approx(2 * facts.cache_bytes(CONTEXT) / 2**20, abs=0.006)]


def test_blocks_compute_nearly_the_same_and_fewer_bits_less_so(opened: Open) -> None:
    def logs(kind: str) -> np.ndarray:
        logits = forced_logits(opened(kind), PROMPT[:64]).astype(np.float64)
        assert np.isfinite(logits).all()
        largest = logits.max(axis=1, keepdims=True)
        return np.asarray(logits - largest - np.log(np.exp(logits - largest).sum(axis=1, keepdims=True)))

    exact = logs(F16)
    keys, eight, four = (float((np.exp(exact) * (exact - logs(kind))).sum(axis=1).mean()) for kind in BLOCKS)
    assert 0 < keys < eight < four / 4
    assert eight < 5e-3


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_prompt_may_be_cut_anywhere_or_the_engine_says_that_it_may_not(kind: str, opened: Open) -> None:
    engine = opened(kind)
    if not engine.cuts_exactly(BARE):
        pytest.skip("this CPU's kernels differ between cuts; prompts are cut as they were before then")
    whole = prefilled(engine, [512, 600])
    for edges in ([77, 500, 600], [300, 302, 555, 600], [512, 598, 600]):
        np.testing.assert_array_equal(prefilled(engine, edges), whole)


@pytest.mark.parametrize("kind", BLOCKS)
def test_company_changes_no_bit_or_the_engine_says_that_it_does(kind: str, opened: Open) -> None:
    engine = opened(kind, sequences=len(LENGTHS))
    if not engine.batches_exactly(BARE):
        pytest.skip("this CPU's kernels differ between batch sizes; requests are then decoded one by one")
    for sequence, length in enumerate(LENGTHS):
        prefilled(engine, [edge for edge in (512, length) if edge <= length], sequence)

    def step(*sequences: int) -> dict[int, np.ndarray]:
        for each in sequences:
            engine.forget(each, LENGTHS[each])
        engine.decode([Part(each, LENGTHS[each], [20 + each]) for each in sequences])
        return {each: engine.row(number).copy() for number, each in enumerate(sequences)}

    alone = step(0) | step(1) | step(2)
    for sequences in ((0, 1), (1, 2), (0, 1, 2)):
        for each, row in step(*sequences).items():
            np.testing.assert_array_equal(row, alone[each])


@pytest.mark.parametrize("kind", BLOCKS)
def test_cells_of_images_and_of_virtual_tokens_are_cells_like_others(kind: str, base: Path, opened: Open) -> None:
    engine, tokens = opened(kind), PROMPT[:20]
    table = read_gguf(base).tensors["token_embd.weight"]
    data = np.fromfile(base, np.uint8, table.size, offset=table.offset)
    rows = dequantize(data.reshape(table.shape[1], -1), GGMLQuantizationType.Q8_0)
    engine.decode([Part(0, 0, tokens)])
    expected = engine.row(0).copy()
    engine.forget(0)
    engine.decode([Part(0, 0, [-1] * len(tokens), embeddings=rows[tokens])])
    np.testing.assert_array_equal(engine.row(0), expected)


def test_a_state_goes_back_into_a_cache_of_its_own_type_alone(opened: Open) -> None:
    engines = {kind: opened(kind) for kind in KV_CACHES}
    states = {}
    for kind, engine in engines.items():
        prefilled(engine, [40])
        states[kind] = engine.save(0)
    for kind, engine in engines.items():
        for other, state in states.items():
            engine.forget(0)
            assert engine.restore(0, state) == (other == kind)
    assert len(states["q8_0"]) < 0.6 * len(states[F16])


def test_heads_that_blocks_do_not_divide_are_refused_before_the_engine_would_end(tmp_path: Path) -> None:
    small = write_raw(tmp_path / "small.gguf", metadata_of_base(), tensors_of_base())
    with pytest.raises(InputError, match=r"small\.gguf has attention heads of 8.*blocks of 32: use --kv-cache f16"):
        LlamaEngine(small, context=64, threads=1, kv_cache="q8_0")
