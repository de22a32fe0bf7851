"""ONNX bundles in figures: what adapters, switching, exporting and mixing cost, and one adapter on both engines.

    python benchmarks/onnx_engine.py ADAPTER      # a PEFT folder for smollm2-135m, or for --base
    python benchmarks/onnx_engine.py ADAPTER --only decode switch levels
    python benchmarks/onnx_engine.py ADAPTER --only table --types Q4_0 int4

Ratios are of pairs taken in turn in one run, medians.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from safetensors.torch import load_file, save_file

from edgekit.bases.resolve import resolve_base
from edgekit.bases.torch_model import load_dense
from edgekit.data import load_rows
from edgekit.encoding.encoder import Encoder
from edgekit.examples.init import init_project
from edgekit.project import load_project
from edgekit_exporters.base import Base
from edgekit_exporters.bundle import BundlePlan, write_bundle
from edgekit_exporters.cache import cache_folder
from edgekit_exporters.gguf.adapter import AdapterSource
from edgekit_exporters.gguf.base import base_gguf
from edgekit_exporters.hf.float_model import load_float
from edgekit_exporters.onnx.base import PRECISIONS, base_onnx
from edgekit_exporters.peft.files import WEIGHTS_FILE
from edgekit_exporters.peft.intake import attach, take_in
from edgekit_exporters.peft.settings import CONFIG_FILE
from edgekit_runtime import Runtime
from edgekit_runtime.engines import BARE, Engine, Part, Stack, forced_logits
from edgekit_runtime.engines.opening import open_engine
from edgekit_runtime.formats.bundle import open_bundle
from edgekit_runtime.formats.onnx_base import MODEL_FILE
from edgekit_runtime.runtime.generation import Stream

BASE = "smollm2-135m"
CONTEXT = 512
PROMPT, STEPS = 64, 48
REQUESTS, ANSWER = 8, 48
KL_ROWS = 12
LEVELS = (0, 1, 4)  # MatMulNBits' accuracy_level: default, float32, int8
MAKE_BASE = """
from edgekit.bases.resolve import resolve_base
from edgekit_exporters.onnx.base import base_onnx
"""
Figures = dict[str, float]


def main() -> None:
    """Print a line a figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("adapter", type=Path, help="PEFT folder")
    parser.add_argument("--base", type=resolve_base, default=BASE, help="what edgekit.yaml has as base")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--types", nargs="+", default=["Q4_0", "Q4_K_M", "Q8_0", "int4", "int8", "fp16"])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.only:
            folder = Path(scratch, name)
            folder.mkdir()
            for key, value in SECTIONS[name](options, folder).items():
                print(f"{name:8} {key:58} {value:10.3f}", flush=True)


def decode(options: argparse.Namespace, folder: Path) -> Figures:
    """Decoding under an unmerged adapter against the bare base: the adapter as it is, and less of it."""
    less = {
        "as it is": options.adapter,
        "q, v and down alone": _part(options.adapter, ("q_proj", "v_proj", "down_proj"), folder / "qvd"),
        "q and v alone": _part(options.adapter, ("q_proj", "v_proj"), folder / "qv"),
    }
    found: Figures = {}
    for kind in ("int4", "Q4_0"):
        bundle = _bundle(options.base, kind, less, folder / kind)
        with Runtime(bundle, threads=options.threads, context=CONTEXT) as runtime:
            for label, name in zip(less, _names(less), strict=True):
                runtime.engine.load_adapter(name, runtime.adapter_path(name))
                stack: Stack = ((name, 1.0),)
                pairs = [
                    (_decode_ms(runtime.engine, stack), _decode_ms(runtime.engine, BARE))
                    for _ in range(options.repeats + 1)
                ][1:]
                found[f"{kind}: decode with adapter / base, {label}"] = statistics.median(b / a for a, b in pairs)
            found[f"{kind}: decode of the base, tokens/s"] = 1e3 / statistics.median(b for _, b in pairs)
    return found


