"""`edgekit deploy`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit.cli.completion import device_names
from edgekit.cli.frame import Json, command
from edgekit.cli.options import Bundle, Ssh, read
from edgekit_runtime.cli.arguments import PORTS, whole
from edgekit_runtime.cli.parser import print_json
from edgekit_runtime.errors import TargetError

if TYPE_CHECKING:
    from edgekit.targets.rollout import Outcome

MIB = 1024 * 1024


@command(
    "edgekit deploy dist/line-3 --target ssh://pi@line-3 --service",
    "edgekit deploy dist/line-3 --target ssh://pi@line-3 --target ssh://pi@line-4/opt/edgekit",
)
def deploy(
    bundle: Bundle,
    target: Annotated[
        list[str],
        typer.Option(metavar="SSH", help="ssh://[user@]host[:port][/path], as many as you like"),
    ],
    device: Annotated[
        str | None,
        typer.Option(
            metavar="D", help="device profile (default: detected on each target)", autocompletion=device_names
        ),
    ] = None,
    service: Annotated[bool, typer.Option("--service", help="start it with systemd, and ask the service")] = False,
    port: Annotated[
        int,
        typer.Option(
            parser=read(whole(*PORTS)),
            metavar="PORT",
            help="TCP port of the service, on the device's 127.0.0.1 (8080)",
        ),
    ] = 8080,
    allow_downgrade: Annotated[
        bool, typer.Option("--allow-downgrade", help="install a bundle that is older than the installed one")
    ] = False,
    ssh: Ssh = "ssh",
    as_json: Json = False,
) -> None:
    """Install a bundle on devices over ssh, and roll back where it doesn't answer."""
    from edgekit.targets.devices import device_profile
    from edgekit.targets.rollout import Options, deploy

    options = Options(
        profile=None if device is None else device_profile(device),
        service=service,
        port=port,
        allow_downgrade=allow_downgrade,
        ssh=ssh,
    )
    outcomes = deploy(bundle, target, options)
    if as_json:
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
