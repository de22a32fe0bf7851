"""Looking at the app as it stands on a phone's screen."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page


def check(page: Page, axe: str, name: str) -> None:
    """WCAG AA in both colour schemes, nothing wider than the screen, nothing smaller than a thumb."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        found: Any = page.evaluate(
            axe + ";axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa'] })"
            ".then(({ violations }) => violations.map((each) => [each.id, each.nodes.map((node) => node.html)]))"
        )
        assert found == [], (name, scheme)
        if shots := os.environ.get("EDGEKIT_SCREENSHOTS"):
            page.screenshot(path=str(Path(shots) / f"phone-{name}-{scheme}.png"))
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    touched = page.locator("button:visible, select:visible, input:not(.unseen):visible, textarea:visible")
    small = touched.evaluate_all("(all) => all.filter((each) => each.offsetHeight < 43).map((each) => each.outerHTML)")
    assert small == []


def begin(page: Page) -> None:
    page.click("#begin")
    page.wait_for_selector("#ask:not([hidden])", timeout=120_000)