def switch(options: argparse.Namespace, folder: Path) -> Figures:
    """To each of 8 loaded adapters in turn: the call, and what the step after it takes longer than the next one."""
    sources = {f"a{number}": options.adapter for number in range(REQUESTS)}
    found: Figures = {}
    for kind in ("int4", "Q4_0"):
        bundle = _bundle(options.base, kind, sources, folder / kind)
        with Runtime(bundle, threads=options.threads, context=CONTEXT) as runtime:
            engine = runtime.engine
            loads, calls, first, again = [], [], [], []
            for name in _names(sources):
                start = time.perf_counter()
                engine.load_adapter(name, runtime.adapter_path(name))
                loads.append(_since(start))
            engine.decode([Part(0, 0, range(PROMPT))])
            for number in range(2 * options.repeats * REQUESTS):
                start = time.perf_counter()
                engine.select(((f"n{number % REQUESTS}", 1.0),))
                calls.append(_since(start))
                steps = [_step_ms(engine, PROMPT) for _ in range(2)]
                (first if number < REQUESTS else again).append(steps[0] - steps[1])
            found[f"{kind}: cold load, ms"] = statistics.median(loads)
            found[f"{kind}: the call, ms"] = statistics.median(calls)
            found[f"{kind}: first step of an adapter, ms more than its second"] = statistics.median(first)
            found[f"{kind}: likewise each time it is switched to later, ms"] = statistics.median(again)
    return found


def export(options: argparse.Namespace, folder: Path) -> Figures:
    """The int4 base from nothing, against GenAI's model builder making one of its own."""
    base: Base = options.base
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-m", str(base.folder), "-i"]
    command += [str(base.folder), "-o", str(folder / "built"), "-p", "int4", "-e", "cpu", "-c", str(folder / "hub")]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    builder = _since(start) / 1e3
    shutil.copytree(cache_folder("llama.cpp"), folder / "llama.cpp")  # what converts the tokeniser is fetched once
    code = f"{MAKE_BASE}base_onnx(resolve_base({str(base.folder)!r}), 'int4')"
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, env=os.environ | {"EDGEKIT_CACHE": str(folder)}
    )
    ours = _since(start) / 1e3
    return {"builder at int4, s": builder, "int4 base with an empty cache, s": ours, "ours / builder": ours / builder}


def levels(options: argparse.Namespace, folder: Path) -> Figures:
    """MatMulNBits' accuracy levels: speed, and KL against torch on the same blocks."""
    found: Figures = {}
    bundle = _bundle(options.base, "int4", {"as it is": options.adapter}, folder / "bundle")
    engines = {}
    for level in LEVELS:
        copy = folder / f"level-{level}"
        shutil.copytree(bundle, copy, ignore=shutil.ignore_patterns("model.mixed.onnx"))
        model = ir.load(copy / "base" / MODEL_FILE)
        for node in model.graph:
            if node.op_type == "MatMulNBits":
                node.attributes["accuracy_level"] = ir.AttrInt64("accuracy_level", level)
        ir.save(model, copy / "base" / MODEL_FILE)
        engines[level] = _engine(copy, options.threads)
    base: Base = options.base
    dense = load_dense(base, base_onnx(base, "int4"), torch.float32)
    tokens = list(range(1000, 1064))
    with torch.inference_mode():
        expected = torch.log_softmax(dense(torch.tensor([tokens])).logits[0], -1)
    times: dict[int, list[tuple[float, float]]] = {level: [] for level in LEVELS}
    for _ in range(options.repeats + 1):
        for level, engine in engines.items():
            start = time.perf_counter()
            engine.decode([Part(0, 0, range(256))])
            times[level].append((_since(start), _decode_ms(engine, BARE)))
    for level, engine in engines.items():
        got = torch.log_softmax(torch.from_numpy(forced_logits(engine, tokens)), -1)
        prefill, step = (statistics.median(each) for each in zip(*times[level][1:], strict=True))
        found[f"level {level}: prefill of 256, tokens/s"] = 256e3 / prefill
        found[f"level {level}: decode, tokens/s"] = 1e3 / step
        found[f"level {level}: KL of torch on these blocks against it"] = _kl(expected, got)
        engine.close()
    return found


