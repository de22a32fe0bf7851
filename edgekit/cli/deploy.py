"""`edgekit deploy`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.cli.devices import takes_ssh
from edgekit_runtime.cli.arguments import PORTS, whole
from edgekit_runtime.cli.parser import Program, print_json
from edgekit_runtime.errors import TargetError

if TYPE_CHECKING:
    from edgekit.targets.rollout import Outcome

MIB = 1024 * 1024


def add_deploy(program: Program) -> None:
    """Add the command."""
    parser = program.command(
        "deploy",
        "install a bundle on devices over ssh, and roll back where it doesn't answer",
        "edgekit deploy dist/line-3 --target ssh://pi@line-3 --service\n"
        "  edgekit deploy dist/line-3 --target ssh://pi@line-3 --target ssh://pi@line-4/opt/edgekit",
        _deploy,
    )
    add = parser.add_argument
    add("bundle", type=Path, help="bundle folder or .tar")
    add(
        "--target",
        action="append",
        required=True,
        metavar="SSH",
        help="ssh://[user@]host[:port][/path], as many as you like",
    )
    add("--device", metavar="D", help="device profile (default: found out on each target)")
    add("--service", action="store_true", help="start it with systemd, and ask the service")
    add("--port", type=whole(*PORTS), default=8080, help="TCP port of the service, on the device's 127.0.0.1 (8080)")
    add("--allow-downgrade", action="store_true", help="take a bundle that is older than what is there")
    takes_ssh(parser)


def _deploy(arguments: argparse.Namespace) -> None:
    from edgekit.targets.devices import device_profile
    from edgekit.targets.rollout import Options, deploy

    options = Options(
        profile=None if arguments.device is None else device_profile(arguments.device),
        service=arguments.service,
        port=arguments.port,
        allow_downgrade=arguments.allow_downgrade,
        ssh=arguments.ssh,
    )
    outcomes = deploy(arguments.bundle, arguments.target, options)
    if arguments.json:
        print_json([_document(outcome) for outcome in outcomes])
    else:
        print("\n".join(_table(outcomes)))
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    if len(outcomes) == len(failed) == 1:
        raise failed[0].error  # type: ignore[misc]  # it is one: that is what failed means
    if failed:
        raise TargetError(f"{len(failed)} of {len(outcomes)} targets failed", "the table says why; the others are done")


def _table(outcomes: Sequence[Outcome]) -> list[str]:
    from edgekit_runtime.bench.report import aligned

    rows = [["target", "device", "sent MiB", "seconds", "result"]]
    for each in outcomes:
        result = each.said if each.error is None else "FAILED"
        rows.append([each.target, each.device or "", f"{each.sent / MIB:.1f}", f"{each.seconds:.0f}", result])
    if len(outcomes) == 1:  # the error line says it
        return aligned(rows)
    return [*aligned(rows), *(f"FAILED  {each.error}" for each in outcomes if each.error is not None)]


def _document(outcome: Outcome) -> dict[str, object]:
    return vars(outcome) | {"error": None if outcome.error is None else str(outcome.error), "ok": outcome.error is None}
