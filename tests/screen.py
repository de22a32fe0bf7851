"""Looking at a page as it stands on a screen."""

from __future__ import annotations

import os
import tarfile
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.site import assets

if TYPE_CHECKING:
    from playwright.sync_api import Page

AXE = assets.Package(
    name="axe-core",
    version="4.14.1",
    sha512="FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
    license="MPL-2.0",
    folder="axe",
    files={},
)


def axe_code() -> str:
    """The checker's code, fetched as a site's parts are."""
    with tarfile.open(fileobj=BytesIO(assets.package_bytes(AXE)), mode="r:gz") as tar:
        stream = tar.extractfile("package/axe.min.js")
        assert stream is not None
        return stream.read().decode()


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
            page.screenshot(path=str(Path(shots) / f"{name}-{scheme}.png"))
    assert page.viewport_size is not None
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    touched = page.locator("button:visible, select:visible, input:not(.unseen):visible, textarea:visible")
    small = touched.evaluate_all("(all) => all.filter((each) => each.offsetHeight < 43).map((each) => each.outerHTML)")
    assert small == []


def begin(page: Page) -> None:
    """Let the phone page download its bundle."""
    page.click("#begin")
    page.wait_for_selector("#ask:not([hidden])", timeout=120_000)
