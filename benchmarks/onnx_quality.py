"""What each way to choose blocks loses: KL against the float base on its own greedy answers, weights only.

    python benchmarks/onnx_quality.py              # about five minutes on 2 cores
    python benchmarks/onnx_quality.py --questions 3

Rounding of activations is left out on both sides: llama.cpp's and ONNX Runtime's kernels both round them to 8 bits.
MB are those of all matrices.  Where no row says otherwise the output matrix, which is the embedding too, has 8 bits.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from onnxruntime.quantization.matmul_nbits_quantizer import HQQWeightOnlyQuantConfig, HQQWeightOnlyQuantizer
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from edgekit.bases.quantized import dequantized_state
from edgekit.bases.quantized.block_formats import LAYOUTS
from edgekit.bases.quantized.mapping import StoredTensor, stored_tensors
from edgekit.bases.resolve import resolve_base
from edgekit_exporters.base import Base
from edgekit_exporters.gguf.base import base_gguf
from edgekit_exporters.onnx.base import base_onnx, blocks_of
from edgekit_exporters.onnx.blocks import BLOCK, Blocks, fit_blocks
from edgekit_exporters.onnx.calibration import Calibration
from edgekit_exporters.onnx.graph_map import GraphMap

BASE = "smollm2-135m"
ANSWER = 40
HEAD = "lm_head"
SCALE_BITS = 16
AWQ_POWERS = tuple(step / 10 for step in range(11))
QUESTIONS = (
    "Name three colours and write one short line about each.",
    "What is the capital of France?",
    "Explain why the sky is blue.",
    "Write a haiku about machines.",
    "List four tools used in a workshop.",
    "Summarise: the part has a scratch of 3 mm near the edge, and was rejected.",
    "What does HTTP stand for?",
    "How do I boil an egg?",
    "Give me a JSON object with keys verdict and size.",
    "Translate good morning into Spanish.",
)

# Name of a linear layer in the transformers model -> the weights that stand for it, and their bits in a file.
Choice = Callable[[str, Tensor], tuple[Tensor, float]]


@dataclass(frozen=True)
class Asked:
    """A question with the float base's answer [1, tokens], and what it thought of each token of the answer."""

    whole: Tensor
    prompt: int
    expected: Tensor


