"""A page keeps the KV cache that its bundle names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgekit.site import build_site
from edgekit.site.build import BUNDLE_FOLDER
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.manifest import MANIFEST_FILE
from edgekit_runtime.runtime import Runtime
from tests.browser import needs_chromium
from tests.goods import Goods, with_base
from tests.site import ask, hosting, load_module, phone

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@needs_chromium
@pytest.mark.model
def test_it_answers_as_the_native_runtime_does_with_that_cache(
    demo_bundle_f16: Path, browser: Browser, tmp_path: Path
) -> None:
    bundle = with_base(demo_bundle_f16, tmp_path / "bundle", kv_cache="q8_0")
    build_site(bundle, tmp_path / "site")
    with Runtime(bundle, threads=1, context=256, lookahead=False) as native:
        want = native.generate("Name a colour.", adapter="one", max_tokens=6).text
    with hosting(tmp_path / "site") as host, phone(browser) as page:
        load_module(page, host)
        assert ask(page, prompt="Name a colour.", adapter="one", max_tokens=6)["text"] == want


@needs_chromium
def test_the_type_reaches_the_engine(site: Path, browser: Browser) -> None:
    """Which refuses heads of 16 in blocks of 32."""
    manifest = site / BUNDLE_FOLDER / MANIFEST_FILE
    document = json.loads(manifest.read_text())
    document["base"]["kv_cache"] = "q8_0"
    manifest.unlink()  # it may be a link to the bundle's
    manifest.write_text(json.dumps(document))
    with hosting(site) as host, phone(browser) as page:
        assert "the engine can't load the base" in load_module(page, host)["message"]


def test_a_site_of_a_cache_that_the_base_cannot_have_is_not_built(goods: Goods, tmp_path: Path) -> None:
    bundle = with_base(goods.bundle, tmp_path / "bundle", kv_cache="q8_0")
    with pytest.raises(InputError, match="has attention heads of 16"):
        build_site(bundle, tmp_path / "site")
