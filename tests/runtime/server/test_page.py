"""The status page in a real browser."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from edgekit_runtime.formats.bundle import read_manifest
from tests.browser import needs_chromium, page
from tests.goods import Goods
from tests.screen import check
from tests.service import serving

pytestmark = needs_chromium


def test_the_page_answers_and_shows_what_goes_on(demo_bundle: Path) -> None:
    from playwright.sync_api import expect

    with serving(demo_bundle) as service, page() as tab:
        problems: list[str] = []
        tab.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.goto(service.url)
        tab.wait_for_selector("#state.ok")
        names = tab.locator("#model option").evaluate_all("(all) => all.map((each) => each.value)")
        assert names == ["one", "two", "base"]
        manifest = read_manifest(demo_bundle)
        assert tab.title() == f"{manifest.name}: edgekit"
        assert tab.inner_text("h1") == manifest.name
        assert tab.inner_text("#about") == f"Bundle {manifest.version} · base smollm2-135m, Q4_0"
        assert tab.locator("#adapters tr").count() == 2
        expect(tab.locator("#adapters")).to_contain_text(manifest.adapters[0].digest[:12])
        expect(tab.locator("#no-errors")).to_have_text("No errors yet.")
        expect(tab.locator("#figures")).to_contain_text("0 running, 0 waiting")
        tab.select_option("#model", "two")
        tab.fill("#prompt", "What is a bracket?")
        tab.click("#send")
        expect(tab.locator("#progress")).to_contain_text(re.compile(r"first token after \d+ ms, then \d+\.\d tokens/s"))
        assert tab.text_content("#answer") == service.text(
            model="two", messages=[{"role": "user", "content": "What is a bracket?"}], max_tokens=7
        )
        expect(tab.locator("#figures")).to_contain_text("KV cache")
        os.kill(service.worker, signal.SIGKILL)
        expect(tab.locator("#errors")).to_contain_text("SIGKILL")
        expect(tab.locator("#no-errors")).to_be_hidden()
        tab.select_option("#model", "base")
        tab.fill("#prompt", "Count to a thousand.")
        tab.wait_for_selector("#state.ok")
        tab.click("#send")
        expect(tab.locator("#answer")).to_contain_text(re.compile(".{5}"))
        tab.click("#stop")
        expect(tab.locator("#progress")).to_have_text("Stopped.")
        service.wait_for(lambda: service.status()["busy"] == 0)
        assert not [problem for problem in problems if "503" not in problem]
        if shot := os.environ.get("EDGEKIT_SCREENSHOTS"):
            tab.screenshot(path=str(Path(shot) / "status.png"))


def test_a_request_is_shown_from_when_it_is_taken(demo_bundle: Path) -> None:
    from playwright.sync_api import expect

    with serving(demo_bundle) as service, page() as tab:
        tab.goto(service.url)
        tab.wait_for_selector("#state.ok")
        os.kill(service.worker, signal.SIGSTOP)  # the engine says nothing of it
        try:
            tab.fill("#prompt", "What is a bracket?")
            tab.click("#send")
            expect(tab.locator("#progress")).to_have_text("Waiting for the first token…")
            expect(tab.locator("#figures")).to_contain_text("1 running, 0 waiting")
        finally:
            os.kill(service.worker, signal.SIGCONT)
        expect(tab.locator("#progress")).to_contain_text("tokens read", timeout=60_000)
        expect(tab.locator("#figures")).to_contain_text("0 running, 0 waiting")


def test_what_goes_wrong_is_said_in_words(goods: Goods) -> None:
    from playwright.sync_api import expect

    with serving(goods.bundle) as service, page() as tab:
        tab.goto(service.url)
        tab.wait_for_selector("#state.ok")
        assert tab.input_value("#model") == "one"
        expect(tab.locator("#adapters")).to_contain_text("ready, the default")
        tab.fill("#prompt", "word " * 300)
        tab.click("#send")
        expect(tab.locator("#failure")).to_contain_text("exceed the context of 256")
        expect(tab.locator("#progress")).to_be_empty()
        service.process.terminate()
        service.process.wait(60)
        expect(tab.locator("#state")).to_have_text("the service can't be reached")


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_readable_and_within_reach(goods: Goods, axe: str, width: int) -> None:
    from playwright.sync_api import expect

    with serving(goods.bundle) as service, page(width, 844, bypass_csp=True) as tab:
        tab.goto(service.url)
        tab.wait_for_selector("#state.ok")
        tab.click("summary")
        check(tab, axe, f"status-{width}")
        tab.fill("#prompt", "word " * 300)
        tab.click("#send")
        expect(tab.locator("#failure")).to_be_visible()
        os.kill(service.worker, signal.SIGKILL)
        expect(tab.locator("#errors")).to_contain_text("SIGKILL")
        check(tab, axe, f"status-errors-{width}")


def test_the_page_asks_with_the_key(demo_bundle: Path, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    key = tmp_path / "key"
    key.write_text("secret")
    with serving(demo_bundle, "--api-key-file", str(key)) as service, page(360, 740) as tab:
        tab.goto(service.url)
        expect(tab.locator("#state")).to_contain_text("API key")
        tab.fill("#key", "secret")
        tab.wait_for_selector("#state.ok")
        assert tab.evaluate("document.documentElement.scrollWidth") <= 360
        if shot := os.environ.get("EDGEKIT_SCREENSHOTS"):
            tab.screenshot(path=str(Path(shot) / "status-phone.png"), full_page=True)
