"""`edgekit verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.frame import Json, command
from edgekit.cli.options import Bundle
from edgekit_runtime.cli.parser import print_json


@command("edgekit verify dist/line-3")
def verify(
    bundle: Bundle,
    trust: Annotated[
        Path | None,
        typer.Option(parser=Path, metavar="FILE", help="public keys: one of them has to have signed it"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check every file of a bundle."""
    from edgekit_runtime.formats.bundle import open_bundle

    with open_bundle(bundle, trust=trust) as opened:
        manifest = opened.manifest
    if as_json:
        print_json({"bundle": manifest.name, "version": manifest.version, "files": len(manifest.files), "ok": True})
    else:
        print(f"{manifest.name} {manifest.version}: {len(manifest.files)} files are what the manifest says")