def main() -> None:
    """Print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=len(QUESTIONS))
    asked = parser.parse_args().questions
    base = resolve_base(BASE)
    bench = Bench(base, QUESTIONS[:asked])
    print(f"{'weights':44}{'KL':>8}{'same token':>12}{'MB':>8}{'bits':>7}")
    for kind in ("Q4_0", "Q4_1", "Q4_K_M", "Q8_0"):
        file = base_gguf(base, kind)
        bench.report(f"llama.cpp {kind}", dequantized_state(file, bench.model.config), _gguf_bits(file, bench.model))
    for kind in ("Q4_0", "Q4_1", "Q8_0"):
        bench.blocks(f"{kind} blocks carried over", _carried(base, kind, bench.model))
    for algorithm in ("rtn", "k_quant", "k_quant_mixed"):
        bench.onnx(f"builder, {algorithm}", base.folder, dict(_built(base, algorithm)))
    bench.blocks("rounded, symmetric", lambda _, weight: _rounded(weight, symmetric=True))
    bench.blocks("rounded, asymmetric", lambda _, weight: _rounded(weight, symmetric=False))
    bench.blocks("HQQ (zeros are floats)", lambda _, weight: _hqq(weight))
    bench.blocks("ranges searched", lambda _, weight: _fitted(weight, None))
    importance = _importance(base.folder)
    for block in (16, 32, 64):
        bench.blocks(f"ranges searched by importance, blocks of {block}", _weighed(importance, block))
    bench.blocks("AWQ, each layer with scales of its own", _awq(base.folder))
    for precision in ("int4", "int8"):
        bench.onnx(f"{precision}, as exported", base.folder, blocks_of(base_onnx(base, precision)))


class Bench:
    """The float base and its answers."""

    def __init__(self, base: Base, questions: tuple[str, ...]) -> None:
        self.model: Any = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32).eval()
        self._floats = {name: value.clone() for name, value in self.model.state_dict().items()}
        tokenizer = AutoTokenizer.from_pretrained(base.folder)
        self._asked = [self._ask(tokenizer, question) for question in questions]

    @torch.inference_mode()
    def _ask(self, tokenizer: Any, question: str) -> Asked:
        messages = [{"role": "user", "content": question}]
        ids = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )["input_ids"]
        whole = self.model.generate(ids, max_new_tokens=ANSWER, do_sample=False, pad_token_id=2)
        return Asked(whole, ids.shape[1], torch.log_softmax(self.model(whole).logits[0, ids.shape[1] - 1 : -1], -1))

    @torch.inference_mode()
    def report(self, name: str, state: Mapping[str, Tensor], bits: float) -> None:
        """Ask with other weights.  ``bits`` of all matrices together."""
        self.model.load_state_dict({**self._floats, **state}, strict=False)
        self.model.tie_weights()
        divergence, same = [], []
        for each in self._asked:
            found = torch.log_softmax(self.model(each.whole).logits[0, each.prompt - 1 : -1], -1)
            divergence.append((each.expected.exp() * (each.expected - found)).sum(-1))
            same.append((each.expected.argmax(-1) == found.argmax(-1)).float())
        self.model.load_state_dict(self._floats)
        weights = sum(matrix.numel() for _, matrix in self._matrices())
        kl, share = float(torch.cat(divergence).mean()), 100 * float(torch.cat(same).mean())
        print(f"{name:44}{kl:8.4f}{share:10.1f} %{bits / 8e6:8.1f}{bits / weights:7.2f}", flush=True)

    def blocks(self, name: str, choose: Choice) -> None:
        """Ask with other weights in the layers, and the output matrix in the blocks of 8 bits that exports have."""
        state, total = {}, 0.0
        for layer, weight in self._matrices():
            if layer == HEAD:
                found = fit_blocks(weight, 8)
                floats, bits = found.floats(), _bits(found)
                state["model.embed_tokens.weight"] = floats
            else:
                floats, bits = choose(layer, weight)
            state[f"{layer}.weight"] = floats
            total += bits
        self.report(name, state, total)

    def onnx(self, name: str, folder: Path, found: Mapping[str, Blocks]) -> None:
        """Ask with the blocks of a graph."""
        places = GraphMap.read(folder)
        state: dict[str, Tensor] = {}
        for layer, _ in self._matrices():
            pieces = sorted(places.places(layer), key=lambda piece: piece.row)
            state[f"{layer}.weight"] = torch.cat([found[piece.matrix].floats()[piece.outputs] for piece in pieces])
        state["model.embed_tokens.weight"] = state[f"{HEAD}.weight"]
        self.report(name, state, sum(_bits(blocks) for blocks in found.values()))

    def _matrices(self) -> Iterator[tuple[str, Tensor]]:
        for name, module in self.model.named_modules():
            if isinstance(module, torch.nn.Linear):
                yield name, module.weight.data


def _bits(blocks: Blocks) -> float:
    """Of codes, scales, and zeros where they are not all the middle."""
    middle = bool((blocks.zeros == 2 ** (blocks.bits - 1)).all())
    return blocks.codes.numel() * blocks.bits + blocks.scales.numel() * (SCALE_BITS + (0 if middle else blocks.bits))


def _gguf_bits(file: Path, model: Any) -> float:
    return sum(8.0 * tensor.blocks.numel() for _, tensor in stored_tensors(file, model) if len(tensor.shape) > 1)


def _fitted(weight: Tensor, importance: Tensor | None, block: int = BLOCK) -> tuple[Tensor, float]:
    found = fit_blocks(weight, 4, importance, block=block)
    return found.floats(), _bits(found)


def _weighed(importance: Mapping[str, Tensor], block: int) -> Choice:
    return lambda name, weight: _fitted(weight, importance[name], block)


def _importance(folder: Path) -> dict[str, Tensor]:
    """Mean squares of the inputs [in] of every linear layer, by the model's names, on the text that exports use."""
    return {name: rows.float().square().mean(0) for name, rows in Calibration(folder).inputs.items()}


def _awq(folder: Path) -> Choice:
    """AWQ (Lin et al. 2023, arXiv:2306.00978): columns are scaled by a power of how large their inputs are, which the
    layer before would have to undo; the power is searched for each layer.
    """
    inputs = Calibration(folder).inputs

    def choose(name: str, weight: Tensor) -> tuple[Tensor, float]:
        rows = inputs[name].float()
        moments = rows.t() @ rows / len(rows)
        sizes = moments.diagonal().sqrt()
        sizes = (sizes / sizes.mean()).clamp(min=1e-4)
        tried = []
        for power in AWQ_POWERS:
            scales = sizes**power
            floats, bits = _fitted(weight * scales, None)
            error = floats / scales - weight
            tried.append((float(((error @ moments) * error).sum()), error + weight, bits))
        _, floats, bits = min(tried, key=lambda each: each[0])
        return floats, bits

    return choose


