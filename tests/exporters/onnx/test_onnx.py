"""ONNX exports: the graph and its adapter inputs compute what PEFT computes, and other tools read the same files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig

from edgekit.bases.resolve import resolve_base
from edgekit_exporters.base import Base
from edgekit_exporters.gguf.adapter import AdapterSource
from edgekit_runtime.engines import Stack, forced_logits
from edgekit_runtime.formats.base_files import BaseFiles
from edgekit_runtime.formats.onnx_base import DATA_FILE, ENGINE, MIXED_FILE, MODEL_FILE, VOCABULARY_FILE
from tests.exporters.peft.test_exactness import LENGTH, SEPARATE_ONLY, VARIANTS, _adapter, _peft_answers
from tests.steps import alone, step

pytest.importorskip("onnx_ir", reason="the extra is not installed: pip install 'edgekit[onnx]'")

from edgekit_exporters.onnx.adapter import write_adapter_onnx
from edgekit_exporters.onnx.base import base_onnx, source_digest
from edgekit_exporters.onnx.blocks import Blocks, fit_blocks
from edgekit_exporters.onnx.calibration import TEXTS, TOKENS, Calibration
from edgekit_exporters.onnx.gptq import DAMPING, Inputs, compensated
from edgekit_exporters.onnx.graph_map import GraphMap, Piece
from edgekit_exporters.onnx.outline import onnx_outline
from edgekit_runtime.engines.onnx.engine import OnnxEngine


@pytest.fixture(scope="module")
def base(tiny_chat_base: Path) -> Base:
    return resolve_base(str(tiny_chat_base))


@pytest.fixture(scope="module")
def folder(base: Base) -> Path:
    return base_onnx(base, "fp32")


def files(folder: Path) -> BaseFiles:
    return BaseFiles(ENGINE, folder / MODEL_FILE, {n: folder / n for n in (MIXED_FILE, DATA_FILE, VOCABULARY_FILE)})


@pytest.fixture(scope="module", params=[1, 2], ids=["one sequence", "masked graph"])
def engine(request: pytest.FixtureRequest, folder: Path) -> Iterator[OnnxEngine]:
    opened = OnnxEngine(files(folder), context=64, threads=1, sequences=request.param)
    yield opened
    opened.close()


@pytest.mark.parametrize("options", [*VARIANTS.values(), *SEPARATE_ONLY.values()], ids=[*VARIANTS, *SEPARATE_ONLY])
def test_a_separate_adapter_file_is_peft(
    options: dict[str, Any], base: Base, folder: Path, engine: OnnxEngine, tmp_path: Path
) -> None:
    """Mean KL below 1e-5 and the same greedy tokens on 32 prompts: in float32 nothing but the order of sums differs."""
    source = _adapter(base, tmp_path / "adapter", options, std=0.05)
    write_adapter_onnx(AdapterSource("a", "1", source), base, tmp_path / "a.onnx_adapter", folder)
    engine.load_adapter("a", tmp_path / "a.onnx_adapter")
    _check(engine, base, source)
    engine.unload_adapter("a")


@pytest.mark.model
def test_on_the_real_base_it_is_peft_over_32_tokens(demo_base: Base, tmp_path: Path) -> None:
    folder = base_onnx(demo_base, "fp32")
    source = _adapter(demo_base, tmp_path / "adapter", {"use_rslora": True}, std=0.01)
    write_adapter_onnx(AdapterSource("a", "1", source), demo_base, tmp_path / "a.onnx_adapter", folder)
    engine = OnnxEngine(files(folder), context=64, threads=2)
    engine.load_adapter("a", tmp_path / "a.onnx_adapter")
    _check(engine, demo_base, source, answer=32)
    engine.close()


def _check(engine: OnnxEngine, base: Base, source: Path, **length: int) -> None:
    """The adapter "a" says what PEFT says."""
    whole, expected = _peft_answers(base, source, **length)
    divergence = []
    for ids, wanted in zip(whole.tolist(), expected, strict=True):
        found = torch.log_softmax(torch.from_numpy(forced_logits(engine, ids, (("a", 1.0),))), -1)
        divergence.append(float((wanted.exp() * (wanted - found)).sum(-1).mean()))
        assert found[LENGTH - 1 : -1].argmax(-1).tolist() == ids[LENGTH:]
    assert np.mean(divergence) < 1e-5


def test_the_base_alone_is_not_what_the_adapter_makes_of_it(
    base: Base, folder: Path, engine: OnnxEngine, tmp_path: Path
) -> None:
    source = _adapter(base, tmp_path / "adapter", {}, std=0.05)
    write_adapter_onnx(AdapterSource("a", "1", source), base, tmp_path / "a.onnx_adapter", folder)
    engine.load_adapter("a", tmp_path / "a.onnx_adapter")
    tokens = list(range(100, 112))
    answers = []
    for stack in ((), (("a", 1.0),), (("a", 0.5),), ()):
        answers.append(forced_logits(engine, tokens, stack))
    engine.unload_adapter("a")
    assert np.array_equal(answers[0], answers[3])
    assert not np.allclose(answers[0], answers[1])
    assert not np.allclose(answers[1], answers[2])


def test_one_step_takes_another_adapter_for_each_row(base: Base, folder: Path, tmp_path: Path) -> None:
    engine = OnnxEngine(files(folder), context=64, threads=1, sequences=4)
    stacks: list[Stack] = [()]
    for name, options in (("a", {}), ("b", {"r": 3, "target_modules": ["v_proj", "down_proj"]})):
        source = _adapter(base, tmp_path / name, options, std=0.05)
        file = tmp_path / f"{name}.onnx_adapter"
        write_adapter_onnx(AdapterSource(name, "1", source), base, file, folder)
        engine.load_adapter(name, file)
        stacks.append(((name, 1.0),))
    stacks.append((("a", 0.5), ("b", 1.5)))
    wanted = alone(engine, stacks)
    for rows in ([0, 1, 2, 3], [1, 3], [2, 0]):
        for found, row in zip(step(engine, rows, stacks), rows, strict=True):
            assert np.allclose(found, wanted[row], atol=1e-4)
    assert all(not np.allclose(wanted[0], other, atol=0.1) for other in wanted[1:])
    engine.close()


@pytest.mark.parametrize("precision", ["fp16", "int8", "int4"])
def test_narrower_bases_answer_nearly_like_the_float_one(precision: str, base: Base, folder: Path) -> None:
    tokens = list(range(100, 124))
    logits = []
    for each in (folder, base_onnx(base, precision)):
        engine = OnnxEngine(files(each), context=64, threads=1)
        logits.append(torch.log_softmax(torch.from_numpy(forced_logits(engine, tokens)), -1))
        engine.close()
    divergence = float((logits[0].exp() * (logits[0] - logits[1])).sum(-1).mean())
    assert divergence < {"fp16": 1e-4, "int8": 0.02, "int4": 2.0}[precision]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int4"])
def test_a_base_is_as_large_as_its_outline_says(precision: str, base: Base) -> None:
    outline = onnx_outline(base, precision)
    assert outline.file_bytes == pytest.approx(files(base_onnx(base, precision)).size, rel=0.01)


def test_genai_itself_reads_base_and_adapter(
    base: Base, folder: Path, tmp_path: Path, random_lora: Callable[[Path], None]
) -> None:
    og = pytest.importorskip("onnxruntime_genai")
    random_lora(tmp_path / "peft")
    adapter = tmp_path / "a.onnx_adapter"
    write_adapter_onnx(AdapterSource("a", "1", tmp_path / "peft"), base, adapter, folder)
    model = og.Model(str(folder))
    adapters = og.Adapters(model)
    adapters.load(str(adapter), "a")
    prompt = np.arange(100, 110, dtype=np.int32)
    ours = OnnxEngine(files(folder), context=64, threads=1)
    ours.load_adapter("a", adapter)
    for stack, name in (((), None), ((("a", 1.0),), "a")):
        parameters = og.GeneratorParams(model)
        parameters.set_search_options(max_length=32, do_sample=False)
        generator = og.Generator(model, parameters)
        if name:
            generator.set_active_adapter(adapters, name)
        generator.append_tokens(prompt)
        theirs = np.asarray(generator.get_logits()).reshape(-1)
        assert np.allclose(theirs[-49152:], forced_logits(ours, prompt.tolist(), stack)[-1][-49152:], atol=1e-4)
    ours.close()


@pytest.mark.parametrize("name", [MODEL_FILE, MIXED_FILE])
def test_the_graph_passes_the_onnx_checker(name: str, base: Base, tmp_path: Path) -> None:
    """But for SimplifiedLayerNormalization, which ONNX Runtime keeps in ONNX's own domain."""
    import onnx

    folder = base_onnx(base, "int4")
    graph = onnx.load(str(folder / name), load_external_data=False)
    for node in graph.graph.node:
        if node.op_type == "SimplifiedLayerNormalization":
            node.domain = "com.microsoft"
    (tmp_path / DATA_FILE).write_bytes((folder / DATA_FILE).read_bytes())
    onnx.save(graph, str(tmp_path / name))
    onnx.checker.check_model(str(tmp_path / name))


