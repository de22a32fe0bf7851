"""Does an adapter answer on the device as it did in training?  Training precision x quantisation it runs on.

Trains the adapter of `init --template inspection-numeric` at each precision and seed, exports it over each quantisation
of the base, and asks the device runtime the held-out rows.  Each cell is kept in the work folder, so that an
interrupted run goes on where it stopped.

    make fidelity                      # all of it: about two and a half hours on 2 cores
    python benchmarks/fidelity.py --rows 20 --steps 10 --seeds 0 --work /tmp/try
    python benchmarks/fidelity.py --seeds 0 --trained "onnx int4" "gguf Q4_0" --run-on "onnx int4" Q4_0
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.bases.resolve import resolve_base
from edgekit.data import Row, load_rows
from edgekit.evaluation.artifact import Artifact
from edgekit.evaluation.evaluate import answer_limit, evaluate, row_encoder
from edgekit.evaluation.scoring import bootstrap_interval, score
from edgekit.examples.init import init_project
from edgekit.project import Adapter, Project, load_project
from edgekit.training.run import train
from edgekit_exporters.bundle import BundlePlan, write_bundle
from edgekit_exporters.gguf.adapter import AdapterSource
from edgekit_exporters.gguf.base import base_gguf
from edgekit_exporters.onnx.base import base_onnx

NAME = "inspection"
# Heading -> (base_precision, export.quantize while training).
TRAINED = {
    "nf4": ("nf4", None),
    "fp32": ("fp32", None),
    "gguf Q4_0": ("gguf", "Q4_0"),
    "gguf Q4_K_M": ("gguf", "Q4_K_M"),
    "onnx int4": ("onnx-int4", None),
}
RUN_ON = ("F16", "Q8_0", "Q4_K_M", "Q4_0", "onnx int4")
TORCH = "torch"

log = logging.getLogger("fidelity")


@dataclass(frozen=True)
class Cell:
    """Scores of one adapter on one engine, row by row, 0-1."""

    fields: Sequence[float]
    exact: Sequence[float]


def main() -> None:
    """Fill the work folder's cells and print the tables."""
    options = _options()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M")
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    cells: dict[tuple[str, str, int], Cell] = {}
    for seed in options.seeds:  # a whole table of the first seed comes first
        for label in options.trained:
            project = _project(work, label, seed, options.steps)
            rows = load_rows(project.data_for(NAME).eval)[: options.rows]
            for engine in (TORCH, *options.run_on):
                note = work / "cells" / f"{label}.{seed}.{options.steps}.{options.rows}.{engine}.json".replace(" ", "-")
                cells[label, engine, seed] = _kept(note, lambda p=project, r=rows, e=engine: _measure(p, r, e))
                figure = 100 * statistics.fmean(cells[label, engine, seed].fields)
                log.info("%s seed %d on %s: %.1f", label, seed, engine, figure)
    print(_report(cells, options))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("fidelity"), help="folder for adapters and cells")
    parser.add_argument("--rows", type=int, default=200, help="held-out rows (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=50, help="training steps (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--trained", nargs="+", choices=TRAINED, default=list(TRAINED), help="rows of the table")
    parser.add_argument("--run-on", nargs="+", choices=RUN_ON, default=list(RUN_ON), help="columns of the table")
    return parser.parse_args()


def _project(work: Path, label: str, seed: int, steps: int) -> Project:
    """The example project with one adapter, trained as ``label`` says."""
    folder = work / "project"
    if not folder.exists():
        init_project(folder, "inspection-numeric")
    plain = load_project(folder)
    precision, quantization = TRAINED[label]
    adapter = replace(plain.adapters[NAME], base_precision=precision, seed=seed, max_steps=steps)
    trained = work / f"{label}-{seed}-{steps}".replace(" ", "-")
    project = replace(
        plain, folder=trained, adapters={NAME: adapter}, export=replace(plain.export, quantize=quantization)
    )
    if not (trained / "adapters" / NAME / "adapter_config.json").exists():
        trained.mkdir(exist_ok=True)
        train(project, NAME, resume=any((trained / ".edgekit" / "train" / NAME).glob("checkpoint-*")))
    return project


def _kept(note: Path, make: Callable[[], Cell]) -> Cell:
    if note.exists():
        return Cell(**json.loads(note.read_text()))
    cell = make()
    note.parent.mkdir(exist_ok=True)
    note.write_text(json.dumps(vars(cell)))
    return cell


def _measure(project: Project, rows: Sequence[Row], engine: str) -> Cell:
    if engine == TORCH:
        result = evaluate(project, NAME, limit=len(rows), with_base=False)
        return _cell(rows, [sample["answer"] for sample in result.samples])
    bundle = _bundle(project, engine)
    adapter = project.adapters[NAME]
    limit = answer_limit(rows, adapter, row_encoder(project, adapter, resolve_base(project.base)))
    with Artifact(bundle) as artifact:
        return _cell(rows, artifact.answers(rows, adapter.system, limit, adapter=NAME))


def _bundle(project: Project, quantization: str) -> Path:
    base = resolve_base(project.base)
    adapter: Adapter = project.adapters[NAME]
    onnx = quantization.removeprefix("onnx ") if quantization.startswith("onnx ") else None
    plan = BundlePlan(
        name="fidelity",
        task="text",
        base=base,
        base_file=base_onnx(base, onnx) if onnx else base_gguf(base, quantization),
        merged=[],
        adapters=[AdapterSource(NAME, "1", project.folder / "adapters" / NAME, system=adapter.system)],
        default_adapter=None,
        isa="any",
        version="1",
    )
    output = project.folder / "bundle"
    write_bundle(plan, output)
    return output


def _cell(rows: Sequence[Row], answers: Sequence[str]) -> Cell:
    references = [row.answer for row in rows]
    exact = [score([want], [answer]).exact for want, answer in zip(references, answers, strict=True)]
    return Cell(score(references, answers).per_row, exact)


def _report(cells: dict[tuple[str, str, int], Cell], options: argparse.Namespace) -> str:
    lines, engines = [], (TORCH, *options.run_on)
    for title, key in (
        ("Answer fields that are right, in %", "fields"),
        ("Answers all right, in %", "exact"),
    ):
        lines += [f"\n{title} (95 % interval over {len(options.seeds)} seeds x {options.rows} rows)\n"]
        lines += [f"| trained on | {' | '.join(engines)} |", "|---" * (1 + len(engines)) + "|"]
        for label in options.trained:
            row = (_figure([cells[label, engine, seed] for seed in options.seeds], key) for engine in engines)
            lines.append(f"| {label} | {' | '.join(row)} |")
    lines.append("\nEach seed alone, answer fields:\n")
    for seed in options.seeds:
        for label in options.trained:
            means = (f"{100 * statistics.fmean(cells[label, engine, seed].fields):.1f}" for engine in engines)
            lines.append(f"    seed {seed}  {label:12} " + "  ".join(means))
    return "\n".join(lines)


def _figure(cells: Iterable[Cell], key: str) -> str:
    values: list[float] = [value for cell in cells for value in vars(cell)[key]]
    low, high = bootstrap_interval(values)
    return f"{100 * math.fsum(values) / len(values):.1f} ({100 * low:.1f}–{100 * high:.1f})"


if __name__ == "__main__":
    main()