def mixed(options: argparse.Namespace, folder: Path) -> Figures:
    """8 requests over 4 and over 8 adapters: in turn, at once adapter by adapter as served, at once in one step."""
    found: Figures = {}
    sources = {f"a{number}": options.adapter for number in range(REQUESTS)}
    bundle = _bundle(options.base, "int4", sources, folder / "bundle")
    single = Runtime(bundle, threads=options.threads, context=CONTEXT)
    shared = Runtime(bundle, threads=options.threads, context=CONTEXT, parallel=REQUESTS)
    with single, shared:
        engine: Any = shared.engine
        probed = engine.mixes
        for count in (4, 8):
            names = [f"n{number % count}" for number in range(REQUESTS)]
            alone = [_ask(shared, [name], start=number)[0] for number, name in enumerate(names)]
            times: dict[str, list[float]] = {}
            same: dict[str, int] = {}
            for number in range(1 + max(1, options.repeats // 3)):
                for way, mixes in (("in turn", None), ("grouped", False), ("one step", True)):
                    runtime = single if mixes is None else shared
                    engine.mixes = lambda _, mixes=mixes: mixes
                    runtime.engine.holder = None  # no KV cache of the run before
                    start = time.perf_counter()
                    if mixes is None:
                        for each, name in enumerate(names):
                            _ask(single, [name], start=each)
                    else:
                        texts = _ask(shared, names)
                        same[way] = sum(a == b for a, b in zip(alone, texts, strict=True))
                    if number:
                        times.setdefault(way, []).append(_since(start))
            engine.mixes = probed
            label = f"{REQUESTS} over {count} adapters"
            for way, other in (("grouped", "in turn"), ("one step", "in turn"), ("one step", "grouped")):
                ratios = [a / b for a, b in zip(times[other], times[way], strict=True)]
                found[f"{label}: throughput, {way} / {other}"] = statistics.median(ratios)
            for way, count_same in same.items():
                found[f"{label}, {way}: answers as alone, of {REQUESTS}"] = count_same
            stacks: list[Stack] = [((shared.manifest.adapter(name).digest, 1.0),) for name in names[:count]]
            found[f"{label}: one step is exact to the bit here (1) or not (0)"] = float(probed(stacks))
    return found


def table(options: argparse.Namespace, folder: Path) -> Figures:
    """One adapter on every type of both engines, each in a process of its own."""
    found: Figures = {}
    base: Base = options.base
    asked = list(_forced(base, options.adapter, folder))
    for kind in options.types:
        bundle = _bundle(options.base, kind, {"as it is": options.adapter}, folder / kind)
        command = [sys.executable, "-m", "edgekit_runtime", "bench", str(bundle), "--json", "--repeats", "2"]
        command += ["--threads", str(options.threads), "--decode-tokens", "32"]
        document = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        result = document["results"][1]
        found[f"{kind}: base, MB"] = document["bundle"]["base_bytes"] / 1e6
        found[f"{kind}: adapter, MB"] = result["file_bytes"] / 1e6
        found[f"{kind}: prefill, tokens/s"] = result["prefill_tps"]["median"]
        found[f"{kind}: decode, tokens/s"] = result["decode_tps"]["median"]
        found[f"{kind}: decode of the bare base, tokens/s"] = document["results"][0]["decode_tps"]["median"]
        found[f"{kind}: peak RSS, MiB"] = document["peak_rss_mb"]
        engine = _engine(bundle, options.threads)
        engine.load_adapter("n0", next((bundle / "adapters").iterdir()))
        divergence = []
        for ids, first, expected in asked:
            got = torch.log_softmax(torch.from_numpy(forced_logits(engine, ids, (("n0", 1.0),))[first:-1]), -1)
            divergence.append((expected.exp() * (expected - got)).sum(-1))
        engine.close()
        found[f"{kind}: mean KL to the float model with the adapter"] = float(torch.cat(divergence).mean())
    return found


def _forced(base: Base, adapter: Path, folder: Path) -> Iterator[tuple[list[int], int, torch.Tensor]]:
    """Token ids of held-out rows, where their answers begin, and what the float model thinks of these."""
    init_project(folder / "project", "inspection-numeric")
    project = load_project(folder / "project")
    encoder = Encoder(base.folder)
    system = project.adapters["inspection"].system
    model: Any = attach(load_float(base.folder), take_in(adapter, base)).eval()
    for row in load_rows(project.data_for("inspection").eval)[:KL_ROWS]:
        prompt = encoder.prompt_ids(row, system)
        ids = prompt + encoder.answer_ids(row, system)
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([ids])).logits[0, len(prompt) - 1 : -1]
        yield ids, len(prompt) - 1, torch.log_softmax(logits, -1)


def _bundle(base: Base, kind: str, sources: dict[str, Path], folder: Path) -> Path:
    """A bundle with an adapter for each of ``sources``, named n0, n1, …; each file has a digest of its own."""
    plan = BundlePlan(
        name="bench",
        version="1",
        task="text",
        base=base,
        base_file=base_onnx(base, kind) if kind in PRECISIONS else base_gguf(base, kind),
        merged=[],
        adapters=[AdapterSource(n, "1", each) for n, each in zip(_names(sources), sources.values(), strict=True)],
        default_adapter=None,
        isa="any",
    )
    write_bundle(plan, folder)
    return folder


def _names(sources: Sequence[str] | dict[str, Path]) -> list[str]:
    return [f"n{number}" for number in range(len(sources))]


def _part(source: Path, modules: tuple[str, ...], folder: Path) -> Path:
    """The adapter on some of its modules alone."""
    folder.mkdir()
    config = json.loads((source / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps(config | {"target_modules": list(modules)}))
    weights = load_file(source / WEIGHTS_FILE)
    save_file({name: each for name, each in weights.items() if name.split(".")[-3] in modules}, folder / WEIGHTS_FILE)
    return folder


def _engine(bundle: Path, threads: int) -> Engine:
    with open_bundle(bundle, verify=False) as opened:
        return open_engine(opened.base_files, context=CONTEXT, threads=threads)


def _decode_ms(engine: Engine, stack: Stack) -> float:
    """Milliseconds a step."""
    engine.select(stack)
    engine.forget(0)
    engine.decode([Part(0, 0, range(PROMPT))])
    start = time.perf_counter()
    for step in range(STEPS):
        engine.decode([Part(0, PROMPT + step, [7])])
    return _since(start) / STEPS


def _step_ms(engine: Engine, position: int) -> float:
    start = time.perf_counter()
    engine.decode([Part(0, position, [7])])
    engine.row(0)
    engine.forget(0, position)
    return _since(start)


def _ask(runtime: Runtime, names: Sequence[str], *, start: int = 0) -> list[str]:
    """Answers to requests that come at once."""
    streams: list[Stream] = [
        runtime.stream(f"bracket {number}, scratch 0.{number} mm", adapter=name, max_tokens=ANSWER, temperature=0.0)
        for number, name in enumerate(names, start)
    ]
    while not all(stream.ended for stream in streams):
        runtime.step()
    return ["".join(stream) for stream in streams]


def _kl(expected: torch.Tensor, got: torch.Tensor) -> float:
    return float((expected.exp() * (expected - got)).sum(-1).mean())


def _since(start: float) -> float:
    """Milliseconds."""
    return 1e3 * (time.perf_counter() - start)


SECTIONS: dict[str, Callable[[argparse.Namespace, Path], Figures]] = {
    "decode": decode,
    "switch": switch,
    "export": export,
    "levels": levels,
    "mixed": mixed,
    "table": table,
}

if __name__ == "__main__":
    main()