@pytest.mark.parametrize("bits", [4, 8])
def test_blocks_are_nearer_than_rounding(bits: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(16, 128)
    rows = weight.view(16, 4, 32)
    low, high = rows.amin(-1, keepdim=True), rows.amax(-1, keepdim=True)
    scale = (high - low) / (2**bits - 1)
    zero = (-low / scale).round()
    rounded = (((rows / scale + zero).round().clamp(0, 2**bits - 1) - zero) * scale).view(16, 128)
    assert (fit_blocks(weight, bits).floats() - weight).square().mean() <= (rounded - weight).square().mean()


def test_important_columns_are_kept_closer() -> None:
    torch.manual_seed(0)
    weight, importance = torch.randn(16, 128), torch.rand(128) ** 4

    def loss(found: torch.Tensor) -> float:
        return float(((found - weight).square() * importance).mean())

    assert loss(fit_blocks(weight, 4, importance).floats()) < 0.9 * loss(fit_blocks(weight, 4).floats())


def test_later_columns_make_up_for_the_errors_of_earlier_ones() -> None:
    """On inputs that hang together, as those of layers do."""
    torch.manual_seed(0)
    inputs = torch.randn(512, 128) @ torch.randn(128, 128) * torch.rand(128).exp()
    weight = torch.randn(48, 128)

    def loss(found: Blocks) -> float:
        return float((inputs @ (found.floats() - weight).t()).square().mean())

    found = compensated(weight, Inputs.seen(inputs), 4)
    assert loss(found) < 0.7 * loss(fit_blocks(weight, 4, inputs.square().mean(0)))
    assert int(found.codes.max()) <= 15
    assert int(found.zeros.max()) <= 15


def test_compensation_bears_inputs_that_are_always_zero() -> None:
    torch.manual_seed(0)
    inputs, weight = torch.randn(8, 64), torch.randn(16, 64)  # fewer texts than columns
    inputs[:, 32:] = 0
    weight[3] = 0
    for seen in (inputs, torch.zeros_like(inputs)):
        floats = compensated(weight, Inputs.seen(seen), 4).floats()
        assert floats.isfinite().all()
        assert (floats - weight).abs().max() < 1
        assert not floats[3].any()


def test_inputs_are_known_by_the_factor_of_their_damped_moments() -> None:
    torch.manual_seed(0)
    rows = torch.randn(400, 320) @ torch.randn(320, 320)  # more columns than are multiplied at a time
    known = Inputs.seen(rows)
    moments = rows[:, known.order].t() @ rows[:, known.order] / len(rows)
    torch.testing.assert_close(known.squares, moments.diagonal(), rtol=1e-4, atol=0)
    assert known.squares.view(-1, 32).mean(1).diff().min() >= 0
    moments.diagonal().add_(DAMPING * moments.diagonal().mean())
    inverse = torch.linalg.inv(known.factor.double())
    left = inverse @ moments.double() @ inverse.t()
    assert torch.equal(known.factor.triu(), torch.eye(320))
    assert (left - left.diagonal().diag()).abs().max() < 1e-3 * left.diagonal().min()


def test_layers_that_see_the_same_have_one_tensor(tiny_chat_base: Path) -> None:
    inputs = Calibration(tiny_chat_base).inputs
    layer = "model.layers.1."
    queries, gates = inputs[f"{layer}self_attn.q_proj"], inputs[f"{layer}mlp.gate_proj"]
    assert queries is inputs[f"{layer}self_attn.k_proj"] is inputs[f"{layer}self_attn.v_proj"]
    assert gates is inputs[f"{layer}mlp.up_proj"]
    assert not torch.equal(queries, gates)
    assert not torch.equal(queries, inputs["model.layers.0.self_attn.q_proj"])
    assert len(queries) == len(inputs[f"{layer}mlp.down_proj"]) == TEXTS * TOKENS
    assert "lm_head" not in inputs


def test_the_same_base_gives_the_same_blocks_whatever_the_number_of_threads(tiny_chat_base: Path) -> None:
    torch.manual_seed(1)  # of no consequence
    layers = {f"model.layers.0.mlp.{name}": torch.randn(*shape).numpy() for name, shape in _shapes(tiny_chat_base)}
    pieces = tuple(Piece(name, name, 0, 0, len(matrix)) for name, matrix in layers.items())
    places = GraphMap("lm_head", {name: len(matrix) for name, matrix in layers.items()}, pieces)
    before = torch.get_num_threads()
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        try:
            found.append(Calibration(tiny_chat_base).blocks(layers, places, 4))
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
    first, second = found
    assert first.keys() == second.keys() == layers.keys()
    for name, blocks in first.items():
        assert torch.equal(blocks.codes, second[name].codes)
        assert torch.equal(blocks.scales, second[name].scales)
        assert torch.equal(blocks.zeros, second[name].zeros)


def _shapes(folder: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """[out, in] of the three matrices of an MLP."""
    config = AutoConfig.from_pretrained(folder)
    inner = (config.intermediate_size, config.hidden_size)
    yield from (("gate_proj", inner), ("up_proj", inner), ("down_proj", inner[::-1]))


def test_packed_codes_have_the_first_of_two_in_the_low_half() -> None:
    codes = torch.arange(32, dtype=torch.uint8).remainder(16)[None]
    blocks = Blocks(codes, torch.ones(1, 1), torch.full((1, 1), 8, dtype=torch.uint8), 4)
    assert blocks.packed_codes().flatten()[:3].tolist() == [0x10, 0x32, 0x54]
    assert blocks.packed_zeros().flatten().tolist() == [8]


@pytest.mark.parametrize("bits", [4, 8])
def test_blocks_are_read_as_they_were_written(bits: int) -> None:
    torch.manual_seed(0)
    whole = fit_blocks(torch.randn(5, 96), bits)  # three blocks a row: the last byte of zeros is half empty
    again = Blocks.unpacked(whole.packed_codes(), whole.scales.flatten(), whole.packed_zeros(), bits)
    assert torch.equal(again.floats(), whole.floats())
    middle = Blocks.unpacked(whole.packed_codes(), whole.scales, None, bits)
    assert middle.zeros.unique().tolist() == [2 ** (bits - 1)]


def test_cached_bases_are_named_after_the_sources_that_make_them(tmp_path: Path) -> None:
    (tmp_path / "onnx_graph.py").write_text("a = 1\n")
    before = source_digest(tmp_path)
    (tmp_path / "onnx_new.py").write_text("b = 1\n")
    with_new = source_digest(tmp_path)
    (tmp_path / "onnx_graph.py").write_text("a = 2\n")
    assert len({before, with_new, source_digest(tmp_path)}) == 3
