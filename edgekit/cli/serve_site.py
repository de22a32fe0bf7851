"""`edgekit serve-site`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.frame import Json, command
from edgekit.cli.options import read
from edgekit_runtime.cli.arguments import ANY_PORT, whole
from edgekit_runtime.errors import UsageError


@command("edgekit serve-site dist/line-3-site")
def serve_site(
    folder: Annotated[
        Path,
        typer.Argument(parser=Path, metavar="DIR", help="what `edgekit site` or `edgekit export` wrote"),
    ],
    port: Annotated[int, typer.Option(parser=read(whole(*ANY_PORT)), metavar="PORT", help="TCP port (8000)")] = 8000,
    lan: Annotated[
        bool,
        typer.Option("--lan", help="for phones on the same network, over https, with a QR code of the address"),
    ] = False,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="IPV4",
            help="which of this machine's addresses, with --lan (default: the network card's)",
        ),
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(parser=Path, metavar="PEM", help="for https, with --key (default: self-signed)"),
    ] = None,
    key: Annotated[Path | None, typer.Option(parser=Path, metavar="PEM", help="private key of the certificate")] = None,
    no_headers: Annotated[
        bool, typer.Option("--no-headers", help="send no security headers, as some hosts do")
    ] = False,
    as_json: Json = False,
) -> None:
    """Serve a site folder for trying it out."""
    from edgekit.site import lan_address, serve_site
    from edgekit.site.serve import Certificate

    if as_json:
        raise UsageError("serve-site prints no document", "leave --json out")
    if address is not None and not lan:
        raise UsageError("an address is for other machines to reach", "give --lan too")
    given = None if certificate is None or key is None else Certificate(certificate, key)
    if given is None and certificate is not key:
        raise UsageError("a certificate needs its key", "give --certificate and --key")

    def ready(url: str) -> None:
        print(f"{folder} is at {url} (Ctrl-C ends)", flush=True)
        if lan:
            import segno

            segno.make(url).terminal(compact=True)
            sys.stdout.flush()  # somebody may read it through a pipe

    serve_site(
        folder,
        port=port,
        address=(address or lan_address()) if lan else None,
        isolated=not no_headers,
        certificate=given,
        ready=ready,
    )
