"""`edgekit devices list | show | detect`."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from edgekit.cli.completion import device_names
from edgekit.cli.frame import Json, command
from edgekit.cli.options import Ssh, one_of
from edgekit_runtime.cli.parser import print_json
from edgekit_runtime.errors import UsageError


@command("edgekit devices show raspberry-pi-5", "edgekit devices detect ssh://pi@line-3")
def devices(
    action: Annotated[
        str,
        typer.Argument(
            metavar="list|show|detect",
            help="what to do (default: list)",
            **one_of("action", lambda: ["list", "show", "detect"]),
        ),
    ] = "list",
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="show: profile, or a TOML file of your own; detect: ssh://… (default: here)",
            autocompletion=device_names,
        ),
    ] = None,
    ssh: Ssh = "ssh",
    as_json: Json = False,
) -> None:
    """List device profiles, show one, or detect which one a machine is."""
    if action == "show":
        if name is None:
            raise UsageError("devices show needs a name", "`edgekit devices` lists them")
        _show(name, as_json)
    elif action == "detect":
        _detect(name, ssh, as_json)
    else:
        if name is not None:
            raise UsageError("devices list takes no name", "or: edgekit devices show NAME")
        _list(as_json)


def _list(as_json: bool) -> None:
    from edgekit.targets.devices import device_profiles

    profiles = device_profiles()
    if as_json:
        print_json([dataclasses.asdict(profile) for profile in profiles])
        return
    for each in profiles:
        print(
            f"{each.name:22}{each.title}\n{'':22}{each.cores} x {each.cpu}, {each.memory_mb} MiB, {each.isa}, {each.os}"
        )


def _show(name: str, as_json: bool) -> None:
    from edgekit.targets.devices import device_profile

    document = dataclasses.asdict(device_profile(name))
    print_json(document) if as_json else _print_fields(document)


def _detect(target: str | None, ssh: str, as_json: bool) -> None:
    from edgekit.targets.devices import detect, device_profiles
    from edgekit_devices import shortcomings

    found, profile = detect(target, ssh)
    lacking = [] if profile is None else shortcomings(found, profile)
    if as_json:
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
