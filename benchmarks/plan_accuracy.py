"""What `edgekit plan` says of files and memory, against the files that export makes and the peaks of real runs.

    python benchmarks/plan_accuracy.py

Three bases: the demo base, a Qwen3 with rows of 640, which K-quants don't divide, and a Gemma 3 with a vocabulary of
131,072 tokens; the last two have random weights.  Memory is the process's peak of resident memory (VmHWM) while it
answers a prompt of about 600 tokens with the default context, against what the plan needs and what may be dropped.
For ONNX the files of the demo base, the Qwen3 and an LFM2 of random weights are compared.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    Lfm2Config,
    Lfm2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from edgekit.bases.resolve import resolve_base
from edgekit.bases.weights import Weights
from edgekit.targets.devices import device_profile
from edgekit.targets.plan import make_plan
from edgekit.targets.subject import subject_of_base
from edgekit_devices.fit import MIB
from edgekit_exporters.base import Base
from edgekit_exporters.bundle import BundlePlan, write_bundle
from edgekit_exporters.gguf.base import Recipe, gguf_from_folder
from edgekit_exporters.onnx.base import base_onnx
from edgekit_runtime.formats.onnx_base import DATA_FILE, MODEL_FILE, VOCABULARY_FILE

DEMO = "smollm2-135m"
SHAPE = {
    "hidden_size": 640,
    "num_hidden_layers": 12,
    "max_position_embeddings": 32_768,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "tie_word_embeddings": True,
}
QWEN3 = Qwen3Config(
    **SHAPE, vocab_size=49_152, intermediate_size=1792, num_attention_heads=10, num_key_value_heads=2, head_dim=128
)
GEMMA3 = Gemma3TextConfig(
    **SHAPE, vocab_size=131_072, intermediate_size=2048, num_attention_heads=4, num_key_value_heads=1, head_dim=256
)
LFM2 = Lfm2Config(
    **SHAPE,
    vocab_size=49_152,
    intermediate_size=1792,
    num_attention_heads=10,
    num_key_value_heads=2,
    layer_types=["conv", "conv", "full_attention"] * 4,
)
LOADED = (MODEL_FILE, DATA_FILE, VOCABULARY_FILE)  # for one sequence
TYPES = ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "IQ4_NL", "Q3_K_M")
ONNX_TYPES = ("fp32", "int8", "int4")
RUN_TYPES = ("F16", "Q8_0", "Q5_K_M", "Q4_0")
RUN = """
import sys
from edgekit_runtime import Runtime, machine
with Runtime(sys.argv[1]) as runtime:
    runtime.generate(prompt="the cat sat " * 200, max_tokens=8)
    print(machine.peak_rss_mb())
"""


def main() -> None:
    """Print the table."""
    torch.manual_seed(0)
    print("| Base | Type | File said, MiB | made | error | Memory said, MiB | peak | error | of it droppable |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        demo = resolve_base(DEMO)
        qwen3 = _random(Qwen3ForCausalLM(QWEN3), demo, folder / "qwen3-640")
        gemma3 = _random(Gemma3ForCausalLM(GEMMA3), demo, folder / "gemma3-640")
        for base in (demo, qwen3, gemma3):
            _compare(base, folder)
        lfm2 = _random(Lfm2ForCausalLM(LFM2), demo, folder / "lfm2-640")
        for base in (demo, qwen3, lfm2):
            _compare_onnx(base)


def _random(model: Any, demo: Base, folder: Path) -> Base:
    """A Hugging Face folder with the demo's tokenizer; tokens are added where the model has more."""
    model.to(torch.bfloat16).save_pretrained(folder)
    for path in demo.folder.iterdir():
        if path.name.startswith(("tokenizer", "special_tokens", "chat_template")):
            shutil.copy(path, folder)
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    words = tokenizer["model"]["vocab"]
    words |= {f"Ġadded{number}": number for number in range(max(words.values()) + 1, model.config.vocab_size)}
    path.write_text(json.dumps(tokenizer))
    return Base(folder.name, folder.name, folder)


def _compare(base: Base, scratch: Path) -> None:
    full = base.gguf
    if full is None:
        full = scratch / f"{base.name}.gguf"
        gguf_from_folder(base.folder, full, "F32")
    profile = dataclasses.replace(device_profile("x86-64-avx2"), features=_features())
    for name in TYPES:
        file = scratch / f"{base.name}-{name}.gguf"
        Recipe(name).quantize(full, file)
        planned = make_plan(profile, subject_of_base(base, Weights("gguf", name)))
        said, made = planned.plan.model.file_bytes / MIB, file.stat().st_size / MIB
        memory = _memory(base, file, scratch, planned.plan.memory) if name in RUN_TYPES else " | | |"
        print(f"| {base.name} | {name} | {said:.1f} | {made:.1f} | {said / made - 1:+.2%} | {memory} |", flush=True)
        file.unlink()


def _compare_onnx(base: Base) -> None:
    for name in ONNX_TYPES:
        said = subject_of_base(base, Weights("onnx", name)).model.file_bytes / MIB
        made = sum((base_onnx(base, name) / file).stat().st_size for file in LOADED) / MIB
        print(f"| {base.name} | {name} | {said:.1f} | {made:.1f} | {said / made - 1:+.2%} | | | | |", flush=True)


def _memory(base: Base, file: Path, scratch: Path, planned: Any) -> str:
    bundle = scratch / "bundle"
    write_bundle(BundlePlan(base.name, "text", base, file, [], [], None, "any", "1"), bundle)
    done = subprocess.run([sys.executable, "-c", RUN, bundle], capture_output=True, text=True, check=True)
    said, made = planned.needed + planned.droppable, float(done.stdout)
    return f"{said:.0f} | {made:.0f} | {said / made - 1:+.1%} | {planned.droppable:.0f}"


def _features() -> tuple[str, ...]:
    """Of this machine, as far as they matter; with AMX the engine reorders nothing."""
    from edgekit_runtime import machine

    flags = machine.describe()["flags"]
    assert psutil.LINUX, "peaks of memory are read from /proc"
    return tuple(flag for flag in ("avx2", "asimddp") if flag in flags)


if __name__ == "__main__":
    main()
