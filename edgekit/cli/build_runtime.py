"""`edgekit build-runtime`."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgekit_runtime.cli.parser import Program, print_json, size_text


def add_build_runtime(program: Program) -> None:
    """Add the command."""
    parser = program.command(
        "build-runtime",
        "build the offline runtime for a device: engine, all dependencies, checksums, SBOM",
        "edgekit build-runtime --device raspberry-pi-5",
        _build_runtime,
    )
    parser.add_argument("--device", required=True, metavar="D", help="device profile, or a TOML file of your own")
    takes_python(parser)
    parser.add_argument("--output", type=Path, metavar="DIR", help="also put the wheels there (default: the cache)")


def takes_python(parser: argparse.ArgumentParser) -> None:
    """Add --python, which every command that builds for a device has."""
    parser.add_argument("--python", metavar="3.N", help="the device's Python, when it isn't the profile's")


def _build_runtime(arguments: argparse.Namespace) -> None:
    from edgekit.targets.devices import device_profile
    from edgekit.targets.runtime_build import build_runtime

    house = build_runtime(device_profile(arguments.device), python=arguments.python, output=arguments.output)
    if arguments.json:
        document = {"folder": str(house.folder), "digest": house.digest, "files": list(house.files)}
        print_json(document | {"requirement": house.requirement, **vars(house.platform), "bytes": house.size})
        return
    for name in house.files:
        print(f"{size_text((house.folder / name).stat().st_size)}  {name}")
    print(
        f"{house.requirement} for {house.platform.architecture}, {house.platform.libc}, Python {house.platform.python}"
    )
    print(f"digest {house.digest}\n{house.folder}")