def _rounded(weight: Tensor, *, symmetric: bool) -> tuple[Tensor, float]:
    groups = weight.view(weight.shape[0], -1, BLOCK)
    if symmetric:
        scale = groups.abs().amax(-1, keepdim=True) / 7
        return ((groups / scale).round().clamp(-8, 7) * scale).flatten(1), weight.numel() * (4 + SCALE_BITS / BLOCK)
    low, high = groups.amin(-1, keepdim=True).clamp(max=0), groups.amax(-1, keepdim=True).clamp(min=0)
    scale = (high - low) / 15
    zero = (-low / scale).round()
    values = ((groups / scale + zero).round().clamp(0, 15) - zero) * scale
    return values.flatten(1), weight.numel() * (4 + (SCALE_BITS + 4) / BLOCK)


def _hqq(weight: Tensor) -> tuple[Tensor, float]:
    """ONNX Runtime's own, whose zeros MatMulNBits takes as floats."""
    solver = HQQWeightOnlyQuantizer(HQQWeightOnlyQuantConfig(block_size=BLOCK, bits=4, axis=1))
    codes, scale, zero = solver.quantize_internal(weight, bits=4, group_size=BLOCK)
    groups = codes.view(weight.shape[0], -1, BLOCK).float()
    values = (groups - zero.unsqueeze(-1)) * scale.unsqueeze(-1)
    return values.flatten(1), weight.numel() * (4 + 2 * SCALE_BITS / BLOCK)


def _carried(base: Base, kind: str, model: Any) -> Choice:
    """GGUF blocks as MatMulNBits takes them: the same codes and scales.  Zeros of Q4_1 are no whole numbers there."""
    stored = dict(stored_tensors(base_gguf(base, kind), model))

    def choose(name: str, _: Tensor) -> tuple[Tensor, float]:
        found = _as_blocks(stored[f"{name}.weight"])
        if not found.zeros.ne(found.zeros.flatten()[0]).any():
            assert torch.equal(found.floats(), stored[f"{name}.weight"].floats(torch.float32))
        return found.floats(), _bits(found)

    return choose


def _as_blocks(stored: StoredTensor) -> Blocks:
    layout = LAYOUTS[stored.type_name]
    raw = stored.blocks.reshape(-1, layout.size)
    wide = layout.planes[0][0] == 8
    codes = layout.code(raw) ^ (128 if wide else 0)
    scale, offset = layout.scales(torch.cat([raw[:, start:end] for start, end in layout.scale_bytes], 1))
    zero = torch.full_like(scale, 128 if wide else layout.bias)
    if offset is not None:
        zero = (-offset / scale).nan_to_num().round().clamp(0, 15)
    rows = stored.shape[0]
    return Blocks(codes.view(rows, -1), scale.view(rows, -1), zero.to(torch.uint8).view(rows, -1), 8 if wide else 4)


def _built(base: Base, algorithm: str) -> Iterator[tuple[str, Blocks]]:
    """What GenAI's model builder makes of the base by itself, by the names of its layers."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-m", str(base.folder), "-i"]
        command += [str(base.folder), "-o", f"{scratch}/out", "-p", "int4", "-e", "cpu", "-c", f"{scratch}/cache"]
        command += ["--extra_options", f"algo_config={algorithm}", f"block_size={BLOCK}"]
        subprocess.run(command, check=True, capture_output=True)
        for node in ir.load(Path(scratch, "out", "model.onnx")).graph:
            if node.op_type == "MatMulNBits":
                inputs: list[Any] = list(node.inputs)
                codes, scales, *zeros = (
                    torch.from_numpy(each.const_value.numpy().copy()) for each in inputs[1:] if each is not None
                )
                bits = node.attributes["bits"].as_int()
                blocks = Blocks.unpacked(codes, scales, zeros[0] if zeros else None, bits)
                yield inputs[1].name.partition(".MatMul")[0], blocks


if __name__ == "__main__":
    main()
