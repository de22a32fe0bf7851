"""``edgekit-runtime agent``: a device that follows a channel of its fleet, and the systemd unit for it."""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from edgekit_runtime.cli.arguments import CA, duration
from edgekit_runtime.cli.parser import Program, print_json
from edgekit_runtime.errors import InputError, UsageError
from edgekit_runtime.sigterm import handling_sigterm

if TYPE_CHECKING:
    from edgekit_runtime.fleet.agent import Health, Round
    from edgekit_runtime.formats.manifest import Manifest

log = logging.getLogger(__name__)

_BYTES = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}
_OWN_ROOM = "storage"  # of doctor: room is not the bundle's fault
_MOST_KEY_BYTES = 64 * 1024


def add_agent(program: Program) -> None:
    """Add the command."""
    parser = program.command(
        "agent",
        "run what a channel of a fleet says",
        "edgekit-runtime agent --fleet oci://registry.example/team/fleet --channel line-3 --root root.json --once",
        _agent,
    )
    add = parser.add_argument
    add("--store", type=Path, metavar="DIR", help="device store (default: the platform's data folder)")
    add("--fleet", required=True, metavar="REFERENCE", help="repository of the fleet: oci://HOST/REPOSITORY")
    add("--channel", required=True, help="channel of the fleet that this device is on")
    add("--root", type=Path, metavar="FILE", help="root.json of the fleet; needed once, the store keeps it")
    add("--device-id", metavar="ID", help="name of this device, which decides on its waves (default: the store's own)")
    add("--once", action="store_true", help="look once, and end")
    add("--interval", type=duration, default=300.0, metavar="TIME", help="between two looks: 30s, 5m, 1h (5m)")
    add("--rate", type=rate, metavar="BYTES", help="bytes a second that downloads may take: 500K, 2M (default: all)")
    add("--service", metavar="URL", help="service on this store, which has to answer with what is new")
    add("--api-key-file", type=Path, metavar="FILE", help="key of that service")
    add("--reports", metavar="REFERENCE", help="repository to report to, which this device may write to: oci://…")
    add("--ca", type=Path, metavar="FILE", help=CA)
    add("--print-unit", action="store_true", help="print a systemd unit that runs this command, and end")


def rate(text: str) -> float:
    """Bytes a second, as ``500K`` or ``2M``."""
    match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,3})?)([KMG]?)", text)
    size = float(match[1]) * _BYTES[match[2]] if match else 0.0
    if size < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no rate, write 500K or 2M")
    return size


def _agent(arguments: argparse.Namespace) -> None:
    if arguments.json and not arguments.once:
        raise UsageError("an agent that goes on prints no document", "add --once, or leave --json out")
    if arguments.api_key_file is not None and arguments.service is None:
        raise UsageError("--api-key-file is for a --service", "leave it out")
    from edgekit_runtime.registry.reference import Reference
    from edgekit_runtime.store import Store, default_store

    fleet, folder = Reference.parse_repository(arguments.fleet), arguments.store or default_store()
    if arguments.print_unit:
        print(_unit(arguments, folder.absolute()), end="")
        return
    from edgekit_runtime.fleet.agent import NEXT, Agent, Membership
    from edgekit_runtime.fleet.reporter import Place

    reports = arguments.reports and Place(Reference.parse_repository(arguments.reports), arguments.ca)
    if reports and reports.repository == fleet:
        raise UsageError(f"{fleet} is the fleet's own repository", "name another one for --reports, to write to")
    store = Store(folder, create=True)
    member = Membership(fleet, arguments.channel, arguments.device_id, arguments.ca, arguments.rate, reports=reports)
    agent = Agent(store, member, _health(store.root, arguments))
    with agent.at_work(arguments.root), handling_sigterm(_end):
        if arguments.once:
            found = agent.look()
            _show(found, as_json=arguments.json)
            if found.failed:
                raise InputError(found.why, NEXT)
        else:
            agent.run(arguments.interval)


def _end(_: int, __: FrameType | None) -> NoReturn:
    log.info("stopped")
    raise SystemExit(0)  # as told: what was half done is done again, or taken back, at the next start


def _health(store: Path, arguments: argparse.Namespace) -> list[Health]:
    found: list[Health] = [lambda manifest: _examined(store, manifest)]
    if arguments.service is not None:
        from edgekit_runtime.files.regular import read_small
        from edgekit_runtime.fleet.service import Service

        try:
            file = arguments.api_key_file
            key = None if file is None else read_small(file, _MOST_KEY_BYTES).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"the key file {file} can't be read ({error})", "put one line of text in it") from None
        found.append(Service(arguments.service, key).problem)
    return found


def _examined(store: Path, _: Manifest) -> str | None:
    """What doctor says against the store as it is now."""
    from edgekit_runtime.cli.doctor import examine

    failed = [check for check in examine(store) if not check.ok and check.what != _OWN_ROOM]
    return "; ".join(f"{check.what}: {check.found}" for check in failed) or None


def _show(found: Round, *, as_json: bool) -> None:
    channel = found.channel
    if as_json:
        document = {
            "channel": channel.name,
            "rollout": channel.rollout,
            "state": channel.state,
            "device": found.device,
            "wave": found.wave,
            "did": found.did,
            "why": found.why,
            "generation": found.generation,
        }
        print_json(document)
        return
    opened = "open" if found.wave <= channel.opened else "not open yet"
    runs = "nothing is installed" if found.generation is None else f"generation {found.generation}"
    print(f"{channel.name}: {found.why}")
    print(f"device {found.device}, wave {found.wave} of {len(channel.waves)} ({opened}), {runs}")


def _unit(arguments: argparse.Namespace, store: Path) -> str:
    from edgekit_runtime.server.systemd import agent_unit

    options = ["--store", str(store)]
    paths = {"--root": arguments.root, "--api-key-file": arguments.api_key_file, "--ca": arguments.ca}
    given: Sequence[tuple[str, object]] = [
        ("--fleet", arguments.fleet),
        ("--channel", arguments.channel),
        ("--device-id", arguments.device_id),
        ("--interval", f"{arguments.interval:.0f}s"),
        ("--rate", arguments.rate and f"{arguments.rate:.0f}"),
        ("--service", arguments.service),
        ("--reports", arguments.reports),
        *((name, path and path.absolute()) for name, path in paths.items()),
    ]
    for name, value in given:
        options += [] if value is None else [name, str(value)]
    return agent_unit(options, store=store)
