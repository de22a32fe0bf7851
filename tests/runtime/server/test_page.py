"""The status page in a real browser."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from tests.browser import needs_chromium, page
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
        assert tab.locator("#model option").all_text_contents() == ["base", "one", "two"]
        assert tab.locator("#adapters tr").count() == 2
        tab.select_option("#model", "two")
        tab.fill("#prompt", "What is a bracket?")
        tab.click("#send")
        expect(tab.locator("#speed")).to_contain_text("tokens/s")
        assert tab.text_content("#answer") == service.text(
            model="two", messages=[{"role": "user", "content": "What is a bracket?"}], max_tokens=7
        )
        expect(tab.locator("#figures")).to_contain_text("KV cache")
        os.kill(service.worker, signal.SIGKILL)
        expect(tab.locator("#errors")).to_contain_text("SIGKILL")
        tab.select_option("#model", "base")
        tab.fill("#prompt", "Count to a thousand.")
        tab.wait_for_selector("#state.ok")
        tab.click("#send")
        expect(tab.locator("#answer")).to_contain_text(re.compile(".{5}"))
        tab.click("#stop")
        service.wait_for(lambda: service.status()["busy"] == 0)
        assert not [problem for problem in problems if "503" not in problem]
        if shot := os.environ.get("EDGEKIT_SCREENSHOTS"):
            tab.screenshot(path=str(Path(shot) / "status.png"))


def test_the_page_asks_with_the_key(demo_bundle: Path, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    key = tmp_path / "key"
    key.write_text("secret")
    with serving(demo_bundle, "--api-key-file", str(key)) as service, page(360, 740) as tab:
        tab.goto(service.url)
        expect(tab.locator("#state")).to_contain_text("API key")
        tab.click("summary")
        tab.fill("#key", "secret")
        tab.wait_for_selector("#state.ok")
        assert tab.evaluate("document.documentElement.scrollWidth") <= 360
        if shot := os.environ.get("EDGEKIT_SCREENSHOTS"):
            tab.screenshot(path=str(Path(shot) / "status-phone.png"), full_page=True)
