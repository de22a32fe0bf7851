"""Site folders: what is in them, and what can't become one."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch

from edgekit.cli import main
from edgekit.site import assets, build_site, policy
from edgekit.site import build as building
from edgekit.site.colours import colour
from edgekit_exporters.gguf.metadata import rewrite_metadata
from edgekit_exporters.gguf.prompt import write_prompt
from edgekit_runtime.errors import InputError, TargetError, UsageError
from edgekit_runtime.formats.adapter import KEY_INVOCATION
from edgekit_runtime.formats.bundle import verify_bundle
from edgekit_runtime.formats.signing import make_key, sign
from tests.goods import Goods, with_file, with_report
from tests.runtime.runtime.test_runtime import change_adapter

COLOUR = re.compile(r"#[0-9a-fA-F]{6}\b|#[0-9a-fA-F]{3}\b")


def test_a_site_holds_the_bundle_the_app_and_licensed_code(site: Path, goods: Goods) -> None:
    document = json.loads((site / "site.json").read_text())
    assert verify_bundle(site / "bundle").version == document["bundle"]["version"] == "2026.01.01"
    for file in document["files"]:
        content = (site / file["path"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file["size"], file["sha256"])
    assert {"wllama", "jinja", "noble-hashes"} == {path.name for path in (site / "vendor").iterdir()}
    assert all((folder / "LICENSE").read_text().count("MIT") for folder in (site / "vendor").iterdir())
    own = {each["path"]: each["size"] for each in document["files"] if not each["path"].startswith("vendor/")}
    assert sum(size for path, size in own.items() if not path.endswith(".d.ts")) < 245_000  # no phone loads types
    assert (site / "sw.js").read_text().startswith("const SITE = {")


def test_pages_may_do_little(site: Path) -> None:
    page = (site / "index.html").read_text()
    assert f'content="{policy.content_security_policy()}"' in page
    assert "unsafe-inline" not in page
    assert "'unsafe-eval'" not in page
    assert policy.content_security_policy(["https://a.example"]).count("https://") == 1


def test_examples_are_short_lines_that_the_report_has(goods: Goods, tmp_path: Path) -> None:
    prompts: list[object] = [
        "dent",
        "dent",
        " crack ",
        "two\nlines",
        "a" * 161,
        "",
        3,
        None,
        "划痕 0.4 毫米",
        "bent",
        "worn",
    ]
    bundle = with_report(goods.bundle, tmp_path, {"one": prompts, "unknown": ["dent"]})
    assert build_site(bundle, tmp_path / "site")["examples"] == {"one": ["dent", "crack", "划痕 0.4 毫米", "bent"]}


@pytest.mark.parametrize(
    "report",
    [b"", b"[]", b"[" * 100_000, b'{"adapters": {}}', b'{"adapters": [3, {"adapter": "one", "rows": [3, {}]}]}'],
    ids=["empty", "a list", "deep", "no list", "no prompts"],
)
def test_a_report_without_prompts_gives_no_examples(goods: Goods, tmp_path: Path, report: bytes) -> None:
    bundle = with_file(goods.bundle, tmp_path, "report/report.json", report)
    assert build_site(bundle, tmp_path / "site")["examples"] == {}


def test_the_colours_of_all_pages_are_in_one_file(site: Path) -> None:
    page = files("edgekit_runtime") / "server/page"
    assert (site / "colours.css").read_bytes() == (page / "colours.css").read_bytes()
    manifest = json.loads((site / "site.webmanifest").read_text())
    assert {manifest["theme_color"], manifest["background_color"]} <= set(
        COLOUR.findall((site / "colours.css").read_text())
    )
    index = (site / "index.html").read_text()
    assert set(re.findall(r'theme-color" content="([^"]*)"', index)) == {
        colour("card", dark=dark) for dark in (False, True)
    }
    sources = [
        page / "status.css",
        page / "status.html",
        files("edgekit_web") / "app/app.css",
        files("edgekit_web") / "app/index.html",
    ]
    assert [COLOUR.findall(each.read_text()) for each in sources] == [[], [], [], []]


def test_the_same_inputs_give_the_same_version(goods: Goods, site: Path, tmp_path: Path) -> None:
    first = json.loads((site / "site.json").read_text())["version"]
    worker = (site / "sw.js").read_bytes()
    assert build_site(goods.bundle, tmp_path / "again")["version"] == first
    assert build_site(goods.later_bundle, site)["version"] != first
    assert (site / "sw.js").read_bytes() == worker  # the app is the same one
    build_site(goods.bundle, site, adapters_from=["https://a.example"])
    assert (site / "sw.js").read_bytes() != worker


def test_only_a_signed_bundle_becomes_a_site_that_trusts_a_key(goods: Goods, tmp_path: Path) -> None:
    import shutil

    public = make_key(tmp_path / "line.key")
    bundle = tmp_path / "bundle"
    shutil.copytree(goods.bundle, bundle)
    with pytest.raises(InputError, match="not signed"):
        build_site(bundle, tmp_path / "site", trust=public)
    sign(bundle, tmp_path / "line.key")
    assert "PUBLIC KEY" in build_site(bundle, tmp_path / "site", trust=public)["trust"]
    assert (tmp_path / "site/bundle/manifest.sig").exists()


def test_what_can_not_become_a_site_is_told(goods: Goods, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="other content"):
        build_site(goods.bundle, other)
    with pytest.raises(UsageError, match="no origin"):
        build_site(goods.bundle, tmp_path / "site", adapters_from=["adapters.example.com"])
    with pytest.raises(InputError, match="one is an activated LoRA"):
        build_site(change_adapter(goods.bundle, tmp_path, _activate), tmp_path / "site")
    with pytest.raises(InputError, match="one is a prompt adapter, and a page's engine takes no embeddings"):
        build_site(change_adapter(goods.bundle, tmp_path / "prompt", _to_prompt), tmp_path / "site")
    with pytest.raises(InputError, match="one is sampled with frequency_penalty, which a page's engine counts"):
        build_site(change_adapter(goods.bundle, tmp_path / "penalised", _penalise), tmp_path / "site")
    monkeypatch.setattr(building, "LARGEST_BASE", 1000)
    with pytest.raises(InputError, match="of 4 GiB"):
        build_site(goods.bundle, tmp_path / "site")
    assert not (tmp_path / "site").exists()


def _activate(adapter: Path, manifest: dict[str, Any]) -> None:
    plain = adapter.with_suffix(".plain")
    adapter.rename(plain)
    rewrite_metadata(plain, adapter, {KEY_INVOCATION: [1, 2]})
    plain.unlink()


def _penalise(adapter: Path, manifest: dict[str, Any]) -> None:
    manifest["adapters"][0]["generation"] = {"frequency_penalty": 0.5}


def _to_prompt(adapter: Path, manifest: dict[str, Any]) -> None:
    plain = adapter.with_suffix(".plain")
    write_prompt(torch.ones(3, 64), "llama", plain)
    rewrite_metadata(plain, adapter, {"edgekit.family": manifest["base"]["family"]})
    plain.unlink()
    manifest["adapters"][0] |= {"kind": "prompt", "virtual_tokens": 3, "rank": 0, "targets": []}


def test_a_missing_npm_or_a_damaged_cache_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path))
    monkeypatch.setattr(assets.shutil, "which", lambda _: None)
    with pytest.raises(TargetError, match="npm is not installed"):
        list(assets.vendored_files())
    (tmp_path / "npm/wllama-wllama-3.13.0.tgz").write_bytes(b"something else")
    with pytest.raises(InputError, match="sha512 differs"):
        list(assets.vendored_files())


def test_npm_says_why_it_has_no_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path))
    absent = replace(assets.PACKAGES[0], version="0.0.0-none")
    monkeypatch.setattr(assets, "PACKAGES", (absent,))
    with pytest.raises(TargetError, match="can't be had"):
        list(assets.vendored_files())


def test_the_site_of_a_browser_device_lies_beside_its_bundle(goods: Goods, tmp_path: Path) -> None:
    import shutil

    bundle = tmp_path / "line-3"
    shutil.copytree(goods.bundle, bundle)
    assert building.site_for_device(bundle, "raspberry-pi-5") is None
    assert building.site_for_device(bundle, None) is None
    assert building.site_for_device(bundle, "phone-browser") == tmp_path / "line-3-site"
    assert building.is_site(tmp_path / "line-3-site")


def test_an_export_for_a_browser_writes_the_site_too(
    tiny_chat_base: Path, random_lora: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random_lora(tmp_path / "lora")
    (tmp_path / "edgekit.yaml").write_text(
        f"project: line-3\ntask: text\nbase: {tiny_chat_base}\nadapters: {{small: {{path: lora}}}}\n"
        "export: {quantize: F16, device: phone-browser}\ngate: {rows: 0}\n"
    )
    assert main(["export", "--project", str(tmp_path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["site"] == str(tmp_path / "dist/line-3-site")
    assert building.is_site(Path(document["site"]))
    assert verify_bundle(Path(document["site"]) / "bundle").requires.isa == "wasm-simd128"
