"""The ``edgekit`` command: all commands, in groups."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence

from edgekit.cli.bench import bench
from edgekit.cli.build_runtime import build_runtime
from edgekit.cli.combine import combine
from edgekit.cli.data import data
from edgekit.cli.demo import demo
from edgekit.cli.deploy import deploy
from edgekit.cli.devices import devices
from edgekit.cli.evaluate import evaluate
from edgekit.cli.export import export
from edgekit.cli.frame import Program, program, run_program
from edgekit.cli.import_ollama import import_ollama
from edgekit.cli.init import init
from edgekit.cli.keygen import keygen
from edgekit.cli.keys import keys
from edgekit.cli.merge import merge
from edgekit.cli.plan import plan
from edgekit.cli.pull import pull
from edgekit.cli.push import push
from edgekit.cli.rollout import rollout
from edgekit.cli.runs import runs
from edgekit.cli.schema import schema
from edgekit.cli.serve_site import serve_site
from edgekit.cli.sign import sign
from edgekit.cli.site import site
from edgekit.cli.train import train
from edgekit.cli.trim import trim
from edgekit.cli.tune import tune
from edgekit.cli.verify import verify

GROUPS = {
    "Start": (init, demo, schema),
    "Train": (data, train, trim, tune, runs, evaluate, combine, merge),
    "Prove and ship": (export, import_ollama, keygen, sign, verify, push, pull),
    "Devices": (plan, devices, build_runtime, deploy, bench),
    "Fleet": (keys, rollout),
    "Phone": (site, serve_site),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run_program(kit(), sys.argv[1:] if arguments is None else arguments)


@functools.cache
def kit() -> Program:
    """The program, as typer has it."""
    return program("edgekit", "From data to a proven, swappable adapter on an edge device.", GROUPS)
