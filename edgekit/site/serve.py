"""Serving a site folder for trying it out: the headers that threads need, and ranges for downloads that go on."""

from __future__ import annotations

import datetime
import ipaddress
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.site.build import BUNDLE_FOLDER, is_site
from edgekit.site.policy import BUNDLE_POLICY, response_headers
from edgekit_runtime.errors import InputError, TargetError, UsageError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = "127.0.0.1"
CERTIFICATE_DAYS = 30
# The page's own policy stands in it, with the origins it was built for.
ISOLATION = {name: value for name, value in response_headers().items() if name != "Content-Security-Policy"}


@dataclass(frozen=True)
class Certificate:
    """Files in PEM."""

    certificate: Path
    key: Path


def site_app(folder: Path, *, isolated: bool = True) -> Starlette:
    """The site as an ASGI application; without ``isolated`` as a host that sets no headers."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.routing import Mount
    from starlette.staticfiles import StaticFiles

    class Site(StaticFiles):
        def file_response(self, full_path: Any, *args: Any, **kwargs: Any) -> Response:
            response = super().file_response(full_path, *args, **kwargs)
            if isolated and Path(full_path).is_relative_to(bundle):
                response.headers["Content-Security-Policy"] = BUNDLE_POLICY
            return response

    bundle = Path(os.path.realpath(folder)) / BUNDLE_FOLDER
    site = Site(directory=folder, html=True)
    middleware = [Middleware(_Headers)] if isolated else []
    return Starlette(routes=[Mount("/", site)], middleware=middleware)


def serve_site(
    folder: Path,
    *,
    port: int = 8000,
    address: str | None = None,
    isolated: bool = True,
    certificate: Certificate | None = None,
    ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve until interrupted.

    Args:
        folder: a site that :func:`~edgekit.site.build_site` wrote.
        port: TCP port; 0 for a free one.
        address: IPv4 address of this machine to listen at instead of loopback, over HTTPS: browsers give pages from
            elsewhere storage, digests and threads on secure connections only.
        isolated: send the headers that isolate the page, as a host should.
        certificate: for HTTPS; a self-signed one is made for ``address`` when None.
        ready: called with the address once it answers.

    Raises:
        InputError: no site.
        UsageError: no IPv4 address.
        TargetError: the port is taken, or the address is another machine's.
    """
    if not is_site(folder):
        raise InputError(f"{folder} is no site", "`edgekit site BUNDLE` and `edgekit export` make one")
    host = LOOPBACK if address is None else address
    if not _is_ipv4(host):
        raise UsageError(f"{host!r} is no IPv4 address", "give one of this machine's, 192.168.1.20 say")
    import uvicorn

    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:  # a port that there can't be
        listener.close()
        raise TargetError(
            f"{host}:{port} can't be used ({getattr(error, 'strerror', None) or error})",
            "choose another with --port, or --address",
        ) from None
    if address is not None and certificate is None:
        certificate = _self_signed(host)
    config = uvicorn.Config(
        site_app(folder, isolated=isolated),
        log_level="warning",
        ssl_certfile=None if certificate is None else certificate.certificate,
        ssl_keyfile=None if certificate is None else certificate.key,
    )
    listener.listen()
    ready(f"{'http' if certificate is None else 'https'}://{host}:{listener.getsockname()[1]}/")
    with listener:
        uvicorn.Server(config).run(sockets=[listener])


def _is_ipv4(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 4
    except ValueError:
        return False


class _Headers:
    """Adds the isolating headers to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    *((name.lower().encode(), value.encode()) for name, value in ISOLATION.items()),
                    (b"cache-control", b"no-cache"),  # whoever tries a site wants to see the last build
                ]
            await send(message)

        await self._app(scope, receive, with_headers)


def _self_signed(host: str) -> Certificate:
    """A certificate for ``host``, kept until it runs out, so that a phone is asked about it once."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    from edgekit_exporters.cache import cache_folder

    folder = cache_folder("site-certificates")
    files = Certificate(folder / f"{host}.pem", folder / f"{host}.key")
    now = datetime.datetime.now(datetime.UTC)
    if files.certificate.exists() and files.key.exists():
        known = x509.load_pem_x509_certificate(files.certificate.read_bytes())
        if known.not_valid_after_utc > now:
            return files
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "edgekit serve-site")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=CERTIFICATE_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    files.key.unlink(missing_ok=True)
    with os.fdopen(os.open(files.key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(private)
    files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return files
