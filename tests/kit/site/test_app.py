"""The app as a person uses it, on a phone of 360 x 740."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgekit.site import build_site
from edgekit_exporters.gguf.metadata import rewrite_metadata
from edgekit_runtime.formats.adapter import KEY_INVOCATION
from tests.browser import needs_chromium
from tests.goods import Goods
from tests.kit.site.screen import begin, check
from tests.site import hosting, phone

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = needs_chromium


@pytest.mark.parametrize("language", ["en", "zh-CN"])
def test_everything_is_readable_and_within_reach(site: Path, browser: Browser, axe: str, language: str) -> None:
    with hosting(site) as host, phone(browser, locale=language, bypass_csp=True) as page:
        page.goto(host.url)
        page.wait_for_selector("#begin:not([hidden])")
        check(page, axe, f"setup-{language}")
        assert ("下载" in page.inner_text("#begin")) == (language == "zh-CN")
        begin(page)
        page.fill("#prompt", "scratch of 0.4 mm near the left edge")
        page.click("#send")
        page.wait_for_selector(".answer .foot", timeout=60_000)
        check(page, axe, f"talk-{language}")
        page.click("#as-form")
        check(page, axe, f"form-{language}")
        page.click("#open-menu")
        page.wait_for_selector("#facts dd")
        check(page, axe, f"menu-{language}")


def test_a_download_that_breaks_and_a_full_storage_are_told_and_tried_again(site: Path, browser: Browser) -> None:
    from playwright.sync_api import expect

    with hosting(site) as host, phone(browser, locale="en") as page:
        session = page.context.new_cdp_session(page)
        full = {"origin": host.url.rstrip("/"), "quotaSize": 5_000_000}
        session.send("Storage.overrideQuotaForOrigin", full)
        page.goto(host.url)
        page.click("#begin")
        expect(page.locator("#failure")).to_contain_text(re.compile(r"there is no room.* \d+ MB"))
        session.send("Storage.overrideQuotaForOrigin", {"origin": full["origin"]})
        host.cut["/bundle/base/model.gguf"] = 1_000_000
        page.click("#begin")
        expect(page.locator("#failure")).to_contain_text("it goes on where it stopped")
        expect(page.locator("#begin")).to_have_text("Try again")
        begin(page)
        expect(page.locator("#failure")).to_be_hidden()


def test_an_error_is_seen_whole_however_long_the_question(site: Path, browser: Browser) -> None:
    with hosting(site) as host, phone(browser, locale="en") as page:
        page.goto(host.url)
        begin(page)
        page.fill("#prompt", "word " * 3000)
        page.click("#send")
        page.wait_for_selector(".answer .failure", timeout=60_000)
        shown, form = page.locator(".answer .failure").bounding_box(), page.locator("#ask").bounding_box()
        assert shown is not None
        assert form is not None
        assert shown["y"] + shown["height"] <= form["y"]


def test_a_form_is_asked_and_the_answer_kept(site: Path, browser: Browser, goods: Goods) -> None:
    from edgekit_runtime.runtime import Runtime

    with hosting(site) as host, phone(browser, locale="en") as page:
        page.goto(host.url)
        begin(page)
        assert page.locator("#adapter option").all_text_contents() == ["one", "no adapter"]
        page.click("#as-form")
        for label, value in (("part", "bracket"), ("size", "0.4 mm")):
            page.get_by_label(label, exact=True).fill(value)
        page.click("#send")
        page.wait_for_selector(".answer .foot")
        assert page.inner_text(".question") == "part: bracket; size: 0.4 mm"
        with Runtime(goods.bundle, threads=1) as native:
            want = native.generate("part: bracket; size: 0.4 mm", max_tokens=200).text
            said = page.text_content(".said") or ""
            readable = want.partition("\ufffd")[0]  # random weights also say bytes that are no text
            assert readable
            assert said.startswith(readable)
        page.reload()
        page.wait_for_selector("#ask:not([hidden])", timeout=60_000)  # nothing is downloaded, so nothing is asked
        page.click("#open-menu")
        assert "part: bracket; size: 0.4 mm" in page.inner_text("#history")
        page.click("#clear-history")
        assert "Nothing yet" in page.inner_text("#history")
        page.select_option("#language", "zh")
        assert page.inner_text("#menu-title") == "菜单"


def test_adapters_are_installed_from_files_and_addresses_and_rolled_back(
    site: Path, browser: Browser, goods: Goods, tmp_path: Path
) -> None:
    from playwright.sync_api import expect

    (site / "more").mkdir()
    activated = tmp_path / "activated.gguf"
    rewrite_metadata(goods.two, activated, {KEY_INVOCATION: [1, 2]})
    for_onnx = tmp_path / "other.onnx_adapter"
    for_onnx.write_bytes(b"\x18\0\0\0TORT" + bytes(64))
    (site / "more/two.gguf").write_bytes(goods.two.read_bytes())
    with hosting(site) as host, phone(browser, locale="en") as page:
        page.goto(host.url)
        begin(page)
        page.click("#open-menu")
        page.set_input_files("#adapter-file", goods.one_newer)
        expect(page.locator("#installing")).to_have_text("one 1.10 is active.")
        page.fill("#adapter-url", f"{host.url}more/two.gguf")
        page.click("#from-url button")
        expect(page.locator("#installing")).to_have_text("two 1.0.0 is active.")
        page.set_input_files("#adapter-file", goods.other_family)
        page.wait_for_selector("#installing.failure")
        assert "another-base" in page.inner_text("#installing")
        page.set_input_files("#adapter-file", activated)
        expect(page.locator("#installing")).to_contain_text("activated LoRA")
        page.set_input_files("#adapter-file", for_onnx)
        expect(page.locator("#installing")).to_contain_text("export it with --format gguf")
        page.fill("#adapter-url", "https://elsewhere.example/x.gguf")
        page.click("#from-url button")
        expect(page.locator("#installing")).to_contain_text("--adapters-from")
        options = page.locator("#adapter option")
        expect(options).to_have_text(["one", "two", "no adapter"])
        page.click("#rollback")
        expect(options).to_have_text(["one", "no adapter"])
        expect(page.locator("#installed")).to_contain_text("1.10")
        page.click("#rollback")
        expect(page.locator("#rollback")).to_be_disabled()
        expect(page.locator("#installed")).not_to_contain_text("1.10")


def test_a_new_bundle_and_a_new_app_are_offered(site: Path, browser: Browser, goods: Goods) -> None:
    from playwright.sync_api import expect

    with hosting(site) as host, phone(browser, locale="en") as page:
        page.goto(host.url)
        begin(page)
        build_site(goods.later_bundle, site)
        page.reload()
        expect(page.locator("#notice-text")).to_have_text("line-3 2026.02.01 is ready.", timeout=60_000)
        page.click("#notice-act")
        expect(page.locator("#notice")).to_be_hidden()
        assert page.evaluate("edgekit.manifest.version") == "2026.02.01"
        build_site(goods.later_bundle, site, adapters_from=["https://a.example"])
        page.reload()
        expect(page.locator("#notice-text")).to_have_text("A new version of this app is ready.", timeout=60_000)
        page.click("#notice-act")
        policy = page.locator("meta[http-equiv]")
        expect(policy).to_have_attribute("content", re.compile("https://a.example"), timeout=60_000)


@pytest.mark.parametrize(
    ("without", "code"),
    [
        ("WebAssembly.validate = () => false", "SIMD"),
        (
            "StorageManager.prototype.getDirectory = async () => { throw new DOMException('no', 'SecurityError') }",
            "private",
        ),
        ("delete StorageManager.prototype.getDirectory", "OPFS"),
    ],
)
def test_a_browser_that_can_not_run_it_is_told_why(site: Path, browser: Browser, without: str, code: str) -> None:
    with hosting(site) as host, phone(browser, locale="en") as page:
        page.add_init_script(without)
        page.goto(host.url)
        page.wait_for_selector("#failure:not([hidden])")
        assert code in page.inner_text("#failure")
