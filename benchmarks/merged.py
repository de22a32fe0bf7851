"""What is left of an adapter that is folded into the base's blocks: trained beside them, and trained merged.

For each type and seed the adapter of a recipe is trained twice, as a separate adapter and with `merged: true`.  Then
held-out rows are asked on the device's engine: the bare base, the separate adapter, the same merged afterwards, and the
one that was trained merged.  Decode is measured in turns, against the bare base of the same run.  What is done is kept
in the work folder, so that an interrupted benchmark goes on where it stopped.

    python benchmarks/merged.py --quantize Q4_0 --seeds 1,2 --rows 200
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekit.data import Row
from edgekit.evaluation.evaluate import Questions, questions
from edgekit.evaluation.scoring import score_rows
from edgekit.examples.init import init_project
from edgekit.exporting.export import export
from edgekit.project import Project, load_project
from edgekit.training.run import train
from edgekit.tuning.search import on_trial
from edgekit_runtime import Runtime
from edgekit_runtime.bench.report import aligned
from edgekit_runtime.formats.manifest import BASE
from edgekit_runtime.runtime.options import AS_IT_IS

SEPARATE, NAIVE, AWARE = "separate", "naive", "merged"
WAYS = (AWARE, SEPARATE, NAIVE)
CONTEXT = 512
SPEED_TOKENS, SPEED_TURNS = 48, 15


def main() -> None:
    """Fill the work folder and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--template", default="inspection")
    parser.add_argument("--adapter", default="inspection")
    parser.add_argument("--quantize", default="Q4_0", help="types, with commas")
    parser.add_argument("--seeds", default="1,2")
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--rows", type=int, default=200, help="held-out rows")
    parser.add_argument("--parallel", type=int, default=8, help="requests at a time; answers are the same as alone")
    parser.add_argument("--work", type=Path, default=Path("build/merged"))
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    kinds, seeds = given.quantize.split(","), [int(seed) for seed in given.seeds.split(",")]
    heading = ["type", "seed", "base", "beside", "merged afterwards", "trained merged"]
    table = [[*heading, "gain kept: merged afterwards", "trained merged"]]
    speeds = [["type", "adapter beside / base", "trained merged / base"]]
    for kind in kinds:
        bench = _Bench(given, kind)
        for seed in seeds:
            aware, beside, naive = (bench.score(way, seed)["score"] for way in WAYS)
            base = bench.score(BASE, seed)["score"]
            kept = (f"{(score - base) / (beside - base):.2f}" for score in (naive, aware))
            table.append([kind, str(seed), *(f"{100 * each:.1f}" for each in (base, beside, naive, aware)), *kept])
        speeds.append([kind, *(f"{ratio:.2f}" for ratio in bench.speeds(seeds[0]))])
    print("\n".join(aligned(table)))
    print("\n".join(aligned(speeds)))


class _Bench:
    """One type of blocks."""

    def __init__(self, given: argparse.Namespace, kind: str) -> None:
        self.given, self.kind, self.name = given, kind, given.adapter
        self.work: Path = given.work.resolve() / kind
        folder = given.work.resolve() / "project"
        if not folder.exists():
            init_project(folder, given.template, max_steps=given.steps)
        project = load_project(folder)
        self.project = replace(
            project,
            export=replace(project.export, quantize=kind, device=None),
            gate=replace(project.gate, rows=0),
        )
        self.work.mkdir(parents=True, exist_ok=True)

    def trained(self, seed: int, *, merged: bool) -> Project:
        """The project with its adapter as trained with ``seed``."""
        settings = {"seed": seed, "merged": merged}
        folder = self.work / f"adapter-{seed}-{AWARE if merged else SEPARATE}"
        if not folder.exists():
            begun = time.process_time()
            train(self.project, self.name, settings=settings, output=folder)
            logging.info("%s seed %d merged %s: %.0f CPU seconds", self.kind, seed, merged, time.process_time() - begun)
        return on_trial(self.project, self.name, settings, folder)

    def bundle(self, way: str, seed: int) -> Path:
        """What devices get."""
        folder = self.work / f"bundle-{seed}-{way}"
        if not folder.exists():
            mode = "separate" if way == SEPARATE else "merged"
            export(self.trained(seed, merged=way == AWARE), [self.name], output=folder, mode=mode)
        return folder

    def score(self, way: str, seed: int) -> dict[str, Any]:
        """Of the answers that the device's engine gives to held-out rows."""
        kept = self.work / ("score-base.json" if way == BASE else f"score-{seed}-{way}.json")
        if not kept.exists():
            asked = questions(self.project, self.project.adapter(self.name), self.given.rows)
            bundle = self.bundle(SEPARATE if way == BASE else way, seed)
            answers = self._answers(bundle, {BASE: BASE, SEPARATE: self.name}.get(way, BASE), asked, bare=way == BASE)
            found = score_rows(asked.rows, answers, asked.yardstick)
            document = {"score": found.value, "exact": found.exact, "rows": len(answers), "answers": answers}
            kept.write_text(json.dumps(document, indent=1))
            logging.info("%s seed %d %s: %.4f (exact %.3f)", self.kind, seed, way, found.value, found.exact)
        made: dict[str, Any] = json.loads(kept.read_text())
        return made

    def _answers(self, bundle: Path, adapter: str, asked: Questions, *, bare: bool) -> list[str]:
        system = self.project.adapter(self.name).system
        start = [{"role": "system", "content": system}] if bare and system else []
        count: int = self.given.parallel
        with Runtime(bundle, context=CONTEXT, parallel=count, threads=1) as runtime, ThreadPoolExecutor(count) as pool:

            def answer(row: Row) -> str:
                options: dict[str, Any] = {"adapter": adapter, "max_tokens": asked.max_tokens, **AS_IT_IS}
                return runtime.generate(messages=[*start, *row.messages], **options).text.strip()

            return list(pool.map(answer, asked.rows))

    def speeds(self, seed: int) -> Sequence[float]:
        """Decode of the adapter beside its base, and of the one that was trained merged, over that of the bare base."""
        kept = self.work / f"speeds-{seed}.json"
        if not kept.exists():
            rows = questions(self.project, self.project.adapter(self.name), SPEED_TURNS).rows
            with ExitStack() as stack:

                def opened(way: str) -> Runtime:
                    bundle = self.bundle(way, seed)
                    return stack.enter_context(Runtime(bundle, context=CONTEXT, lookahead=False, threads=1))

                beside, merged = opened(SEPARATE), opened(AWARE)
                asked = {BASE: (beside, BASE), SEPARATE: (beside, self.name), AWARE: (merged, BASE)}
                found: dict[str, list[float]] = {way: [] for way in asked}
                for row in rows:
                    for way, (runtime, adapter) in asked.items():
                        options: dict[str, Any] = {"adapter": adapter, "max_tokens": SPEED_TOKENS, "ignore_eos": True}
                        found[way].append(runtime.generate(messages=row.messages, **options).timings.decode_tps)
            pairs = {way: [one / base for one, base in zip(found[way], found[BASE], strict=True)] for way in found}
            kept.write_text(json.dumps([statistics.median(pairs[way]) for way in (SEPARATE, AWARE)]))
        made: list[float] = json.loads(kept.read_text())
        return made


if __name__ == "__main__":
    main()
