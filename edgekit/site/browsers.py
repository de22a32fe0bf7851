"""This machine's browsers, for measurements: one page each, without a window.

Chromium is driven by Playwright.  Playwright drives only a Firefox of its own, so the system's is spoken to in
WebDriver BiDi (https://w3c.github.io/webdriver-bidi/), which it has built in.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from edgekit_runtime import machine
from edgekit_runtime.errors import InputError, TargetError, UsageError
from edgekit_runtime.hints import did_you_mean

if TYPE_CHECKING:
    from playwright.sync_api import Page
    from websockets.sync.client import ClientConnection

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FIREFOX = ("firefox-esr", "firefox")
# No window, no calls home; the sandbox needs privileges that containers lack.
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
START_SECONDS = 60
MOST_SECONDS = 3600  # for one call


class Tab(Protocol):
    """A page; ``name`` is the browser with its version."""

    name: str

    def goto(self, url: str) -> None:
        """Load a page."""

    def run(self, code: str, argument: Any = None) -> Any:
        """Call the JavaScript function ``code`` and wait for what it gives, as JSON has it.

        Raises:
            InputError: it throws.
        """

    def peak_mb(self) -> float | None:
        """Peak RSS of the page's process; None where Linux doesn't tell."""


@contextmanager
def _chromium() -> Iterator[Tab]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise _extra_is_missing("Playwright") from None
    path = _found(CHROMIUM, "Chromium", "chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*OPTIONS])
        try:
            page = browser.new_page()
            page.set_default_timeout(0)
            yield _ChromiumTab(f"Chromium {browser.version}", page)
        finally:
            browser.close()


class _ChromiumTab:
    def __init__(self, name: str, page: Page) -> None:
        self.name, self._page = name, page

    def goto(self, url: str) -> None:
        self._page.goto(url)

    def run(self, code: str, argument: Any = None) -> Any:
        from playwright.sync_api import Error

        try:
            return self._page.evaluate(code, argument)
        except Error as error:
            raise _failed(error.message) from None

    def peak_mb(self) -> float | None:
        return _peak_mb(lambda words: "--type=renderer" in words)


@contextmanager
def _firefox() -> Iterator[Tab]:
    try:
        from websockets.sync.client import connect
    except ImportError:
        raise _extra_is_missing("websockets") from None
    path = _found(FIREFOX, "Firefox", "firefox-esr")
    with tempfile.TemporaryDirectory(prefix="edgekit-firefox-", ignore_cleanup_errors=True) as profile:
        command = [path, "--headless", "--no-remote", "--profile", profile, "--remote-debugging-port=0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                address = f"{_bidi_address(process)}/session"
                # No pings: a browser that computes on all cores may leave them unanswered for long.
                with connect(address, max_size=None, open_timeout=START_SECONDS, ping_interval=None) as socket:
                    yield _FirefoxTab(socket)
            finally:
                process.terminate()


def _bidi_address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        if found := re.search(r"ws://\S+", line):
            return found[0]
        said = line.strip() or said
    raise TargetError(f"Firefox doesn't start ({said})", "start it by hand with --headless to see why")


class _FirefoxTab:
    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._sent = socket, 0
        said = self._send("session.new", capabilities={})["capabilities"]
        self.name = f"Firefox {said['browserVersion']}"
        self._context = self._send("browsingContext.getTree")["contexts"][0]["context"]

    def goto(self, url: str) -> None:
        self._send("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def run(self, code: str, argument: Any = None) -> Any:
        said = self._send(
            "script.callFunction",
            # As text: BiDi has a form of its own for values.
            functionDeclaration=f"async (given) => JSON.stringify(await ({code})(JSON.parse(given)) ?? null)",
            arguments=[{"type": "string", "value": json.dumps(argument)}],
            awaitPromise=True,
            target={"context": self._context},
        )
        if said["type"] == "exception":
            raise _failed(said["exceptionDetails"]["text"])
        return json.loads(said["result"]["value"])

    def peak_mb(self) -> float | None:
        return _peak_mb(lambda words: "-contentproc" in words and "tab" in words)

    def _send(self, method: str, **parameters: Any) -> Any:
        self._sent += 1
        self._socket.send(json.dumps({"id": self._sent, "method": method, "params": parameters}))
        while True:
            said = json.loads(self._socket.recv(MOST_SECONDS))
            if said.get("id") != self._sent:
                continue  # an event
            if said["type"] == "error":
                raise TargetError(f"Firefox refuses {method} ({said['message']})", "update Firefox")
            return said["result"]


BROWSERS: dict[str, Callable[[], AbstractContextManager[Tab]]] = {"chromium": _chromium, "firefox": _firefox}


def open_tab(browser: str) -> AbstractContextManager[Tab]:
    """A page in one of ``BROWSERS``, until the block is left.

    Raises:
        UsageError: there is no such browser.
        TargetError: it, or what drives it, is not installed.
    """
    if browser not in BROWSERS:
        raise UsageError(f"pages are not measured in {browser!r}", did_you_mean(browser, BROWSERS))
    return BROWSERS[browser]()


def _found(names: tuple[str, ...], title: str, package: str) -> str:
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        raise TargetError(f"there is no {title} on this machine", f"install it: apt-get install {package}")
    return path


def _extra_is_missing(name: str) -> TargetError:
    return TargetError(f"{name} is not installed", "pip install 'edgekit[browser]'")


def _failed(message: str) -> InputError:
    return InputError(f"the page failed: {message.splitlines()[0]}", "see docs/phones.md for limits")


def _peak_mb(is_page: Callable[[list[str]], bool]) -> float | None:
    """Of the largest such process below this one."""
    import psutil

    peaks = []
    for process in psutil.Process().children(recursive=True):
        try:
            if is_page(process.cmdline()):
                peaks.append(machine.peak_rss_mb(process.pid))
        except (psutil.Error, OSError):
            continue
    return max(filter(None, peaks), default=None)
