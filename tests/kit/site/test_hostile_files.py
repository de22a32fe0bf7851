"""Sites whose files are not what they say: swapped, truncated, endless, poisoned, too large for the storage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from edgekit.site import build_site, policy
from tests.browser import needs_chromium
from tests.goods import Goods
from tests.kit.site.test_hostile_answers import relist
from tests.screen import begin
from tests.site import ask, hosting, load_module, phone

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = needs_chromium

BASE = "bundle/base/model.gguf"
STORED = """async () => {
  const sizes = [];
  const root = await navigator.storage.getDirectory();
  for await (const folder of root.values()) {
    for await (const file of folder.values()) sizes.push((await file.getFile()).size);
  }
  return sizes.filter(Boolean);
}"""


def replaced(path: Path, content: bytes) -> None:
    path.unlink()  # it may be a hard link
    path.write_bytes(content)


def test_a_file_that_is_swapped_under_its_download_is_never_opened(site: Path, browser: Browser) -> None:
    good = (site / BASE).read_bytes()
    swapped = bytearray(good)
    swapped[-1000:] = bytes(1000)
    with hosting(site) as host, phone(browser) as page:
        host.cut[f"/{BASE}"] = len(good) // 2
        assert load_module(page, host)["code"] == "network"
        replaced(site / BASE, bytes(swapped))  # the rest comes from another file
        said = load_module(page, host)
        assert (said["code"], "its sha256 is" in said["message"]) == ("damaged", True)
        assert max(page.evaluate(STORED)) < 100_000  # the adapter, which is whole
        replaced(site / BASE, good)
        assert load_module(page, host)["loads"] == 1
        replaced(site / BASE, bytes(swapped))  # what is here is opened from here
        assert load_module(page, host)["loads"] == 1
        assert ask(page, prompt="scratch", max_tokens=2)["text"]


@pytest.mark.parametrize("change", ["shorter", "longer", "other"])
def test_a_file_of_another_size_or_digest_is_refused_and_not_kept(site: Path, browser: Browser, change: str) -> None:
    good = (site / BASE).read_bytes()
    content = {"shorter": good[:-5000], "longer": good + bytes(3_000_000), "other": good[:-1] + b"\xff"}[change]
    problem = {"shorter": "the connection ended after", "longer": "it has more than", "other": "its sha256 is"}[change]
    replaced(site / BASE, content)
    with hosting(site) as host, phone(browser) as page:
        for _ in range(2):
            said = load_module(page, host)
            assert problem in said["message"]
            assert said["code"] == ("network" if change == "shorter" else "damaged")
        assert (max(page.evaluate(STORED)) > 100_000) == (change == "shorter")  # a part, which may go on
        replaced(site / BASE, good)
        assert load_module(page, host)["loads"] == 1


@pytest.mark.parametrize(("file", "most"), [("site.json", 16 << 20), ("bundle/manifest.json", 4 << 20)])
def test_what_is_read_into_memory_has_a_bound(site: Path, browser: Browser, file: str, most: int) -> None:
    content = (site / file).read_bytes()
    replaced(site / file, content + b" " * (most + 1 - len(content)))
    with hosting(site) as host, phone(browser) as page:
        said = load_module(page, host)
        assert (said["code"], f"{Path(file).name} has more than {most} bytes" in said["message"]) == ("input", True)
        replaced(site / file, content + b" " * (most - len(content)))
        assert load_module(page, host)["loads"] == 1


def full(page: Page, origin: str, size: int | None) -> None:
    """A storage that is full before the browser says so: others write to it too."""
    session = page.context.new_cdp_session(page)
    session.send(
        "Storage.overrideQuotaForOrigin", {"origin": origin.rstrip("/")} | ({"quotaSize": size} if size else {})
    )


PROMISES = "StorageManager.prototype.estimate = async () => ({ usage: 0, quota: 2 ** 40 });"


def test_a_storage_that_fills_up_on_the_way_is_told_and_nothing_half_is_kept(site: Path, browser: Browser) -> None:
    with hosting(site) as host, phone(browser) as page:
        page.add_init_script(PROMISES)
        full(page, host.url, 1_500_000)
        said = load_module(page, host)
        assert (said["code"], "there is no room for" in said["message"]) == ("quota", True)
        assert page.evaluate(STORED) == []
        full(page, host.url, None)
        assert load_module(page, host)["loads"] == 1


def test_a_storage_that_fills_up_while_an_adapter_or_a_bundle_comes_leaves_what_was_there(
    site: Path, browser: Browser, goods: Goods, tmp_path: Path
) -> None:
    with hosting(site) as host, phone(browser) as page:
        page.add_init_script(PROMISES)
        load_module(page, host)
        before = ask(page, prompt="scratch", max_tokens=8)["text"]
        stored = sorted(page.evaluate(STORED))
        other = goods.other_base(tmp_path)
        build_site(other, site)
        (site / "two.gguf").write_bytes(goods.two.read_bytes())
        full(page, host.url, 1_000_000)
        for action in ("adapters.install('../two.gguf')", "findUpgrade().then((found) => runtime.upgrade(found))"):
            assert page.evaluate(f"runtime.{action}.then(() => 'taken', (error) => error.code)") == "quota"
            assert sorted(page.evaluate(STORED)) == stored
        assert page.evaluate("runtime.manifest.version") == "2026.01.01"
        assert ask(page, prompt="scratch", max_tokens=8)["text"] == before
        full(page, host.url, None)
        page.evaluate("runtime.findUpgrade().then((found) => runtime.upgrade(found))")
        assert page.evaluate("runtime.manifest.version") == "2026.02.01"


def test_what_another_versions_cache_holds_is_checked_before_it_is_used(site: Path, browser: Browser) -> None:
    listed = {each["path"]: each["sha256"] for each in json.loads((site / "site.json").read_text())["files"]}
    poisoned = ["index.html", "ui/app.js", "app.css", "vendor/wllama/wllama.wasm"]
    with hosting(site) as host, phone(browser, locale="en") as page:
        page.goto(host.url + "edgekit-runtime/blank.html")
        page.evaluate(
            """async (files) => {
              const own = (await (await fetch("../sw.js")).text()).match(/"version": "(\\w+)"/)[1];
              for (const version of ["an older one", own]) {
                const cache = await caches.open(`edgekit / ${version}`);
                for (const [path, digest] of files) {
                  const headers = { "X-Edgekit-Digest": `sha256=${digest}`, "Content-Type": "text/html" };
                  await cache.put(`/${path}`, new Response("<h1>poisoned</h1>", { headers }));
                }
              }
            }""",
            [[path, listed[path]] for path in poisoned],
        )
        for _ in range(2):
            page.goto(host.url)
            page.wait_for_selector("#begin:not([hidden])", timeout=60_000)
            assert page.evaluate("Boolean(navigator.serviceWorker.controller)")
            assert "poisoned" not in page.content()
        begin(page)  # with the engine's code, which was poisoned too
        for path in poisoned[:3]:
            assert "poisoned" not in page.evaluate("async (path) => (await fetch(path)).text()", path)


PAGE = b"""<!doctype html><style>p { color: rgb(1, 2, 3) }</style><p>a report</p><script>document.title = "ran"</script>
<script src="evil.js"></script><img src=x onerror="document.title = 'ran'">"""


@pytest.mark.parametrize("isolated", [True, False])
def test_a_page_in_a_bundle_is_seen_but_runs_nothing(
    goods: Goods, browser: Browser, isolated: bool, tmp_path: Path
) -> None:
    """Hosts that set headers have one for it; elsewhere the service worker adds it."""
    import shutil

    bundle = tmp_path / "bundle"
    shutil.copytree(goods.bundle, bundle)
    manifest: dict[str, Any] = json.loads((bundle / "manifest.json").read_text())
    for name, content in (("report/report.html", PAGE), ("report/evil.js", b'document.title = "ran"')):
        (bundle / name).parent.mkdir(exist_ok=True)
        (bundle / name).write_bytes(content)
        manifest["files"] = [each for each in manifest["files"] if each["path"] != name]
        manifest["files"].append({"path": name, "size": 0, "sha256": ""})
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    for name in ("report/report.html", "report/evil.js"):
        relist(bundle, name)
    build_site(bundle, tmp_path / "site")
    assert f"/bundle/*\n  Content-Security-Policy: {policy.BUNDLE_POLICY}\n" in (tmp_path / "site/_headers").read_text()
    context = browser.new_context()
    with hosting(tmp_path / "site", isolated=isolated) as host:
        if isolated:
            answer = httpx.get(f"{host.url}bundle/report/report.html")
            assert answer.headers["content-security-policy"] == policy.BUNDLE_POLICY
        page = context.new_page()
        page.goto(host.url)
        page.wait_for_selector("#begin:not([hidden])", timeout=60_000)
        assert page.evaluate("Boolean(navigator.serviceWorker.controller)")
        for way in (
            "bundle/report/report.html",
            "%62undle/report/report.html",
            "ui/%2e%2e%2fbundle/report/report.html",
        ):
            page.goto(host.url + way)
            assert page.inner_text("p") == "a report"
            assert page.evaluate("getComputedStyle(document.querySelector('p')).color") == "rgb(1, 2, 3)"
            assert (page.title(), page.evaluate("origin")) == ("", "null"), way
        page.goto(host.url)
        code = "import('./bundle/report/evil.js').then(() => 'ran', () => 'refused')"
        assert page.evaluate(code) == "refused"
    context.close()
