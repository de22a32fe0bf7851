"""The app as a person uses it, on a phone of 360 x 740."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgekit.site import build_site
from edgekit_exporters.gguf.metadata import rewrite_metadata
from edgekit_runtime.formats.adapter import KEY_GENERATION, KEY_INVOCATION
from edgekit_runtime.formats.prompt_adapter import GENERAL_TYPE
from tests.browser import needs_chromium
from tests.goods import Goods, with_report, with_two_adapters
from tests.screen import begin, check
from tests.site import ask, hosting, load_module, phone

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = needs_chromium
FINDINGS: list[object] = ["part: bracket; finding: scratch; size: 0.4 mm", "part: gear; finding: chipped; size: 2 mm"]


@pytest.fixture
def form_site(goods: Goods, tmp_path: Path) -> Path:
    """A site whose adapter was evaluated on names with values."""
    build_site(with_report(goods.bundle, tmp_path, {"one": FINDINGS}), tmp_path / "site")
    return tmp_path / "site"


@pytest.mark.parametrize("language", ["en", "zh-CN"])
def test_everything_is_readable_and_within_reach(form_site: Path, browser: Browser, axe: str, language: str) -> None:
    with hosting(form_site) as host, phone(browser, locale=language, bypass_csp=True) as page:
        page.goto(host.url)
        page.wait_for_selector("#begin:not([hidden])")
        check(page, axe, f"phone-setup-{language}")
        assert ("下载" in page.inner_text("#begin")) == (language == "zh-CN")
        begin(page)
        page.fill("#prompt", "scratch of 0.4 mm near the left edge")
        page.click("#send")
        page.wait_for_selector(".answer .foot", timeout=60_000)
        check(page, axe, f"phone-talk-{language}")
        page.click("#as-form")
        check(page, axe, f"phone-form-{language}")
        page.click("#open-menu")
        page.wait_for_selector("#facts dd")
        check(page, axe, f"phone-menu-{language}")


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


def test_a_form_is_asked_and_the_answer_kept(form_site: Path, browser: Browser, goods: Goods) -> None:
    from edgekit_runtime.runtime import Runtime

    with hosting(form_site) as host, phone(browser, locale="en") as page:
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
    penalised = tmp_path / "penalised.gguf"
    rewrite_metadata(goods.two, penalised, {KEY_GENERATION: '{"presence_penalty": 0.5}'})
    prompt = tmp_path / "prompt.gguf"
    rewrite_metadata(goods.two, prompt, {"general.type": GENERAL_TYPE})
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
        page.set_input_files("#adapter-file", penalised)
        expect(page.locator("#installing")).to_contain_text("sampled with presence_penalty")
        page.set_input_files("#adapter-file", prompt)
        expect(page.locator("#installing")).to_contain_text("this page's engine takes no embeddings")
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


def test_the_bare_base_answers_only_where_it_is_chosen(goods: Goods, browser: Browser, tmp_path: Path) -> None:
    for folder, default, chosen in (("named", "two", "two"), ("none", None, "one")):
        (tmp_path / folder).mkdir()
        site = tmp_path / folder / "site"
        build_site(with_two_adapters(goods, tmp_path / folder, default), site)
        with hosting(site) as host, phone(browser, locale="en") as page:
            page.goto(host.url)
            begin(page)
            assert page.input_value("#adapter") == chosen
            other = {"one": "two", "two": "one"}[chosen]
            for choice, after in ((other, other), ("base", chosen)):
                page.select_option("#adapter", choice)
                page.reload()
                page.wait_for_selector("#ask:not([hidden])", timeout=60_000)
                assert page.input_value("#adapter") == after


def test_examples_of_an_adapter_are_tapped_and_fill_what_is_shown(form_site: Path, browser: Browser) -> None:
    from playwright.sync_api import expect

    with hosting(form_site) as host, phone(browser, locale="en") as page:
        page.goto(host.url)
        begin(page)
        expect(page.locator(".chip")).to_have_text([str(each) for each in FINDINGS])
        page.click(".chip >> nth=1")
        assert page.input_value("#prompt") == FINDINGS[1]
        expect(page.locator("#send")).to_be_focused()
        page.click("#as-form")
        page.click(".chip >> nth=0")
        assert page.get_by_label("finding", exact=True).input_value() == "scratch"
        page.select_option("#adapter", "base")
        expect(page.locator("#examples")).to_be_hidden()
        expect(page.locator("#modes")).to_be_hidden()
        expect(page.locator("#prompt")).to_be_visible()


def test_examples_are_text_and_give_no_form_where_they_have_none(
    goods: Goods, browser: Browser, tmp_path: Path
) -> None:
    from playwright.sync_api import expect

    said: list[object] = ["<img src=x onerror=alert(1)>", "note: one; two", "note: one; part: two"]
    build_site(with_report(goods.bundle, tmp_path, {"one": said}), tmp_path / "site")
    with hosting(tmp_path / "site") as host, phone(browser, locale="en") as page:
        page.goto(host.url)
        begin(page)
        expect(page.locator(".chip")).to_have_text([str(each) for each in said])
        assert page.locator(".chip img").count() == 0
        expect(page.locator("#as-form")).to_be_hidden()


def test_the_page_tells_how_much_of_a_prompt_is_read(site: Path, browser: Browser) -> None:
    prompt = " ".join(["scratch"] * 150)
    with hosting(site) as host, phone(browser, locale="en") as page:
        load_module(page, host)
        told, tokens = page.evaluate(
            """async (prompt) => {
              const told = [];
              const onPrefill = (progress) => told.push(progress);
              const { usage } = await runtime.generate({ prompt, max_tokens: 2, onPrefill });
              return [told, usage.prompt_tokens];
            }""",
            prompt,
        )
        read = [each["read"] for each in told]
        assert read == sorted(read)
        assert (read[0], read[-1]) == (0, tokens)
        assert len(read) > 2  # more than nothing and all
        assert {each["total"] for each in told} == {tokens}
        assert ask(page, prompt="scratch", max_tokens=2)["usage"]["completion_tokens"] == 2  # nobody listens
        page.goto(host.url)
        page.wait_for_selector("#ask:not([hidden])", timeout=60_000)  # what is here already is not asked for
        page.evaluate(
            """() => {
              globalThis.said = [];
              const list = document.getElementById("answers");
              const shown = () => [...list.querySelectorAll(".reading span")].map((each) => each.textContent);
              const look = () => said.push(...shown());
              new MutationObserver(look).observe(list, { subtree: true, childList: true });
            }"""
        )
        page.fill("#prompt", prompt)
        page.click("#send")
        page.wait_for_selector(".answer .foot", timeout=60_000)
        said = page.evaluate("said")
        assert said[0] == "Reading the question…"
        assert f"Reading the question: {tokens} of {tokens} tokens" in said
        assert page.locator(".reading").count() == 0


def test_the_conversation_is_kept_and_said_in_the_language_that_is_chosen(site: Path, browser: Browser) -> None:
    from playwright.sync_api import expect

    with hosting(site) as host, phone(browser, locale="en") as page:
        page.goto(host.url)
        begin(page)
        for adapter in ("one", "base"):
            page.select_option("#adapter", adapter)
            page.fill("#prompt", f"scratch under {adapter}")
            page.click("#send")
            page.wait_for_selector(".answer:last-child .foot", timeout=60_000)
            assert page.input_value("#prompt") == ""
        page.fill("#prompt", "word " * 3000)
        page.click("#send")
        expect(page.locator(".answer .failure")).to_contain_text("longer than the context")
        assert page.input_value("#prompt").startswith("word word")  # to be shortened
        answers = page.locator(".answer .said:not(.failure)").evaluate_all(
            "(all) => all.map((each) => each.textContent)"
        )
        page.click("#open-menu")
        page.select_option("#language", "zh")
        expect(page.locator(".answer .failure")).to_have_text("提问过长，请缩短。")
        page.select_option("#language", "en")
        expect(page.locator(".answer .failure")).to_contain_text("longer than the context")
        page.reload()
        page.wait_for_selector("#ask:not([hidden])", timeout=60_000)
        assert page.locator(".question").all_inner_texts() == ["scratch under one", "scratch under base"]
        again = page.locator(".answer .said").evaluate_all("(all) => all.map((each) => each.textContent)")
        assert again == answers
        names, facts = page.locator(".answer > .quiet"), page.locator(".answer .foot .quiet")
        expect(names).to_have_text(["one", "no adapter"])
        expect(facts.first).to_contain_text("tokens/s")
        page.click("#open-menu")
        page.select_option("#language", "zh")
        expect(names).to_have_text(["one", "不用适配器"])
        expect(facts.first).to_contain_text("词元/秒")
        assert page.locator(".answer .foot button").all_text_contents() == ["复制", "复制"]
        assert page.locator(".answer .said").evaluate_all("(all) => all.map((each) => each.textContent)") == answers
        page.click("#clear-history")
        expect(page.locator(".question")).to_have_count(0)
        expect(page.locator("#empty h2")).to_have_text("准备就绪")


def test_an_answer_has_the_titles_of_its_adapters_schema(goods: Goods, browser: Browser, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(goods.bundle, bundle)
    manifest = json.loads((bundle / "manifest.json").read_text())
    properties = {"part": {"title": "Part"}, "a": {"title": "Same"}, "b": {"title": "<b>"}}
    manifest["adapters"][0]["schema"] = {"type": "object", "properties": properties}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    build_site(bundle, tmp_path / "site")
    kept = [
        {"time": 0, "adapter": "one", "prompt": "one", "text": '{"part": "bracket", "b": 1}'},
        {"time": 0, "adapter": "one", "prompt": "two names alike", "text": '{"Same": "bracket", "a": 1}'},
        {"time": 0, "adapter": None, "prompt": "three", "text": '{"part": "bracket"}'},
    ]
    with hosting(tmp_path / "site") as host, phone(browser, locale="en") as page:
        page.goto(host.url)
        page.evaluate("(kept) => localStorage.setItem('edgekit history /', JSON.stringify(kept))", kept[::-1])
        begin(page)
        shown = page.locator("#answers dl").evaluate_all(
            "(all) => all.map((list) => [...list.querySelectorAll('dt')].map((each) => each.textContent))"
        )
        assert shown == [["Part", "<b>"], ["Same", "a"], ["part"]]
