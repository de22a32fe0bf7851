"""Training steps in pairs within one run: plain ones, today's, and plain transformers + PEFT on NF4.

    python benchmarks/training.py

Each way runs in a process of its own, so that its peak memory is its own, and the processes take turns step by step, so
that whoever else works on the machine disturbs all alike.  Besides wall time the table has CPU time, which that changes
least.  All ways learn the same rows in the same batches from the same start, with AdamW; without dropout the losses of
``plain`` and ``now`` have to be the same curve.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

WAYS = {
    "before": "plain transformers + PEFT on the blocks, dropout 0.05",
    "plain": "the same without dropout",
    "now": "edgekit train",
    "nf4": "plain transformers + PEFT on NF4 (bitsandbytes), dropout 0.05",
}
DROPOUT = 0.05
RATE = 1e-3


def main() -> None:
    """Measure, and print a table or JSON."""
    options = _options()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait take no CPU time
    with tempfile.TemporaryDirectory() as scratch:
        project = options.project or _demo(Path(scratch) / "demo")
        with _workers(project, options) as workers:
            facts = {name: worker.recv() for name, worker in workers.items()}
            measured: dict[str, list[dict[str, float]]] = {name: [] for name in workers}
            for number in range(options.steps):
                for name in sorted(workers, reverse=bool(number % 2)):  # whoever goes first changes
                    workers[name].send("step")
                    measured[name].append(workers[name].recv())
                figures = (
                    f"{name} {each[-1]['cpu_s']:.2f} CPU s, loss {each[-1]['loss']:.4f}"
                    for name, each in measured.items()
                )
                print(f"step {number + 1} of {options.steps}: {'; '.join(figures)}", file=sys.stderr)
            peaks = {}
            for name, worker in workers.items():
                worker.send("end")
                peaks[name] = worker.recv()
    report = _report(options, facts, measured, peaks)
    print(json.dumps(report, indent=2) if options.json else _table(report))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, help="folder with edgekit.yaml (default: the inspection example)")
    parser.add_argument("--adapter", help="its adapter (default: the first)")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="default: all")
    parser.add_argument("--steps", type=int, default=20, help="measured steps (default: %(default)s)")
    parser.add_argument("--warm", type=int, default=1, help="steps before, not measured (default: %(default)s)")
    parser.add_argument("--batch", type=int, help="rows in a step (default: the adapter's batch_size)")
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser.parse_args()


def _demo(folder: Path) -> Path:
    from edgekit.examples.init import init_project

    init_project(folder, "inspection")
    return folder


@contextmanager
def _workers(project: Path, options: argparse.Namespace) -> Iterator[dict[str, Connection]]:
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for way in options.ways:
        pipes[way], theirs = context.Pipe()
        processes.append(context.Process(target=_work, args=(way, project, options, theirs), daemon=True))
        processes[-1].start()
        theirs.close()
    try:
        yield pipes
    finally:
        for process in processes:
            process.join(10)
            process.kill()


def _work(way: str, project: Path, options: argparse.Namespace, parent: Connection) -> None:
    """One way's process: it takes a step when it is told to."""
    import torch
    import transformers

    from edgekit.bases.torch_model import fast_bfloat16
    from edgekit.encoding.encoder import IGNORED

    torch.set_num_threads(options.threads)
    model, collate, examples, adapter = _prepared(way, project, options.adapter)
    size, warm = options.batch or adapter.batch_size, options.warm
    sampler = transformers.trainer_pt_utils.LengthGroupedSampler(
        adapter.batch_size,
        lengths=[len(each["labels"]) for each in examples],
        generator=torch.Generator().manual_seed(0),
    )
    order = list(sampler)
    batches = [
        [examples[at % len(order)] for at in order[start : start + size]]
        for start in range(0, (options.steps + warm) * size, size)
    ]
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0)
    before = _peak_mb()
    narrow = fast_bfloat16()

    def step(rows: list[dict[str, list[int]]]) -> dict[str, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        batch = collate(rows)
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return {
            "wall_s": time.perf_counter() - wall,
            "cpu_s": time.process_time() - cpu,
            "loss": loss.item(),
            "tokens": sum(len(each["labels"]) for each in rows),
            "learnt": sum(label != IGNORED for each in rows for label in each["labels"]),
            "computed": batch["input_ids"].numel(),
        }

    for rows in batches[:warm]:
        step(rows)
    parent.send({"rows": len(examples), "bf16": narrow, "loaded_mb": before, "batch": size})
    for rows in batches[warm:]:
        if parent.recv() == "step":
            parent.send(step(rows))
    parent.recv()
    parent.send(_peak_mb())


def _prepared(way: str, folder: Path, name: str | None) -> tuple[Any, Any, list[dict[str, list[int]]], Any]:
    """The model with its adapter, what makes batches, the encoded rows and the adapter's settings."""
    import transformers

    from edgekit.bases.resolve import project_base
    from edgekit.bases.torch_model import load_base
    from edgekit.bases.weights import Weights, training_weights, with_blocks
    from edgekit.data import load_rows
    from edgekit.encoding.encoder import IGNORED, Encoder
    from edgekit.project import load_project
    from edgekit.training.lora import wrap
    from edgekit.training.step import quick_step

    project = load_project(folder)
    adapter = project.adapter(name or next(iter(project.adapters)))
    adapter = replace(adapter, dropout=DROPOUT if way in ("before", "nf4") else 0.0)
    base = project_base(project)
    weights = Weights("nf4", None) if way == "nf4" else training_weights(adapter, project.export, base.gguf)
    encoder = Encoder(base.folder)
    rows = load_rows(project.data_for(adapter.name).train)
    examples = [each for row in rows for each in encoder.encode(row, adapter.system, 4096)]
    transformers.set_seed(adapter.seed)
    base_model = load_base(base, weights if way == "nf4" else with_blocks(project, base, weights))
    model = wrap(base_model, adapter, weights.precision, checkpointing=False)
    model.train()
    collate: Any = transformers.DataCollatorForSeq2Seq(
        encoder.tokenizer, label_pad_token_id=IGNORED, pad_to_multiple_of=8
    )
    if way == "now":
        collate = quick_step(model, collate, examples).collator
    return model, collate, examples, adapter


def _peak_mb() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def _report(
    options: argparse.Namespace,
    facts: dict[str, dict[str, Any]],
    measured: dict[str, list[dict[str, float]]],
    peaks: dict[str, float],
) -> dict[str, Any]:
    from importlib.metadata import version

    ways = {}
    for name, steps in measured.items():
        tokens = sum(each["tokens"] for each in steps)
        ways[name] = {
            "tokens_per_s": round(statistics.median(each["tokens"] / each["wall_s"] for each in steps), 1),
            "tokens_per_cpu_s": round(statistics.median(each["tokens"] / each["cpu_s"] for each in steps), 1),
            "computed_share": round(sum(each["computed"] for each in steps) / tokens, 3),
            "peak_mb": peaks[name],
            "step_mb": round(peaks[name] - facts[name]["loaded_mb"], 1),
            "losses": [round(each["loss"], 4) for each in steps],
        }
        if "now" in measured and name != "now":
            for key in ("wall_s", "cpu_s"):
                ratios = [theirs[key] / ours[key] for theirs, ours in zip(steps, measured["now"], strict=True)]
                ways[name][f"now_faster_{key[:-2]}"] = round(statistics.median(ratios), 3)
    first = next(iter(measured.values()))
    report = {
        "threads": options.threads,
        "versions": {each: version(each) for each in ("torch", "transformers", "peft", "bitsandbytes")},
        "bf16": next(iter(facts.values()))["bf16"],
        "batch": next(iter(facts.values()))["batch"],
        "tokens_in_a_row": round(
            statistics.mean(each["tokens"] for each in first) / facts[next(iter(facts))]["batch"], 1
        ),
        "learnt_share": round(sum(each["learnt"] for each in first) / sum(each["tokens"] for each in first), 3),
        "ways": ways,
    }
    if {"plain", "now"} <= set(measured):
        pairs = zip(measured["plain"], measured["now"], strict=True)
        report["largest_difference_of_losses"] = round(max(abs(a["loss"] - b["loss"]) for a, b in pairs), 5)
    return report


def _table(report: dict[str, Any]) -> str:
    lines = [
        f"{report['threads']} threads, batch {report['batch']} rows of {report['tokens_in_a_row']} tokens, "
        f"{report['learnt_share']:.0%} of them learnt, {'bfloat16' if report['bf16'] else 'float32'}",
        ", ".join(f"{name} {version}" for name, version in report["versions"].items()),
        "",
        f"{'':8}{'tokens/s':>10}{'tokens/CPU s':>14}{'computed':>10}{'peak MB':>9}{'of steps':>9}{'now, wall':>11}"
        f"{'now, CPU':>10}{'last loss':>11}",
    ]
    for name, way in report["ways"].items():
        ratios = "".join(
            f"{f'{way[key]:.2f} x' if key in way else '':>{width}}"
            for key, width in (("now_faster_wall", 11), ("now_faster_cpu", 10))
        )
        lines.append(
            f"{name:8}{way['tokens_per_s']:>10}{way['tokens_per_cpu_s']:>14}{way['computed_share']:>10}"
            f"{way['peak_mb']:>9}{way['step_mb']:>9}{ratios}{way['losses'][-1]:>11}"
        )
    if "largest_difference_of_losses" in report:
        lines += ["", f"largest difference between losses of plain and now: {report['largest_difference_of_losses']}"]
    return "\n".join([*lines, "", *(f"{name:8}{WAYS[name]}" for name in report["ways"])])


if __name__ == "__main__":
    main()
