"""Serving sites to a real browser, with the faults that networks and hosts have."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.browser import CHROMIUM, QUIET

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PHONE = {"width": 360, "height": 740}
PATIENCE_MS = 60_000  # of what a page is expected to show: machines may be busy


class SiteHost:
    """A host of a site; ``asked`` are the paths it was asked for, with the range."""

    def __init__(self, folder: Path, *, isolated: bool) -> None:
        from edgekit.site.serve import site_app

        self.asked: list[tuple[str, str | None]] = []
        self.cut: dict[str, int] = {}  # path -> bytes after which the connection breaks, once
        self.url = ""
        self._app = site_app(folder, isolated=isolated)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path, headers = scope.get("path", ""), dict(scope.get("headers", ()))
        self.asked.append((path, headers.get(b"range", b"").decode() or None))
        left = self.cut.pop(path, None)
        sent = 0

        async def limited(message: Any) -> None:
            nonlocal sent
            body = message.get("body", b"")
            if left is not None and sent + len(body) > left:
                await send({"type": "http.response.body", "body": body[: left - sent], "more_body": True})
                raise ConnectionAbortedError("cut by the test")
            sent += len(body)
            await send(message)

        await self._app(scope, receive, limited)


@contextmanager
def hosting(folder: Path, *, isolated: bool = True) -> Iterator[SiteHost]:
    """Serve a site on a free loopback port until the block is left."""
    import uvicorn

    host = SiteHost(folder, isolated=isolated)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(host, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    host.url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    try:
        yield host
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; each of its contexts is a phone of its own."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def phone(browser: Browser, **options: Any) -> Iterator[Page]:
    """A page of a phone that nobody has used; what goes wrong in it fails the test."""
    context = browser.new_context(viewport=PHONE, device_scale_factor=2, has_touch=True, is_mobile=True, **options)
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if "Content Security" in message.text else None)
    try:
        yield page
        assert not problems
    finally:
        context.close()


def load_module(page: Page, host: SiteHost, **options: Any) -> dict[str, Any]:
    """Load the bundle through the JS module alone, on one thread; gives ``info``, or the error's code and message."""
    page.goto(host.url + "edgekit-runtime/blank.html")
    result: dict[str, Any] = page.evaluate(
        """async (options) => {
          globalThis.module = await import("./index.js");
          try {
            globalThis.runtime = await module.load("../", { threads: 1, ...options });
            return runtime.info;
          } catch (error) {
            return { code: error.code, message: error.message };
          }
        }""",
        options,
    )
    return result


def ask(page: Page, **request: Any) -> dict[str, Any]:
    """One answer of the loaded runtime."""
    answer: dict[str, Any] = page.evaluate("(request) => runtime.generate(request)", request)
    return answer
