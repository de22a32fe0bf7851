"""Are generated rows worth as much as own ones?  100 own rows, these and 300 generated ones, 400 own rows.

Trains the inspection adapter of the example project on each, for the same number of steps, and scores all on the same
held-out rows in torch.  Each step is kept in the work folder, so that an interrupted run goes on where it stopped.

    python benchmarks/generated_rows.py --endpoint http://127.0.0.1:8000/v1 --model big
    python benchmarks/generated_rows.py --steps 4 --rows 4 --own 20 --generated 20 --work /tmp/try

Without --endpoint the teacher is the example's own generator behind an endpoint on loopback.  It knows all rules, so
this is the upper bound, and shows no more than that the way works.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edgekit.curation.asking import Budget
from edgekit.curation.generate import Request, generate
from edgekit.curation.teacher import KEY_VARIABLE, TeacherOptions
from edgekit.data import load_rows
from edgekit.evaluation.evaluate import evaluate
from edgekit.examples import inspection
from edgekit.examples.init import init_project
from edgekit.project import load_project
from edgekit.training.run import train
from edgekit_runtime.bench.report import aligned
from loopback_teacher import Said, teacher_saying

NAME = "inspection"
TRAIN, EVAL = f"data/{NAME}.train.jsonl", f"data/{NAME}.eval.jsonl"
ABOUT = inspection.__doc__ or ""
TEACHER_SEED = 4711


def main() -> None:
    """Fill the work folder and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoint", help="of the teacher, up to /v1")
    parser.add_argument("--model", default="example", help="the teacher's name there")
    parser.add_argument("--key-env", default=KEY_VARIABLE, help="environment variable with its API key")
    parser.add_argument("--own", type=int, default=100)
    parser.add_argument("--generated", type=int, default=300)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--rows", type=int, default=40, help="held-out rows")
    parser.add_argument("--work", type=Path, default=Path("build/generated-rows"))
    given = parser.parse_args()
    own = given.own
    names = (f"{own} own", f"{own} own + {given.generated} generated", f"{own + given.generated} own")
    table = [["trained on", "rows", "fields right %", "95 % interval", "whole answers right %"]]
    for number, name in enumerate(names):
        folder = given.work / f"set-{number + 1}"
        scores = folder / "scores.json"
        if not scores.exists():
            lines = _project(folder, given.steps, own + given.generated if number == 2 else own)
            if number == 1:
                lines += _generated(folder, given)
                (folder / TRAIN).write_text("".join(lines))
            scores.write_text(json.dumps({"rows": len(lines), **_measured(folder, given.rows)}))
        found = json.loads(scores.read_text())
        interval = " – ".join(map(_percent, found["interval"]))
        table.append([name, str(found["rows"]), _percent(found["value"]), interval, _percent(found["exact"])])
    print("\n".join(aligned(table)))


def _project(folder: Path, steps: int, rows: int) -> list[str]:
    """A project whose adapter has the first ``rows`` of the example's training rows."""
    if not (folder / "edgekit.yaml").exists():
        init_project(folder, max_steps=steps)
    lines = (folder / TRAIN).read_text().splitlines(keepends=True)[:rows]
    (folder / TRAIN).write_text("".join(lines))
    return lines


def _generated(folder: Path, given: argparse.Namespace) -> list[str]:
    output = folder / "generated.jsonl"
    request = Request(
        seeds=load_rows(folder / TRAIN), about=ABOUT, system=inspection.SYSTEM, avoid=load_rows(folder / EVAL)
    )
    with _teacher(given) as options:
        generate(request, options, output, Budget(rows=given.generated))
    return output.read_text().splitlines(keepends=True)


@contextlib.contextmanager
def _teacher(given: argparse.Namespace) -> Iterator[TeacherOptions]:
    if given.endpoint:
        yield TeacherOptions(given.endpoint, given.model, given.key_env)
        return
    with teacher_saying(example_rows(2 * given.generated, TEACHER_SEED)) as teacher:
        yield TeacherOptions(teacher.url, given.model)


def example_rows(count: int, seed: int) -> Callable[[int, dict[str, Any]], Said]:
    """A script that answers with rows of the example's generator, in the form that `data generate` asks for."""
    rows, _ = inspection.generate(count, 0, seed)
    left, lock = iter(rows), threading.Lock()

    def say(_: int, body: dict[str, Any]) -> Said:
        with lock:
            row: Any = next(left)
        question, answer = (message["content"] for message in row["messages"])
        wanted = body["response_format"]["json_schema"]["schema"]["properties"]["completion"]
        text = wanted == {"type": "string"}
        return Said(json.dumps({"prompt": question, "completion": answer if text else json.loads(answer)}))

    return say


def _measured(folder: Path, rows: int) -> dict[str, Any]:
    project = load_project(str(folder))
    train(project, NAME)
    score = evaluate(project, NAME, limit=rows, with_base=False).adapter_score
    return {"value": score.value, "interval": score.interval, "exact": score.exact}


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


if __name__ == "__main__":
    main()
