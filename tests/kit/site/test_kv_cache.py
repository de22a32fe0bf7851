"""A page keeps the KV cache that its bundle names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgekit.site import build_site
from edgekit_runtime.errors import InputError
from edgekit_runtime.runtime import Runtime
from tests.browser import needs_chromium
from tests.goods import Goods, with_base
from tests.site import ask, hosting, load_module, phone

if TYPE_CHECKING:
    from playwright.sync_api import Browser

QUESTION = "What is a bracket for, and how does a scratch on its edge come about?"
ASKED: dict[str, Any] = {"adapter": "one", "max_tokens": 12}


@needs_chromium
@pytest.mark.model
def test_it_answers_as_the_native_runtime_does_with_that_cache_and_not_with_another(
    demo_bundle_f16: Path, browser: Browser, tmp_path: Path
) -> None:
    bundle = with_base(demo_bundle_f16, tmp_path / "bundle", kv_cache="q4_0")
    build_site(bundle, tmp_path / "site")
    with Runtime(bundle, threads=1, context=256) as native, Runtime(bundle, kv_cache="f16", context=256) as other:
        want = native.generate(QUESTION, **ASKED).text
        assert want != other.generate(QUESTION, **ASKED).text
    with hosting(tmp_path / "site") as host, phone(browser) as page:
        load_module(page, host)
        assert ask(page, prompt=QUESTION, **ASKED)["text"] == want


def test_a_site_of_a_cache_that_the_base_cannot_have_is_not_built(goods: Goods, tmp_path: Path) -> None:
    bundle = with_base(goods.bundle, tmp_path / "bundle", kv_cache="q8_0")
    with pytest.raises(InputError, match="has attention heads of 16"):
        build_site(bundle, tmp_path / "site")
