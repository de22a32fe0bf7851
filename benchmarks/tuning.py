"""Does `edgekit tune` find settings as good as those of a grid, in a quarter of its time?

Trains an adapter of a recipe on each of 12 settings (4 learning rates x 3 ranks) to its end, then searches as long as
`edgekit tune` does by itself.  Both are scored on the device's engine.  Time is CPU time of this process, in runs of
the middle setting.  What is done is kept in the work folder, so that an interrupted benchmark goes on where it stopped.

    python benchmarks/tuning.py --template inspection --adapter inspection --steps 64
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

from edgekit.evaluation.evaluate import evaluate
from edgekit.examples.init import init_project
from edgekit.project import Project, load_project, read_settings, with_settings
from edgekit.training.run import train
from edgekit.tuning.search import deployed_blocks, on_trial, search
from edgekit.tuning.space import space_of
from edgekit_runtime.bench.report import aligned

RATES = (1e-4, 5e-4, 2e-3, 5e-3)
RANKS = (4, 16, 64)
START = {"learning_rate": 2e-4, "rank": 16}  # what a user begins with


def main() -> None:
    """Fill the work folder and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--template", default="inspection")
    parser.add_argument("--adapter", default="inspection")
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--rows", type=int, default=40, help="held-out rows")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--project", type=Path, help="a project of your own, instead of a template")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    parser.add_argument("--work", type=Path, default=Path("build/tuning"))
    given = parser.parse_args()
    folder = given.project or given.work / given.template
    if not folder.exists():
        init_project(folder, given.template)
    settings = {"max_steps": given.steps, **START, **read_settings(given.settings)}
    project = with_settings(load_project(folder), [given.adapter], settings)
    grid = [{"learning_rate": rate, "rank": rank, "alpha": 2 * rank} for rate, rank in itertools.product(RATES, RANKS)]
    runs = [_trained(project, given.adapter, each, given.work, given.rows) for each in grid]
    found = _searched(project, given, given.work)
    best = max(runs, key=lambda run: run["score"])
    a_run = sorted(run["seconds"] for run in runs)[len(runs) // 2]
    table = [["", "score", "full runs", "settings"]]
    for name, run in (("best of the grid", best), ("edgekit tune", found)):
        spent = sum(each["seconds"] for each in runs) if run is best else run["seconds"]
        table.append([name, f"{100 * run['score']:.1f}", f"{spent / a_run:.1f}", json.dumps(run["settings"])])
    print("\n".join(aligned(table)))


def _trained(project: Project, name: str, settings: dict[str, Any], work: Path, rows: int) -> dict[str, Any]:
    label = f"{settings['learning_rate']:g}-{settings['rank']}"
    kept = work / f"grid-{label}.json"
    if not kept.exists():
        begun = time.process_time()
        folder = train(project, name, settings=settings, output=work.resolve() / f"grid-{label}")
        seconds = time.process_time() - begun
        trial = on_trial(project, name, settings, folder)
        scored = evaluate(trial, name, artifact=deployed_blocks(project, name), limit=rows, with_base=False)
        kept.write_text(json.dumps({"settings": settings, "score": scored.adapter_score.value, "seconds": seconds}))
    made: dict[str, Any] = json.loads(kept.read_text())
    return made


def _searched(project: Project, given: argparse.Namespace, work: Path) -> dict[str, Any]:
    kept = work / "search.json"
    if not kept.exists():
        begun = time.process_time()
        found = search(project, space_of(project.adapter(given.adapter), None), trials=given.trials, rows=given.rows)
        seconds, best = time.process_time() - begun, found.best
        kept.write_text(json.dumps({"settings": best.settings, "score": best.score.value, "seconds": seconds}))
    made: dict[str, Any] = json.loads(kept.read_text())
    return made


if __name__ == "__main__":
    main()
