"""What an adapter costs in decode and prefill, by rank, by the matrices it changes, and by the type of its numbers.

Random adapters on a real base, on the device's engine: base and adapters take turns in one process.  Figures are shares
of the base's speed, in CPU time of the one thread that computes (in wall time with more threads).  Then the prices of
``edgekit_devices.adapter_cost`` are fitted on them, and it is told how well they fit.

    python benchmarks/adapter_cost.py                          # smollm2-135m at Q4_0
    python benchmarks/adapter_cost.py --quantize Q8_0
    python benchmarks/adapter_cost.py --only types --adapter adapters/inspection --rows data/eval.jsonl
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import nnls
from scipy.special import log_softmax

from edgekit.bases.resolve import resolve_base
from edgekit.data import load_rows
from edgekit.encoding.encoder import Encoder
from edgekit.targets.adapter_cost import adaptable_matrices
from edgekit_devices.adapter_cost import FILLED_UP, Matrix, Shape, adapter_work
from edgekit_exporters.base import Base
from edgekit_exporters.conversion.tensor_map import tensor_map
from edgekit_exporters.gguf.base import base_gguf
from edgekit_exporters.gguf.lora import LoraPairs, lora_pairs, write_lora
from edgekit_exporters.peft.canonical import canonicalize
from edgekit_runtime.bench.pairs import ROUNDS, AgainstBase, against_base
from edgekit_runtime.bench.report import aligned
from edgekit_runtime.engines import BARE, Engine, forced_logits
from edgekit_runtime.engines.opening import open_engine
from edgekit_runtime.formats.base_files import BaseFiles
from edgekit_runtime.formats.gguf import read_gguf

BASE = "smollm2-135m"
CONTEXT = 512
RANKS = (4, 8, 16, 32, 64)
TYPES = ("F32", "F16", "Q8_0")
QUERY_VALUE, ATTENTION = ("attn_q", "attn_v"), ("attn_q", "attn_k", "attn_v", "attn_output")
MLP = ("ffn_gate", "ffn_up", "ffn_down")
KL_ROWS = 12


@dataclass(frozen=True)
class Case:
    """One adapter: a label, and what it is made of."""

    label: str
    matrices: Sequence[Matrix]
    rank: int
    kind: str = "F16"


def main() -> None:
    """Measure and print tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=resolve_base, default=BASE)
    parser.add_argument("--quantize", default="Q4_0")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument(
        "--only", nargs="+", choices=("ranks", "targets", "types"), default=["ranks", "targets", "types"]
    )
    parser.add_argument("--adapter", type=Path, help="PEFT folder whose numbers the types are compared with")
    parser.add_argument("--rows", type=Path, help="rows for that, the first of them are used")
    options = parser.parse_args()
    file = base_gguf(options.base, options.quantize)
    matrices = adaptable_matrices(read_gguf(file))
    cases = [case for only in options.only for case in _cases(only, matrices)]
    files = BaseFiles("llama.cpp", file)
    engine = open_engine(files, context=CONTEXT, threads=options.threads)
    print(f"{options.base.name} at {options.quantize}, {options.threads} thread(s), {options.rounds} rounds\n")
    table = [["adapter", "matrices", "rank", "type", "file MB", "decode", "prefill", "us a matrix"]]
    architecture = str(read_gguf(file).metadata["general.architecture"])
    with tempfile.TemporaryDirectory() as scratch:
        paths = [Path(scratch, f"{number}.gguf") for number in range(len(cases))]
        for case, path in zip(cases, paths, strict=True):
            _write_random(case, path, architecture)
        measured = list(zip(cases, _measure(engine, paths, options.rounds), strict=True))
        table += [_row(case, found, path.stat().st_size) for (case, found), path in zip(measured, paths, strict=True)]
        print("\n".join(aligned(table)), flush=True)
        if len(cases) > len(RANKS):
            print("\n" + _fitted([each for each in measured if each[0].kind == "F16"]))
        if options.adapter is not None:
            print("\n" + "\n".join(aligned(_types(options, engine, Path(scratch)))))
    engine.close()


