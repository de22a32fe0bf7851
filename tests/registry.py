"""A registry of OCI's distribution specification on loopback, which can fail in all the ways that real ones do.

It has what `edgekit push` and devices use: blobs with ranges, uploads of one request, manifests, referrers, logins.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

_LARGE = 10_000  # bytes
USER, SECRET = "fleet", "s3cret:with colon"
_BASIC = "Basic " + base64.b64encode(f"{USER}:{SECRET}".encode()).decode()


@dataclass
class Registry:
    """What it has, and how it behaves.

    Attributes:
        auth: ``basic`` or ``bearer`` where a login is asked for.
        ranges: whether it knows them.
        lists_referrers: whether it has OCI 1.1's list.
        cut_after: for each of the next downloads of blobs that are larger, after how many bytes the connection breaks.
        busy: how many of the next requests get 503.
        lies: digests of blobs, each with the bytes that are sent in their place.
        redirect: where blobs are, in another registry.
        page: most tags in one answer.
        sent: bytes of all answers, heads included.
        asked: method, path and the headers of each request.
    """

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    auth: str | None = None
    ranges: bool = True
    lists_referrers: bool = True
    cut_after: list[int] = field(default_factory=list)
    busy: int = 0
    lies: dict[str, bytes] = field(default_factory=dict)
    redirect: str | None = None
    page: int = 1000
    tokens: set[str] = field(default_factory=set)
    sent: int = 0
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    host: str = ""
    certificate: tuple[Path, Path] | None = None
    _server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        """Serve, at the address of before where there was one."""
        registry = self

        class Handler(_Handler):
            pass

        Handler.registry = registry
        port = int(self.host.rpartition(":")[2]) if self.host else 0
        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        if self.certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Be gone; what it has stays."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def downloads(self) -> list[str]:
        """The digests of blobs that were asked for."""
        return [path.rpartition(":")[2] for method, path, _ in self.asked if method == "GET" and "/blobs/" in path]

    def forget(self) -> None:
        """Count anew."""
        self.sent = 0
        self.asked.clear()

    def referring_to(self, digest: str) -> list[dict[str, Any]]:
        found = []
        for kind, content in {each[1]: each for each in self.manifests.values()}.values():
            document = json.loads(content)
            if document.get("subject", {}).get("digest") == digest:
                told = {"mediaType": kind, "digest": digest_of(content), "size": len(content)}
                found.append(told | {"artifactType": document["artifactType"]})
        return found


@contextmanager
def running(**behaviour: Any) -> Iterator[Registry]:
    """A registry for as long as the block."""
    registry = Registry(**behaviour)
    registry.start()
    try:
        yield registry
    finally:
        registry.stop()


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    registry: Registry
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, ssl.SSLError):
            self.close_connection = True

    def _serve(self) -> None:
        registry, body = self.registry, self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        registry.asked.append((self.command, url.path, dict(self.headers)))
        if registry.busy:
            registry.busy -= 1
            return self._say(503, b'{"errors": [{"message": "starting"}]}')
        if url.path == "/token":
            return self._give_token(parse_qs(url.query))
        if not self._allowed():
            return self._challenge()
        query = parse_qs(url.query)
        if found := re.fullmatch(r"/v2/[a-z0-9/-]+/blobs/(sha256:[0-9a-f]{64})", url.path):
            return self._blob(found[1])
        if re.fullmatch(r"/v2/[a-z0-9/-]+/blobs/uploads/", url.path):
            return self._say(202, headers={"Location": f"{url.path}{secrets.token_hex(8)}?state=1"})
        if "/blobs/uploads/" in url.path:
            if digest_of(body) != query["digest"][0]:
                return self._say(400, b'{"errors": [{"message": "digest invalid"}]}')
            registry.blobs[query["digest"][0]] = body
            return self._say(201)
        if found := re.fullmatch(r"/v2/[a-z0-9/-]+/manifests/([^/]+)", url.path):
            return self._manifest(found[1], body)
        if re.fullmatch(r"/v2/[a-z0-9/-]+/tags/list", url.path):
            return self._tags(int(query["n"][0]), query.get("last", [""])[0])
        if (found := re.fullmatch(r"/v2/[a-z0-9/-]+/referrers/(.+)", url.path)) and registry.lists_referrers:
            return self._say(200, json.dumps({"manifests": registry.referring_to(found[1])}).encode())
        return self._say(404)

    do_GET = do_HEAD = do_POST = do_PUT = _serve  # noqa: N815

    def _blob(self, digest: str) -> None:
        registry = self.registry
        if registry.redirect is not None and self.command == "GET":
            return self._say(307, headers={"Location": f"{registry.redirect}{self.path}"})
        if digest not in registry.blobs:
            return self._say(404)
        content, status, headers = registry.lies.get(digest, registry.blobs[digest]), 200, {}
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and registry.ranges:
            first = int(asked[1])
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
            content, status = content[first:], 206
        breaks = self.command == "GET" and len(content) > max([_LARGE, *registry.cut_after[:1]])
        cut = registry.cut_after.pop(0) if breaks and registry.cut_after else None
        return self._say(status, content, headers, cut)

    def _manifest(self, name: str, body: bytes) -> None:
        registry = self.registry
        if self.command != "PUT":
            if name not in registry.manifests:
                return self._say(404)
            kind, content = registry.manifests[name]
            return self._say(200, content, {"Content-Type": kind, "Docker-Content-Digest": digest_of(content)})
        document = json.loads(body)
        blobs = [document["config"], *document["layers"]] if "layers" in document else []
        if not all(each["digest"] in registry.blobs for each in blobs):
            return self._say(400, b'{"errors": [{"message": "blob unknown"}]}')
        registry.manifests[name] = registry.manifests[digest_of(body)] = (self.headers["Content-Type"], body)
        known = registry.lists_referrers and "subject" in document
        return self._say(201, headers={"OCI-Subject": document["subject"]["digest"]} if known else {})

    def _tags(self, most: int, last: str) -> None:
        """At most ``page`` at once, as real ones have their own limit."""
        names = sorted(name for name in self.registry.manifests if ":" not in name and name > last)
        some = names[: min(most, self.registry.page)]
        link = {"Link": f'</v2/x/tags/list?last={some[-1]}&n={most}>; rel="next"'} if some != names else {}
        return self._say(200, json.dumps({"tags": some or None}).encode(), link)

    def _allowed(self) -> bool:
        given = self.headers.get("Authorization", "")
        if self.registry.auth == "bearer":
            return given.removeprefix("Bearer ") in self.registry.tokens
        return self.registry.auth is None or given == _BASIC

    def _challenge(self) -> None:
        how = 'Basic realm="registry"'
        if self.registry.auth == "bearer":
            scheme = "https" if self.registry.certificate else "http"
            how = f'Bearer realm="{scheme}://{self.registry.host}/token",service="tests",scope="repository:x:pull"'
        self._say(401, b'{"errors": [{"message": "who are you?"}]}', {"WWW-Authenticate": how})

    def _give_token(self, query: dict[str, list[str]]) -> None:
        if self.headers.get("Authorization") != _BASIC:
            return self._say(401, b'{"errors": [{"message": "wrong secret"}]}')
        assert query["service"] == ["tests"]
        token = f"{query['scope'][0]}-{secrets.token_hex(4)}"
        self.registry.tokens.add(token)
        return self._say(200, json.dumps({"token": token}).encode())

    def _say(
        self, status: int, content: bytes = b"", headers: dict[str, str] | None = None, cut: int | None = None
    ) -> None:
        head = [f"HTTP/1.1 {status} x", f"Content-Length: {len(content)}"]
        head += [f"{name}: {value}" for name, value in (headers or {}).items()]
        whole = "\r\n".join([*head, "", ""]).encode()
        body = b"" if self.command == "HEAD" else content if cut is None else content[:cut]
        self.wfile.write(whole + body)
        self.registry.sent += len(whole) + len(body)
        if cut is not None:
            self.close_connection = True
