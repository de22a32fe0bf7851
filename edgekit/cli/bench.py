"""`edgekit bench`: the device benchmark here, in a page, on a device, or on an emulated one."""

from __future__ import annotations

import argparse
from pathlib import Path

import edgekit_runtime.cli.program as runtime_cli
from edgekit.cli.devices import takes_ssh
from edgekit_runtime.cli.parser import Program
from edgekit_runtime.errors import UsageError
from edgekit_runtime.files.atomic import check_writable
from edgekit_runtime.hints import did_you_mean

PLOTS = (".png", ".svg", ".pdf")


def add_bench(program: Program) -> None:
    """Add the command."""
    parser = runtime_cli.add_bench(program, "edgekit", _bench)
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the result")
    parser.add_argument(
        "--target",
        metavar="T",
        help="local (default), ssh://… (what is deployed there), browser or browser:firefox (a page here), or "
        "qemu:PROFILE (that it works, not how fast)",
    )
    takes_ssh(parser)


def _bench(arguments: argparse.Namespace) -> None:
    if arguments.plot is not None and arguments.plot.suffix not in PLOTS:
        kind = arguments.plot.suffix or "a file without suffix"
        raise UsageError(f"there is no plot in {kind}", did_you_mean(kind, PLOTS, "use"))
    for file in (arguments.output, arguments.plot):
        if file is not None:
            check_writable(file)
    if arguments.target is None or arguments.what[:1] == ["compare"]:
        document = runtime_cli.bench_command(arguments)
    else:
        from edgekit.bench.targets import bench_on

        document = bench_on(arguments.target, arguments)
        runtime_cli.show_bench(document, arguments)
    if document is not None and arguments.plot is not None:
        from edgekit.bench.plot import plot_bench

        plot_bench(document, arguments.plot)
