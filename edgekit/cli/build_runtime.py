"""`edgekit build-runtime`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.frame import Json, command
from edgekit.cli.options import Device, Python
from edgekit_runtime.cli.parser import print_json, size_text


@command("edgekit build-runtime --device raspberry-pi-5")
def build_runtime(
    device: Device,
    python: Python = None,
    output: Annotated[
        Path | None,
        typer.Option(parser=Path, metavar="DIR", help="also put the wheels there (default: the cache)"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Build the offline runtime for a device: engine, all dependencies, checksums, SBOM."""
    from edgekit.targets.devices import device_profile
    from edgekit.targets.runtime_build import build_runtime

    house = build_runtime(device_profile(device), python=python, output=output)
    if as_json:
        document = {"folder": str(house.folder), "digest": house.digest, "files": list(house.files)}
        print_json(document | {"requirement": house.requirement, **vars(house.platform), "bytes": house.size})
        return
    for name in house.files:
        print(f"{size_text((house.folder / name).stat().st_size)}  {name}")
    print(
        f"{house.requirement} for {house.platform.architecture}, {house.platform.libc}, Python {house.platform.python}"
    )
    print(f"digest {house.digest}\n{house.folder}")
