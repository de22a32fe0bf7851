"""Runs beside each other: a table, the settings that differ, and a picture of their losses."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekit.training.record import final_losses, loss_unit
from edgekit_exporters.progress import clock
from edgekit_runtime.bench.report import aligned
from edgekit_runtime.errors import UsageError
from edgekit_runtime.files.atomic import write_whole

PICTURES = (".svg", ".png", ".pdf")
_OF_A_RUN = ("base", "base_precision", "quantization", "reasoning", "template", "blocks")
WIDEST = 60  # signs of a setting in a table

Record = Mapping[str, Any]


def runs_table(runs: Sequence[Record]) -> str:
    """A line a run: how it ended, steps, last losses, time, and what was set beside the project file."""
    rows = [["run", "status", "steps", "loss", "eval loss", "time"]]
    notes = ["  --set"]
    for run in runs:
        last = final_losses(run["losses"], run["kept_step"])
        changed = " ".join(f"{key}={_value(value)}" for key, value in run["settings"].items())
        losses = [_loss(last.get("loss")), _loss(last.get("eval_loss"))]
        rows.append([run["run"], run["status"], str(_steps(run)), *losses, clock(run["seconds"])])
        notes.append(f"  {changed}")
    heading, rule, *lines = aligned(rows)
    told = [f"{line}{note}".rstrip() for line, note in zip([heading, *lines], notes, strict=True)]
    return "\n".join([told[0], rule, *told[1:]])


def differences(runs: Sequence[Record]) -> dict[str, list[Any]]:
    """What the runs were made of and isn't the same in all: key -> its value in each, None where one has none."""
    described = [_described(run) for run in runs]
    keys = dict.fromkeys(key for each in described for key in each)
    found = {key: [each.get(key) for each in described] for key in keys}
    return {key: values for key, values in found.items() if any(value != values[0] for value in values)}


def comparison(runs: Sequence[Record]) -> dict[str, Any]:
    """Runs, what differs, and their last losses, as a JSON document."""
    return {
        "runs": [run["run"] for run in runs],
        "differ": differences(runs),
        "final": [final_losses(run["losses"], run["kept_step"]) for run in runs],
        "seconds": [run["seconds"] for run in runs],
        "status": [run["status"] for run in runs],
    }


def comparison_table(runs: Sequence[Record]) -> str:
    """The same for people: a column a run."""
    final = [final_losses(run["losses"], run["kept_step"]) for run in runs]
    rows = [["", *(run["run"] for run in runs)]]
    rows += [[key, *map(_value, values)] for key, values in differences(runs).items()]
    rows += [[name, *(_loss(each.get(key)) for each in final)] for key, name in _LOSSES]
    rows.append(["steps", *(str(_steps(run)) for run in runs)])
    rows.append(["time", *(clock(run["seconds"]) for run in runs)])
    return "\n".join(line.rstrip() for line in aligned(rows))


def plot_runs(runs: Sequence[Record], path: Path) -> None:
    """Draw the losses of runs over their steps: training as lines, evaluation with marks.

    Args:
        runs: records.
        path: the picture; its suffix says of which kind.

    Raises:
        UsageError: another suffix than those of pictures.
        InputError: it can't be written.
    """
    check_picture(path)
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 5), layout="constrained", dpi=120)
    axes = figure.add_subplot()
    units = dict.fromkeys(loss_unit(run["hyperparameters"]["method"]) for run in runs)
    for at, run in enumerate(runs):
        for key, style in (("loss", {"alpha": 0.45}), ("eval_loss", {"marker": "o", "label": run["run"]})):
            points = [(entry["step"], entry[key]) for entry in run["losses"] if key in entry]
            if points:
                axes.plot(*zip(*points, strict=True), color=f"C{at}", **style)
    axes.set(xlabel="optimiser step", ylabel=", ".join(units))
    axes.set_title("training (thin) and evaluation (marked)", fontsize=10)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix[1:].lower())
    write_whole(path, picture.getvalue())


def check_picture(path: Path) -> None:
    """Look whether a picture can have this name.

    Raises:
        UsageError: it can't.
    """
    if path.suffix.lower() not in PICTURES:
        raise UsageError(f"{path} is no name of a picture", f"end it in {', '.join(PICTURES)}")


_LOSSES = (("loss", "training loss"), ("eval_loss", "evaluation loss"))


def _described(run: Record) -> dict[str, Any]:
    flat = {key: run[key] for key in _OF_A_RUN if run.get(key) is not None}
    system = {} if run["system"] is None else {"system": run["system"]}
    data = {f"data.{key}": value for key, value in run["data"].items() if value is not None}
    packages = {f"version of {name}": version for name, version in run["versions"].items()}
    settings = {key: value for key, value in run["hyperparameters"].items() if key not in ("system", "reasoning")}
    return {**settings, **flat, **system, **data, **packages, "machine": run["machine"]}


def _steps(run: Record) -> int:
    return int(max((entry["step"] for entry in run["losses"] if "step" in entry), default=0))


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _value(value: Any) -> str:
    text = "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= WIDEST else f"{text[:WIDEST]} …"
