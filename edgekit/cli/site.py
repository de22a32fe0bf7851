"""`edgekit site` and `edgekit serve-site`: a bundle in a browser page."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgekit_runtime.cli.arguments import ANY_PORT, whole
from edgekit_runtime.cli.parser import Program, print_json
from edgekit_runtime.errors import UsageError


def add_site(program: Program) -> None:
    """Add the command that makes a site."""
    parser = program.command(
        "site",
        "make a static site that runs a bundle in a browser page",
        "edgekit site dist/line-3 --trust line-3.key.pub --output dist/line-3-site",
        _site,
    )
    parser.add_argument("bundle", type=Path, help="bundle folder or .tar")
    parser.add_argument("--output", type=Path, metavar="DIR", help="site folder (default: BUNDLE-site)")
    parser.add_argument(
        "--trust", type=Path, metavar="FILE", help="public keys: the page takes only what one of them has signed"
    )
    parser.add_argument(
        "--adapters-from",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="another origin that adapters may be installed from (can be repeated)",
    )


def _site(arguments: argparse.Namespace) -> None:
    from edgekit.site import build_site, site_folder

    output = arguments.output or site_folder(arguments.bundle)
    document = build_site(arguments.bundle, output, trust=arguments.trust, adapters_from=arguments.adapters_from)
    if arguments.json:
        print_json({"site": str(output), "version": document["version"], "bundle": document["bundle"]})
        return
    size = sum(file["size"] for file in document["files"] if not file["lazy"])
    print(f"site {document['version']}: {output} (the app itself is {size / 1024:.0f} KiB)")
    print(f"try it: edgekit serve-site {output}")


def add_serve_site(program: Program) -> None:
    """Add the command that serves one."""
    parser = program.command(
        "serve-site", "serve a site folder for trying it out", "edgekit serve-site dist/line-3-site", _serve_site
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="what `edgekit site` or `edgekit export` wrote")
    parser.add_argument("--port", type=whole(*ANY_PORT), default=8000, help="TCP port (8000)")
    parser.add_argument(
        "--lan", action="store_true", help="for phones on the same network, over https, with a QR code of the address"
    )
    parser.add_argument(
        "--address", metavar="IPV4", help="which of this machine's addresses, with --lan (default: the network card's)"
    )
    parser.add_argument("--certificate", type=Path, metavar="PEM", help="for https, with --key (default: self-signed)")
    parser.add_argument("--key", type=Path, metavar="PEM", help="private key of the certificate")
    parser.add_argument("--no-headers", action="store_true", help="as a host does that can't set headers")


def _serve_site(arguments: argparse.Namespace) -> None:
    from edgekit.site import lan_address, serve_site
    from edgekit.site.serve import Certificate

    if arguments.json:
        raise UsageError("serve-site prints no document", "leave --json out")
    if arguments.address is not None and not arguments.lan:
        raise UsageError("an address is for other machines to reach", "give --lan too")
    given = (arguments.certificate, arguments.key)
    if (given[0] is None) != (given[1] is None):
        raise UsageError("a certificate needs its key", "give --certificate and --key")

    def ready(url: str) -> None:
        print(f"{arguments.folder} is at {url} (Ctrl-C ends)", flush=True)
        if arguments.lan:
            import segno

            segno.make(url).terminal(compact=True)

    serve_site(
        arguments.folder,
        port=arguments.port,
        address=(arguments.address or lan_address()) if arguments.lan else None,
        isolated=not arguments.no_headers,
        certificate=None if given[0] is None else Certificate(*given),
        ready=ready,
    )
