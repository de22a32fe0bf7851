"""`edgekit rollout watch`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit.cli.frame import Json, command
from edgekit.cli.keys_options import KeyFolders
from edgekit.cli.options import read
from edgekit.cli.rollout_options import FLEET, ChannelName, Folder, as_document, open_session
from edgekit_runtime.cli.arguments import CA, duration
from edgekit_runtime.cli.parser import print_json

if TYPE_CHECKING:
    from edgekit.fleet.watch import Verdict
    from edgekit_runtime.fleet.channel import Channel

_INTERVAL = 30.0  # seconds


@command("edgekit rollout watch line-3 --reports oci://registry.example/reports")
def watch(
    channel: ChannelName,
    reports: Annotated[str, typer.Option(metavar="REFERENCE", help="repository that devices report to: oci://…")],
    folder: Folder = FLEET,
    once: Annotated[bool, typer.Option("--once", help="look once, and end: for cron")] = False,
    interval: Annotated[
        float | None, typer.Option(parser=read(duration), metavar="TIME", help="between two looks: 30s, 5m, 1h (30s)")
    ] = None,
    keys: KeyFolders = None,
    ca: Annotated[Path | None, typer.Option(parser=Path, metavar="FILE", help=CA)] = None,
    as_json: Json = False,
) -> None:
    """Open waves as devices report that they are well, and halt a roll-out that fails."""
    from edgekit.fleet.watch import ABORT, halted, step, tell_act, watch
    from edgekit_runtime.registry.reference import Reference

    session, place = open_session(folder, keys, ca), Reference.parse_repository(reports)

    def one_step() -> tuple[Channel, Verdict]:
        return step(session, channel, place, ca=ca)

    now, verdict = one_step() if once else watch(one_step, interval or _INTERVAL)
    if as_json:
        print_json(as_document(now) | {"did": verdict.act, "why": verdict.why})
    else:
        print(f"{channel}: {tell_act(now, verdict)}: {verdict.why}")
    if verdict.act == ABORT:
        raise halted(now, verdict)
