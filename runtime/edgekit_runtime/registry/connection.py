"""HTTP to one repository of a registry: TLS, logins, redirects, and which failures another try may mend.

Plain HTTP goes to registries on this machine alone, as with docker.  A login and a token go to the registry that asked
for them, never to where it redirects.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, LocationValueError, NewConnectionError, SSLError

from edgekit_runtime.errors import InputError, TargetError, one_line
from edgekit_runtime.files.strict_json import json_object
from edgekit_runtime.registry.challenges import challenge_of
from edgekit_runtime.registry.credentials import login_for
from edgekit_runtime.registry.reference import Reference, is_loopback

Response = urllib3.BaseHTTPResponse
Body = Callable[[], BinaryIO | bytes]
Result = TypeVar("Result")

PIECE = 256 * 1024  # bytes that are lost at most when a connection breaks
WAITS = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds before each next try: a registry that restarts is back by then
MOST_SECONDS = 60.0  # that a registry may ask us to wait
_TIMEOUT = urllib3.Timeout(connect=10, read=120)  # seconds; a registry hashes a large upload before it answers
_REDIRECTS = 5
_LIMITED_SECONDS = 0.25  # that one piece takes where the rate is limited
_MOVED = (301, 302, 303, 307, 308)
_BUSY = (408, 429, 500, 502, 503, 504)
_SAID_BYTES = 64 * 1024  # of an error's or a token's JSON
PULL, PUSH = "pull", "pull,push"


class Broken(TargetError):
    """A registry that did not answer, or not to the end; another try may do better, after ``seconds``."""

    def __init__(self, problem: str, hint: str, seconds: float = 0.0) -> None:
        super().__init__(problem, hint)
        self.seconds = seconds


class Connection:
    """Requests to the repository of ``reference``.

    Attributes:
        reference: whose repository is meant.
        waits: seconds before each next try.
        answered: whether the registry has ever answered; one that never did is not waited for.
        rate: bytes a second that bodies may take; None for all that the line gives.
    """

    def __init__(
        self,
        reference: Reference,
        *,
        ca: Path | None = None,
        actions: str = PULL,
        waits: Sequence[float] = WAITS,
        rate: float | None = None,
    ) -> None:
        """Nothing is sent yet.

        Args:
            reference: its host and repository count.
            ca: certificates (PEM) of authorities that are trusted besides the system's; a registry on this machine is
                asked over TLS where they are given.
            actions: ``PULL``, or ``PUSH`` for whoever writes too.
            waits: seconds before each next try.
            rate: bytes a second that bodies of answers may take.

        Raises:
            InputError: ``ca`` holds no certificates.
        """
        self.reference, self.waits, self.rate = reference, waits, rate
        self._plain = reference.is_loopback and ca is None
        self._root = f"{'http' if self._plain else 'https'}://{reference.host}"
        self._scope = f"repository:{reference.repository}:{actions}"
        self._pools: dict[
            bool, urllib3.PoolManager
        ] = {}  # by whether they have TLS, whose authorities take long to read
        if not self._plain:
            self._pools[True] = _pool(_tls(ca))
        self._authorization: str | None = None
        self.answered = False

    @contextmanager
    def ask(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: Body | None = None
    ) -> Iterator[Response]:
        """One request with its answer, whose body has not been read; what can't be answered is raised.

        Args:
            method: of HTTP.
            path: below the repository (``/manifests/1.0``), or a whole URL that the registry gave.
            headers: more of them.
            body: gives what is sent; it is asked again when the request has to be sent again.

        Yields:
            A response with a status of 200 to 299, 404 or 416.

        Raises:
            Broken: no answer, or one that says that the registry is busy.
            TargetError: the registry refuses us.
        """
        url = urljoin(f"{self._root}/", path if "://" in path else f"/v2/{self.reference.repository}{path}")
        response = self._send(method, url, headers or {}, body)
        try:
            if response.status in _BUSY:
                raise self._busy(response)
            if not (200 <= response.status < 300 or response.status in (404, 416)):
                raise self._refused(response)
            yield response
        finally:
            response.close()

    def pieces(self, response: Response) -> Iterator[bytes]:
        """The body of an answer as it comes.

        Raises:
            Broken: it ends before its end.
        """
        size = PIECE if self.rate is None else max(1, min(PIECE, int(self.rate * _LIMITED_SECONDS)))
        began, brought = time.monotonic(), 0
        while True:
            with self._translated():
                piece = response.read1(size, decode_content=False)
            if not piece:
                return
            yield piece
            brought += len(piece)
            if self.rate is not None:
                time.sleep(max(0.0, began + brought / self.rate - time.monotonic()))

    def whole(self, response: Response, most: int, what: str) -> bytes:
        """The whole body of an answer.

        Raises:
            InputError: it has more than ``most`` bytes.
            Broken: it ends before its end.
        """
        content = b""
        for piece in self.pieces(response):
            content += piece
            if len(content) > most:
                raise InputError(f"{what} has more than the {most} bytes that it can have", "push the bundle again")
        return content

    def patiently(self, work: Callable[[], Result]) -> Result:
        """Do ``work``, again where a registry that has answered before does not answer now.

        Raises:
            Broken: it doesn't come back.
        """
        for wait in (*self.waits, None):
            try:
                return work()
            except Broken as error:
                if wait is None or not self.answered:
                    raise
                self.pause(wait, error)
        raise AssertionError("the last try returns or raises")

    def pause(self, wait: float, error: Broken) -> None:
        """Wait before the next try: ``wait`` seconds, or as long as the registry asked for."""
        time.sleep(min(max(wait, error.seconds), MOST_SECONDS))

    def _send(self, method: str, url: str, headers: Mapping[str, str], body: Body | None) -> Response:
        """Send a request, answer a challenge once, and follow redirects of reads."""
        asked, own = False, self._is_own(url)
        for _ in range(_REDIRECTS + 2):
            response = self._exchange(method, url, headers, body, own)
            if response.status == 401 and own and not asked:
                asked = True
                challenge = response.headers.getlist("WWW-Authenticate")
                response.close()
                self._authorization = self._answer(challenge)
                continue
            location = response.headers.get("Location")
            if response.status not in _MOVED or location is None or method not in ("GET", "HEAD"):
                return response
            response.close()
            url = urljoin(url, location)
            own = own and self._is_own(url)  # who is sent away does not come back with a login
        raise TargetError(f"{self.reference.host} redirects without end", "ask whoever runs the registry")

    def _exchange(self, method: str, url: str, headers: Mapping[str, str], body: Body | None, own: bool) -> Response:
        self._check_scheme(url)
        sent = {"Accept-Encoding": "identity", "User-Agent": "edgekit", **headers}
        if own and self._authorization is not None:
            sent["Authorization"] = self._authorization
        content = None if body is None else body()
        try:
            with self._translated():
                response = self._pool_for(url).request(
                    method, url, headers=sent, body=content, preload_content=False, redirect=False
                )
        finally:
            if content is not None and not isinstance(content, bytes):
                content.close()
        self.answered = True
        return response

    def _pool_for(self, url: str) -> urllib3.PoolManager:
        secure = urlsplit(url).scheme == "https"
        if secure not in self._pools:
            self._pools[secure] = _pool(_tls(None) if secure else None)
        return self._pools[secure]

    def _check_scheme(self, url: str) -> None:
        parts = urlsplit(url)
        plain_here = self._plain and parts.scheme == "http" and is_loopback(parts.hostname or "")
        if parts.scheme != "https" and not plain_here:
            problem = f"{self.reference.host} leads to {one_line(f'{parts.scheme}://{parts.netloc}')}, which has no TLS"
            raise TargetError(problem, "ask whoever runs the registry for addresses with https")

    def _is_own(self, url: str) -> bool:
        parts, own = urlsplit(url), urlsplit(self._root)
        return (parts.scheme, parts.netloc) == (own.scheme, own.netloc)

    def _answer(self, headers: Sequence[str]) -> str:
        """The value of Authorization that answers a challenge."""
        host = self.reference.host
        challenge, login = challenge_of(headers), login_for(host)
        if challenge is None:
            raise TargetError(f"{host} refuses without saying what it asks for", "ask whoever runs the registry")
        if challenge.scheme == "basic":
            if login is None:
                raise TargetError(f"{host} asks for a login", f"log in: `docker login {host}`")
            return login.basic
        headers_ = {} if login is None else {"Authorization": login.basic}
        response = self._exchange("GET", challenge.token_url(self._scope), headers_, None, own=False)
        try:
            if response.status in _BUSY:
                raise self._busy(response)
            if response.status != 200:
                raise self._refused(response)
            given = json_object(self.whole(response, _SAID_BYTES, f"the token of {host}")) or {}
        finally:
            response.close()
        token = given.get("token") or given.get("access_token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise TargetError(f"{host} gave no token", "ask whoever runs the registry")
        return f"Bearer {token}"

    def _busy(self, response: Response) -> Broken:
        seconds = response.headers.get("Retry-After", "")
        wait = float(seconds) if seconds.isdecimal() else 0.0
        return Broken(f"{self.reference.host} answers {response.status}{self._said(response)}", "try again later", wait)

    def _refused(self, response: Response) -> TargetError:
        host, status = self.reference.host, response.status
        problem = f"{host} refuses {self.reference.repository} ({status}{self._said(response)})"
        if status in (401, 403):
            return TargetError(problem, f"log in as somebody who may: `docker login {host}`")
        return TargetError(problem, "ask whoever runs the registry")

    def _said(self, response: Response) -> str:
        """What the registry says of an error, in its words; nothing when it says nothing."""
        try:
            document = json_object(self.whole(response, _SAID_BYTES, "an error")) or {}
        except (InputError, Broken):
            return ""
        errors = document.get("errors")
        first = errors[0] if isinstance(errors, list) and errors else None
        message = first.get("message") if isinstance(first, dict) else None
        return f": {one_line(message)}" if isinstance(message, str) and message else ""

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Errors of the library in our words."""
        host = self.reference.host
        try:
            yield
        except SSLError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                problem = f"{host} has a certificate that nobody here trusts ({_why(error)})"
                raise TargetError(problem, "give its authority's certificate: --ca FILE") from None
            raise Broken(f"{host} has no working TLS ({_why(error)})", "check its address and port") from None
        except LocationValueError:
            raise TargetError(f"{host} leads to an address that is none", "ask whoever runs the registry") from None
        except (NewConnectionError, ConnectTimeoutError) as error:
            raise Broken(f"{host} can't be reached ({_why(error)})", "check its address, and the network") from None
        except (HTTPError, OSError) as error:
            raise Broken(f"the connection to {host} broke ({_why(error)})", "check the network, try again") from None


def _why(error: BaseException) -> str:
    """The innermost reason of a library's error."""
    while error.__cause__ is not None or isinstance(next(iter(error.args[-1:]), None), BaseException):
        error = error.__cause__ or error.args[-1]
    return one_line(getattr(error, "strerror", None) or str(error) or type(error).__name__)


def _pool(context: ssl.SSLContext | None) -> urllib3.PoolManager:
    return urllib3.PoolManager(ssl_context=context, retries=False, timeout=_TIMEOUT)


def _tls(ca: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca is not None:
        try:
            context.load_verify_locations(cafile=ca)
        except (OSError, ssl.SSLError) as error:
            why = error.strerror or "no certificates"
            raise InputError(f"{ca} can't be used ({why})", "give a file of certificates (PEM)") from None
    return context
