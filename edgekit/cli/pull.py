"""`edgekit pull`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.frame import Json, command
from edgekit_runtime.cli.arguments import CA
from edgekit_runtime.cli.parser import print_json

MIB = 1024**2


@command("edgekit pull oci://registry.example/line-3:1.4 --trust line-3.key.pub")
def pull(
    reference: Annotated[
        str, typer.Argument(metavar="REFERENCE", help="oci://HOST[:PORT]/REPOSITORY:TAG, or @sha256:HEX")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            parser=Path, metavar="DIR", help="folder of the bundle (default: dist/ and the repository's name)"
        ),
    ] = None,
    trust: Annotated[
        Path | None,
        typer.Option(parser=Path, metavar="FILE", help="public keys: one of them has to have signed it"),
    ] = None,
    ca: Annotated[Path | None, typer.Option(parser=Path, metavar="FILE", help=CA)] = None,
    as_json: Json = False,
) -> None:
    """Bring a bundle from an OCI registry into a folder."""
    from edgekit.targets.pull import pull
    from edgekit_runtime.registry.reference import Reference

    named = Reference.parse(reference)
    folder = output or Path("dist") / named.repository.rpartition("/")[2]
    done = pull(named, folder, trust=trust, ca=ca)
    if as_json:
        print_json(
            {
                "reference": str(done.reference),
                "bundle": str(done.folder),
                "downloaded": done.downloaded,
                "signed": done.signed,
            }
        )
    else:
        signed = "signed" if done.signed else "not signed"
        print(f"{done.folder}\n{done.reference}, {signed}, {done.downloaded / MIB:.1f} MiB downloaded")
