"""`edgekit devices list | show | detect`."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from edgekit_runtime.cli.parser import Program, print_json
from edgekit_runtime.errors import UsageError


def add_devices(program: Program) -> None:
    """Add the command."""
    parser = program.command(
        "devices",
        "list device profiles, show one, or detect which one a machine is",
        "edgekit devices show raspberry-pi-5\n  edgekit devices detect ssh://pi@line-3",
        _devices,
    )
    parser.add_argument("action", nargs="?", choices=("list", "show", "detect"), default="list")
    parser.add_argument(
        "name", nargs="?", help="show: profile, or a TOML file of your own; detect: ssh://… (default: here)"
    )
    takes_ssh(parser)


def takes_ssh(parser: argparse.ArgumentParser) -> None:
    """Add --ssh, which every command that reaches devices has."""
    parser.add_argument("--ssh", default="ssh", metavar="COMMAND", help="ssh with options of yours, 'ssh -i key' say")


def _devices(arguments: argparse.Namespace) -> None:
    if arguments.action == "show":
        if arguments.name is None:
            raise UsageError("devices show needs a name", "`edgekit devices` lists them")
        _show(arguments)
    elif arguments.action == "detect":
        _detect(arguments)
    else:
        if arguments.name is not None:
            raise UsageError("devices list takes no name", "or: edgekit devices show NAME")
        _list(arguments)


def _list(arguments: argparse.Namespace) -> None:
    from edgekit.targets.devices import device_profiles

    profiles = device_profiles()
    if arguments.json:
        print_json([dataclasses.asdict(profile) for profile in profiles])
        return
    for each in profiles:
        print(
            f"{each.name:22}{each.title}\n{'':22}{each.cores} x {each.cpu}, {each.memory_mb} MiB, {each.isa}, {each.os}"
        )


def _show(arguments: argparse.Namespace) -> None:
    from edgekit.targets.devices import device_profile

    document = dataclasses.asdict(device_profile(arguments.name))
    print_json(document) if arguments.json else _print_fields(document)


def _detect(arguments: argparse.Namespace) -> None:
    from edgekit.targets.devices import detect, device_profiles
    from edgekit_devices import shortcomings

    found, profile = detect(arguments.name, arguments.ssh)
    lacking = [] if profile is None else shortcomings(found, profile)
    if arguments.json:
        print_json({**dataclasses.asdict(found), "profile": profile and profile.name, "lacking": lacking})
        return
    known = {feature for each in device_profiles() for feature in each.features}
    _print_fields(dataclasses.asdict(found) | {"features": sorted(known & set(found.features))})
    print(f"profile: {'none fits: write a TOML file of your own' if profile is None else profile.name}")
    for each in lacking:
        print(f"but {each}")


def _print_fields(document: dict[str, Any], indent: str = "") -> None:
    for key, value in document.items():
        if isinstance(value, dict):
            print(f"{indent}{key}:")
            _print_fields(value, indent + "  ")
        else:
            text = ", ".join(value) if isinstance(value, (list, tuple)) else value
            print(f"{indent}{key}: {'unknown' if text in (None, '') else text}")
