"""`edgekit site`: a bundle in a browser page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.frame import Json, command
from edgekit.cli.options import Bundle
from edgekit_runtime.cli.parser import print_json


@command("edgekit site dist/line-3 --trust line-3.key.pub --output dist/line-3-site")
def site(
    bundle: Bundle,
    output: Annotated[
        Path | None, typer.Option(parser=Path, metavar="DIR", help="site folder (default: BUNDLE-site)")
    ] = None,
    trust: Annotated[
        Path | None,
        typer.Option(parser=Path, metavar="FILE", help="public keys: the page takes only what one of them has signed"),
    ] = None,
    adapters_from: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="another origin that adapters may be installed from (can be repeated)"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a static site that runs a bundle in a browser page."""
    from edgekit.site import build_site, site_folder

    folder = output or site_folder(bundle)
    document = build_site(bundle, folder, trust=trust, adapters_from=adapters_from or [])
    if as_json:
        print_json({"site": str(folder), "version": document["version"], "bundle": document["bundle"]})
        return
    size = sum(file["size"] for file in document["files"] if not file["lazy"])
    print(f"site {document['version']}: {folder} (the app itself is {size / 1024:.0f} KiB)")
    print(f"try it: edgekit serve-site {folder}")
