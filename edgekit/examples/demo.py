"""The whole path on a real model: train two adapters, export, prove, swap, benchmark."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekit.bench.plot import plot_bench
from edgekit.data import load_rows
from edgekit.evaluation.evaluate import evaluate_base
from edgekit.evaluation.scoring import score
from edgekit.examples.init import init_project
from edgekit.exporting.export import export
from edgekit.project import PROJECT_FILE, Project, load_project
from edgekit.proof.words import headline, proof_lines
from edgekit.training.checkpoints import is_interrupted, left_to_train
from edgekit.training.run import train
from edgekit_runtime.bench import table
from edgekit_runtime.bench.report import aligned
from edgekit_runtime.cli.parser import size_text
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.manifest import AdapterEntry
from edgekit_runtime.runtime import Runtime

log = logging.getLogger(__name__)

TRAINING_STEPS = 64  # enough to learn the two tasks, few enough for a coffee
EVALUATED_ROWS = 40
ACCEPTED = "a demo trains for minutes: it shows what the proof says, passed or not"
BENCH_REPEATS = 3
SWAPS = 3


def run_demo(folder: Path, *, quiet: bool = False) -> dict[str, Any]:
    """Run the demo in ``folder`` (made when missing, used again when it is an earlier demo).

    Args:
        folder: a project folder.
        quiet: print nothing; the returned document has everything.

    Raises:
        InputError: the folder holds something else.
    """
    say = log.debug if quiet else print
    start = time.perf_counter()
    say(f"\n== 1. A project with data for two adapters: {folder}")
    project = _project(folder)
    say("\n== 2. Training both on the quantized base that the device will run")
    for name, goes_on in _left(project).items():
        try:
            say(f"   {name}: {train(project, name, resume=goes_on)}")
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"while {name} was trained; the same command goes on there") from None
    say("\n== 3. Export: one base, two adapter files, proven on the device engine: alive? faithful? good?")
    bundle, manifest = export(project, accept_loss=ACCEPTED)
    for file in manifest.files:
        say(f"   {size_text(file.size)}  {file.path}")
    for name, proof in manifest.proofs().items():
        say(f"   {name}:")
        for question, said in proof_lines(proof):
            say(f"     {question:8}  {said}")
    say(f"   Proof: {headline(manifest.quality)}")
    for reason in manifest.quality.get("reasons", []):
        say(f"   an export of your own would be refused here: {reason}")
    say("\n== 4. Swapping adapters in one running process")
    swaps = _swap(project, bundle, say)
    say("\n== 5. The same questions to the base without an adapter")
    bases = {
        name: 100 * evaluate_base(project, name, artifact=bundle, limit=EVALUATED_ROWS).value
        for name in project.adapters
    }
    say("\n== 6. Benchmark")
    bench = _bench(bundle)
    say(table(bench))
    plot = project.folder / "bench.png"
    plot_bench(bench, plot)

    minutes = (time.perf_counter() - start) / 60
    summary = [_summary_row(entry, bases[entry.name], bench) for entry in manifest.adapters]
    say(
        f"\n== Done in {minutes:.1f} minutes.  Answer fields that are right, in %, on {EVALUATED_ROWS} held-out rows; "
        "exact: whole answers on the device:"
    )
    say("\n".join(aligned([[heading for heading, _ in _SUMMARY], *map(_summary_cells, summary)])))
    files = {
        "project": str(project.folder / PROJECT_FILE),
        "adapters": str(project.folder / "adapters"),
        "bundle": str(bundle),
        "proof": str(bundle / "report" / "report.html"),
        "bench plot": str(plot),
    }
    say("\n" + "\n".join(f"{what:11} {where}" for what, where in files.items()))
    first = next(iter(project.adapters))
    say(f'\nAsk it yourself:  {_runtime_command()} run {bundle} --adapter {first} --prompt "…"')
    return {
        "minutes": minutes,
        "summary": summary,
        "swaps": swaps,
        "quality": {entry.name: entry.quality for entry in manifest.adapters},
        "bench": bench,
        "files": files,
    }


# Heading of a column, and how its figure is written.
_SUMMARY = (
    ("adapter", "{}"),
    ("base: torch", "{:.1f}"),
    ("device", "{:.1f}"),
    ("trained: torch", "{:.1f}"),
    ("device", "{:.1f}"),
    ("exact", "{:.1f}"),
    ("mean KL", "{:.4f}"),
    ("adapter MiB", "{:.1f}"),
    ("decode tok/s", "{:.1f}"),
    ("swap ms", "{:.3f}"),
)


def _summary_cells(row: dict[str, Any]) -> list[str]:
    return [form.format(cell) for (_, form), cell in zip(_SUMMARY, row.values(), strict=True)]


def _runtime_command() -> str:
    """The runtime's command as this user's shell finds it: `make demo` runs without the environment on the path."""
    name = "edgekit-runtime"
    return name if shutil.which(name) else str(Path(sys.executable).with_name(name))


def _left(project: Project) -> dict[str, bool]:
    """Which adapters are to be trained, and whether each goes on where an earlier demo was stopped."""
    names = list(project.adapters)
    return left_to_train(project, names) if is_interrupted(project, names) else dict.fromkeys(names, False)


def _project(folder: Path) -> Project:
    if not (folder / PROJECT_FILE).exists():
        init_project(folder, max_steps=TRAINING_STEPS)
    project = load_project(folder)
    if set(project.adapters) != {"inspection", "monitoring"}:
        raise InputError(f"{folder} is another project", "name a new folder for the demo")
    return replace(project, gate=replace(project.gate, rows=EVALUATED_ROWS))


def _swap(project: Project, bundle: Path, say: Any) -> list[dict[str, Any]]:
    """Ask both adapters in turn, in one process, and tell what each switch cost."""
    shown = shown_rows(bundle)
    questions = {name: load_rows(project.data_for(name).eval)[shown[name][0]] for name in project.adapters}
    swaps: list[dict[str, Any]] = []
    with Runtime(bundle) as runtime:
        for _ in range(SWAPS):
            for name, row in questions.items():
                answer = runtime.generate(messages=row.messages, adapter=name, max_tokens=96)
                swaps.append({"adapter": name, "switch_ms": answer.timings.switch_ms, "text": answer.text})
    for name, row in questions.items():
        right = shown[name][1]
        which = "one of them" if right else "the first one, and what it answers instead"
        say(f"   {name} has {right} of {EVALUATED_ROWS} held-out rows right as a whole; {which}:")
        say(f"     {row.messages[-1]['content']}")
        say(f"     {next(swap['text'] for swap in swaps if swap['adapter'] == name)}")
    first, later = swaps[: len(questions)], swaps[len(questions) :]
    say("   first use, file load included: " + ", ".join(f"{swap['switch_ms']:.1f} ms" for swap in first))
    say("   every later switch: " + ", ".join(f"{swap['switch_ms']:.3f} ms" for swap in later))
    return swaps


def shown_rows(bundle: Path) -> dict[str, tuple[int, int]]:
    """Adapter -> the row to show, which is the first one that the device has answered right, and how many there are.

    An example is no measurement: the score is, and stands beside it.  Where no row is right the first one is shown.
    """
    report = json.loads((bundle / "report" / "report.json").read_text(encoding="utf-8"))
    shown = {}
    for proof in report["adapters"]:
        right = [score([row["reference"]], [row["device"]]).exact == 1 for row in proof["rows"]]
        shown[proof["adapter"]] = (right.index(True) if any(right) else 0, sum(right))
    return shown


def _bench(bundle: Path) -> dict[str, Any]:
    """Measured in a process of its own, as on a device: this one has torch in its memory."""
    command = [sys.executable, "-m", "edgekit_runtime", "bench", str(bundle), "--json"]
    run = subprocess.run([*command, "--repeats", str(BENCH_REPEATS)], stdout=subprocess.PIPE, check=True)
    document: dict[str, Any] = json.loads(run.stdout)
    return document


def _summary_row(entry: AdapterEntry, base_device: float, bench: dict[str, Any]) -> dict[str, Any]:
    quality = entry.quality
    assert quality is not None  # the export above has proven it
    figures = next(result for result in bench["results"] if result["adapter"] == entry.name)
    return {
        "adapter": f"{entry.name} ({quality['quantization']})",
        "base_torch": round(quality["base_score"], 1),
        "base_device": round(base_device, 1),
        "trained_torch": round(quality["torch_score"], 1),
        "trained_device": round(quality["device_score"], 1),
        "exact": round(quality["device_exact"], 1),
        "mean_kl": round(quality["mean_kl"], 4),
        "adapter_mib": round(figures["file_bytes"] / 1024**2, 1),
        "decode_tps": round(figures["decode_tps"]["median"], 1),
        "switch_ms": round(figures["switch_ms"]["median"], 3),
    }
