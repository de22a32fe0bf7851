"""The trainings of a project, each with a record of its own that outlives the adapter: ``runs/NAME.json``."""

from __future__ import annotations

import datetime
import json
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.project import Project
from edgekit.project.run_record import is_record
from edgekit.training.record import RunRecord
from edgekit_runtime.errors import EdgekitError, InputError
from edgekit_runtime.files.atomic import write_whole
from edgekit_runtime.hints import did_you_mean

log = logging.getLogger(__name__)

FINISHED, EARLY, INTERRUPTED, STOPPED, FAILED = "finished", "stopped early", "interrupted", "stopped", "failed"
NOTE_FILE = "run"  # of a work folder: the name of its run
LAST = "last"  # the newest run, on the command line


def runs_folder(project: Project) -> Path:
    """Where the records lie."""
    return project.folder / "runs"


@dataclass(frozen=True)
class Begun:
    """A run that has begun, and what it had before it was interrupted.

    ``started`` is ISO 8601 (UTC); ``seconds`` and ``samples`` are those of earlier parts.
    """

    name: str
    started: str
    seconds: float = 0.0
    samples: tuple[dict[str, Any], ...] = ()


def begin_run(project: Project, adapter: str, work: Path, *, resumed: bool) -> Begun:
    """A new run, or the one whose checkpoint in ``work`` a training goes on from."""
    note = work / NOTE_FILE
    if resumed and note.exists():
        name = note.read_text(encoding="utf-8")
        for record in read_runs(project):
            if record["run"] == name:
                return Begun(name, record["started"], float(record["seconds"]), tuple(record["samples"]))
    now = datetime.datetime.now(datetime.UTC)
    # several processes may begin in one second
    name = f"{adapter}-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(name, encoding="utf-8")
    return Begun(name, now.isoformat(timespec="seconds"))


def keep_run(project: Project, record: RunRecord) -> None:
    """Write the record of a run.  Where that can't be done it is told, and no adapter is lost for it."""
    folder = runs_folder(project)
    try:
        folder.mkdir(exist_ok=True)
        write_whole(folder / f"{record.run}.json", record.text().encode())
    except (EdgekitError, OSError) as error:
        log.warning("the run could not be recorded in %s (%s)", folder, error)


def read_runs(project: Project) -> list[dict[str, Any]]:
    """The records of all runs, oldest first; files that are none are left out."""
    found = []
    for path in sorted(runs_folder(project).glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if is_record(record) and record.get("run") == path.stem:
            found.append(record)
    return sorted(found, key=lambda record: (record["started"], record["run"]))


def find_runs(project: Project, names: Sequence[str]) -> list[dict[str, Any]]:
    """The records of the runs called ``names``; ``last`` is the newest one, an adapter's name its newest one.

    Raises:
        InputError: there is no such run.
    """
    runs = read_runs(project)
    if not runs:
        raise InputError(f"there are no runs in {runs_folder(project)}", "`edgekit train` records one")
    known = {record["adapter"]: record for record in runs} | {record["run"]: record for record in runs}
    known[LAST] = runs[-1]
    for name in names:
        if name not in known:
            raise InputError(f"there is no run {name!r}", did_you_mean(name, known, "there are"))
    return [known[name] for name in names]
