"""Visits without a connection, downloads that break, hosts that change under an open page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgekit.site import build_site
from edgekit_runtime.formats.signing import make_key, sign
from edgekit_runtime.runtime import Runtime
from tests.browser import needs_chromium
from tests.goods import Goods
from tests.site import ask, hosting, load_module, phone

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = needs_chromium

BASE_PATH = "/bundle/base/model.gguf"


def test_a_second_visit_needs_no_host(site: Path, browser: Browser, goods: Goods) -> None:
    """The host sets no headers, and is then gone: the service worker does both."""
    with phone(browser, locale="en") as page:
        with hosting(site, isolated=False) as host:
            page.goto(host.url)
            page.click("#begin")
            page.wait_for_selector("#ask:not([hidden])", timeout=120_000)
            assert page.evaluate("crossOriginIsolated")
        page.goto(host.url)
        page.wait_for_selector("#ask:not([hidden])", timeout=120_000)
        assert page.evaluate("crossOriginIsolated")
        page.evaluate("globalThis.runtime = edgekit")
        with Runtime(goods.bundle, threads=1) as native:
            assert ask(page, prompt="scratch", max_tokens=12)["text"] == native.generate("scratch", max_tokens=12).text
        assert page.evaluate("runtime.findUpgrade()") is None


def test_a_broken_download_goes_on_where_it_stopped(site: Path, browser: Browser) -> None:
    size = (site / "bundle/base/model.gguf").stat().st_size
    with hosting(site) as host, phone(browser) as page:
        host.cut[BASE_PATH] = size // 2
        assert load_module(page, host)["code"] == "network"
        host.asked.clear()
        assert load_module(page, host)["loads"] == 1
        (again,) = [asked for path, asked in host.asked if path == BASE_PATH]
        assert again is not None
        assert 0 < int(again.removeprefix("bytes=").removesuffix("-")) <= size // 2


def test_a_damaged_file_is_never_used(site: Path, browser: Browser) -> None:
    base = site / "bundle/base/model.gguf"
    good = base.read_bytes()
    base.unlink()  # it may be a hard link
    base.write_bytes(good[:-9] + b"otherwise")
    with hosting(site) as host, phone(browser) as page:
        said = load_module(page, host)
        assert (said["code"], "base/model.gguf" in said["message"]) == ("damaged", True)
        base.write_bytes(good)
        assert load_module(page, host)["loads"] == 1


def test_a_full_storage_is_told_with_figures(site: Path, browser: Browser) -> None:
    with hosting(site) as host, phone(browser) as page:
        session = page.context.new_cdp_session(page)
        origin = host.url.rstrip("/")
        session.send("Storage.overrideQuotaForOrigin", {"origin": origin, "quotaSize": 100_000})
        said = load_module(page, host)
        assert said["code"] == "quota"
        assert "there is no room" in said["message"]
        session.send("Storage.overrideQuotaForOrigin", {"origin": origin})
        assert load_module(page, host)["loads"] == 1


def test_a_base_too_large_for_the_32_bit_engine_is_refused_before_its_download(site: Path, browser: Browser) -> None:
    path = site / "bundle/manifest.json"
    manifest = json.loads(path.read_text())
    next(file for file in manifest["files"] if file["path"] == "base/model.gguf")["size"] = 2**31
    path.unlink()  # it may be a hard link
    path.write_text(json.dumps(manifest))
    with hosting(site) as host, phone(browser) as page:
        page.add_init_script("delete WebAssembly.Suspending")
        said = load_module(page, host)
        assert (said["code"], "at most 2.1 GB" in said["message"]) == ("unsupported", True)
        assert BASE_PATH not in [path for path, _ in host.asked]


def test_an_upgrade_while_the_page_is_open(site: Path, browser: Browser, goods: Goods) -> None:
    with hosting(site) as host, phone(browser) as page:
        load_module(page, host)
        before = ask(page, prompt="scratch", max_tokens=12)["text"]
        assert page.evaluate("runtime.findUpgrade()") is None
        build_site(goods.later_bundle, site)
        host.asked.clear()
        answers = page.evaluate(
            """async () => {
              const answer = runtime.generate({ prompt: "scratch", max_tokens: 12 });
              await runtime.upgrade(await runtime.findUpgrade());
              return [(await answer).text, runtime.manifest.version, runtime.info.generation];
            }"""
        )
        assert answers == [before, "2026.02.01", 2]
        assert not [path for path, _ in host.asked if path.endswith(".gguf")]  # the same files: nothing to download
        page.evaluate("runtime.adapters.rollback()")
        assert page.evaluate("runtime.manifest.version") == "2026.01.01"
        assert ask(page, prompt="scratch", max_tokens=12)["text"] == before


def test_a_failed_upgrade_leaves_the_page_answering(site: Path, browser: Browser, goods: Goods) -> None:
    with hosting(site) as host, phone(browser) as page:
        load_module(page, host)
        before = ask(page, prompt="scratch", max_tokens=12)["text"]
        manifest = json.loads((goods.later_bundle / "manifest.json").read_text())
        for entry in (manifest["base"], *manifest["files"]):
            for key in ("digest", "sha256"):
                if entry.get(key) == manifest["base"]["digest"]:
                    entry[key] = "0" * 64
        (site / "bundle/manifest.json").unlink()
        (site / "bundle/manifest.json").write_text(json.dumps(manifest))
        code = page.evaluate(
            "runtime.findUpgrade().then((found) => runtime.upgrade(found)).catch((error) => error.code)"
        )
        assert code == "damaged"
        assert page.evaluate("runtime.manifest.version") == "2026.01.01"
        assert ask(page, prompt="scratch", max_tokens=12)["text"] == before


@pytest.mark.parametrize("signed", [True, False])
def test_a_site_that_trusts_a_key_takes_only_what_it_signed(
    signed: bool, browser: Browser, goods: Goods, tmp_path: Path
) -> None:
    public = make_key(tmp_path / "line.key")
    bundle, site, two = tmp_path / "bundle", tmp_path / "site", tmp_path / "two.gguf"
    shutil.copytree(goods.bundle, bundle)
    shutil.copy(goods.two, two)
    sign(bundle, tmp_path / "line.key")
    build_site(bundle, site, trust=public)
    with hosting(site) as host, phone(browser) as page:
        if not signed:
            signature = site / "bundle/manifest.sig"
            content = bytearray(signature.read_bytes())
            content[0] ^= 1
            signature.unlink()
            signature.write_bytes(content)
            assert load_module(page, host)["code"] == "signature"
            return
        assert load_module(page, host)["loads"] == 1
        install = """async (sign) => {
          const [adapter, signature] = await Promise.all(["two.gguf", "two.gguf.sig"].map(async (name) => {
            const response = await fetch("../" + name);
            return response.ok ? response.blob() : undefined;
          }));
          try {
            const options = { name: "two.gguf", signature: sign ? signature : undefined };
            return (await runtime.adapters.install(adapter, options)).name;
          } catch (error) {
            return error.code;
          }
        }"""
        shutil.copy(two, site)
        shutil.copy(sign(two, tmp_path / "line.key"), site)
        assert page.evaluate(install, False) == "signature"
        assert page.evaluate(install, True) == "two"
        make_key(tmp_path / "other.key")
        shutil.copy(sign(two, tmp_path / "other.key"), site)
        assert page.evaluate(install, True) == "signature"
        assert page.evaluate("runtime.manifest.adapters.map((entry) => entry.name)") == ["one", "two"]


def test_bad_adapters_change_nothing(site: Path, browser: Browser, goods: Goods) -> None:
    files = {
        "half a header": goods.two.read_bytes()[:300],
        "half the data": goods.two.read_bytes()[:-100],
        "text": b"no GGUF at all",
        "a base": (goods.bundle / "base/model.gguf").read_bytes(),
        "other family": goods.other_family.read_bytes(),
        "good": goods.nameless.read_bytes(),
    }
    with hosting(site) as host, phone(browser) as page:
        load_module(page, host)
        before = ask(page, prompt="scratch", max_tokens=12)["text"]
        codes = {}
        for name, content in files.items():
            (site / "x.gguf").write_bytes(content)
            codes[name] = page.evaluate(
                """async (name) => {
                  try {
                    const entry = await runtime.adapters.install("../x.gguf", { name });
                    return entry.quality?.verified;
                  } catch (error) { return error.code; }
                }""",
                name,
            )
            assert ask(page, prompt="scratch", max_tokens=12)["text"] == before
        assert codes == {
            "half a header": "damaged",
            "half the data": "damaged",
            "text": "damaged",
            "a base": "damaged",
            "other family": "family",
            "good": False,
        }
        assert page.evaluate("runtime.manifest.adapters.map((entry) => entry.name)") == ["one", "good"]
