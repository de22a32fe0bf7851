"""`edgekit push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.frame import Json, command
from edgekit.cli.options import Bundle
from edgekit_runtime.cli.arguments import CA
from edgekit_runtime.cli.parser import print_json

MIB = 1024**2


@command("edgekit push dist/line-3 oci://registry.example/line-3:1.4")
def push(
    bundle: Bundle,
    reference: Annotated[str, typer.Argument(metavar="REFERENCE", help="oci://HOST[:PORT]/REPOSITORY:TAG")],
    ca: Annotated[Path | None, typer.Option(parser=Path, metavar="FILE", help=CA)] = None,
    as_json: Json = False,
) -> None:
    """Put a bundle into an OCI registry."""
    from edgekit.targets.push import push
    from edgekit_runtime.registry.reference import Reference

    done = push(bundle, Reference.parse(reference), ca=ca)
    if as_json:
        print_json({"reference": str(done.reference), "sent": done.sent, "signed": done.signed})
    else:
        signed = "with its signature" if done.signed else "not signed"
        print(f"{done.reference}\n{done.sent / MIB:.1f} MiB sent, {signed}")