def _cases(which: str, matrices: Sequence[Matrix]) -> Iterator[Case]:
    layers = 1 + max(each.layer for each in matrices)
    if which == "ranks":
        yield from (Case("all", matrices, rank) for rank in RANKS)
        yield from (Case("q, v", _kinds(matrices, QUERY_VALUE), rank) for rank in RANKS)
    elif which == "targets":
        for label, kinds in (("attention", ATTENTION), ("mlp", MLP), *((kind, (kind,)) for kind in ATTENTION + MLP)):
            yield Case(label, _kinds(matrices, kinds), 16)
        half = [each for each in matrices if each.layer >= layers // 2]
        yield Case("all, half of the layers", half, 16)
        yield Case("all, a quarter of them", [each for each in half if each.layer >= 3 * layers // 4], 16)
    else:
        yield from (Case("all", matrices, rank, kind) for rank in (16, 32) for kind in TYPES)


def _kinds(matrices: Sequence[Matrix], kinds: Sequence[str]) -> list[Matrix]:
    return [each for each in matrices if each.kind in kinds]


def _write_random(case: Case, path: Path, architecture: str) -> None:
    numbers = torch.Generator().manual_seed(0)

    def pair(each: Matrix) -> tuple[torch.Tensor, torch.Tensor]:
        a = torch.randn(case.rank, each.inputs, generator=numbers) / each.inputs**0.5
        return a, 0.01 * torch.randn(each.outputs, case.rank, generator=numbers)

    pairs = {each.tensor: pair(each) for each in case.matrices}
    write_lora(LoraPairs(architecture, case.rank, pairs), path, case.kind)


def _measure(engine: Engine, paths: Sequence[Path], rounds: int) -> list[AgainstBase]:
    for path in paths:
        engine.load_adapter(path.stem, path)
    try:
        return against_base(engine, [((path.stem, 1.0),) for path in paths], rounds=rounds)
    finally:
        for path in paths:
            engine.unload_adapter(path.stem)


def _extra_s(found: AgainstBase) -> float:
    """Seconds that a token takes more."""
    return (1 / found.decode - 1) * found.base_s


def _row(case: Case, found: AgainstBase, size: int) -> list[str]:
    return [
        *(case.label, str(len(case.matrices)), str(case.rank), case.kind, f"{size / 1e6:.2f}"),
        *(f"{found.decode:.3f}", f"{found.prefill:.3f}", f"{1e6 * _extra_s(found) / len(case.matrices):.1f}"),
    ]


def _fitted(measured: Sequence[tuple[Case, AgainstBase]]) -> str:
    """The prices of a graph node and of a weight that explain the figures, and how well they do.

    The base's own time is fitted too: it is one figure among many, with the same noise.
    """
    works = [adapter_work(Shape(tuple(case.matrices), case.rank), (FILLED_UP,)) for case, _ in measured]
    steps = np.array([measured[0][1].base_s, *(found.base_s / found.decode for _, found in measured)])
    features = np.array([(1, 0, 0), *((1, work.nodes, work.weights) for work in works)], dtype=float)
    scale = features.max(0)
    prices = nnls(features / scale, steps)[0] / scale
    said = features @ prices
    off = np.abs(said[0] / said - prices[0] / steps)
    return (
        f"prices: {1e9 * prices[1]:.3g} ns a node, {1e9 * prices[2]:.3g} ns a weight; the base takes"
        f" {1e3 * prices[0]:.2f} ms a token\n"
        f"shares of the base's speed are right within {np.median(off):.3f} (median), {off.max():.3f} (worst)"
    )


def _types(options: argparse.Namespace, engine: Engine, scratch: Path) -> list[list[str]]:
    """A trained adapter at each type: size, speed, and KL against F32."""
    base: Base = options.base
    pairs = lora_pairs(canonicalize(options.adapter, base).layers, tensor_map(base.folder))
    rows = load_rows(options.rows)[:KL_ROWS]
    encoder = Encoder(base.folder)
    texts = [(encoder.prompt_ids(row, None), encoder.answer_ids(row, None)) for row in rows]
    said: dict[str, list[np.ndarray]] = {}
    table = [["type", "file MB", "decode of base", "prefill of base", "KL against F32, nats a token"]]
    paths = [scratch / f"{kind}.gguf" for kind in TYPES]
    for kind, path in zip(TYPES, paths, strict=True):
        write_lora(pairs, path, kind)
        engine.load_adapter(kind, path)
        said[kind] = []
        for prompt, answer in texts:
            logits = forced_logits(engine, [*prompt, *answer], ((kind, 1.0),))
            said[kind].append(log_softmax(logits[len(prompt) - 1 : -1].astype(np.float64), axis=-1))
        engine.select(BARE)
        engine.unload_adapter(kind)
    for kind, path, found in zip(TYPES, paths, _measure(engine, paths, options.rounds), strict=True):
        kl = np.concatenate(
            [(np.exp(one) * (one - other)).sum(-1) for one, other in zip(said["F32"], said[kind], strict=True)]
        )
        figures = (
            f"{path.stat().st_size / 1e6:.2f}",
            f"{found.decode:.3f}",
            f"{found.prefill:.3f}",
            f"{kl.mean():.2e}",
        )
        table.append([kind, *figures])
    return table


if __name__ == "__main__":
    main()
