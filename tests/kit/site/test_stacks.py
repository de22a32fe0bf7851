"""A page answers with stacks as the native runtime does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgekit.site import build_site
from edgekit_runtime.formats.manifest import MANIFEST_FILE
from edgekit_runtime.runtime import Runtime
from tests.browser import needs_chromium
from tests.site import ask, hosting, load_module, phone

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PROMPT = "Name a colour."


def with_stack(bundle: Path, folder: Path, scales: dict[str, float]) -> Path:
    """A copy of a bundle with a stack ``both``."""
    shutil.copytree(bundle, folder, copy_function=shutil.copy2)
    document = json.loads((folder / MANIFEST_FILE).read_text())
    digests = {entry["name"]: entry["digest"] for entry in document["adapters"]}
    parts = [{"name": name, "scale": scale, "digest": digests[name]} for name, scale in scales.items()]
    document["stacks"] = [{"name": "both", "adapters": parts}]
    document |= {"version": "2", "default_adapter": "both"}
    (folder / MANIFEST_FILE).write_text(json.dumps(document))
    return folder


@needs_chromium
@pytest.mark.model
def test_a_stack_answers_as_on_other_devices_as_long_as_its_adapters_are_there(
    demo_bundle_f16: Path, browser: Browser, tmp_path: Path
) -> None:
    bundle = with_stack(demo_bundle_f16, tmp_path / "bundle", {"one": 2.0, "two": 2.0})
    build_site(bundle, tmp_path / "site")
    with Runtime(bundle, threads=1, context=256, lookahead=False) as native:
        want = {each: native.generate(PROMPT, adapter=each, max_tokens=8).text for each in ("one", "both")}
    assert want["one"] != want["both"]
    with hosting(tmp_path / "site") as host, phone(browser) as page:
        load_module(page, host)
        for name in ("both", "one", "both"):  # each prompt begins as the one before, whose cells are of other scales
            assert ask(page, prompt=PROMPT, adapter=name, max_tokens=8)["text"] == want[name]
        assert ask(page, prompt=PROMPT, max_tokens=8)["text"] == want["both"]
        page.evaluate("() => runtime.adapters.remove('two')")
        assert page.evaluate("() => runtime.adapters.stacks()") == []
        with pytest.raises(Exception, match="the stack both needs two, which doesn't answer"):
            ask(page, prompt=PROMPT, adapter="both", max_tokens=2)
        with pytest.raises(Exception, match="the stack both needs two, which doesn't answer"):
            ask(page, prompt=PROMPT, max_tokens=2)
        page.evaluate("() => runtime.adapters.rollback()")
        page.goto(host.url)
        page.wait_for_selector("#talk:not([hidden])", timeout=60_000)
        assert page.locator("#adapter option").all_inner_texts()[:-1] == ["one", "two", "both"]
        assert page.locator("#adapter").input_value() == "both"
