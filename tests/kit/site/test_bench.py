"""The benchmark in a page: the native one's document, so that both can be compared."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.bench.targets import bench_on
from edgekit.site import browsers
from edgekit_runtime.bench import BENCH_SCHEMA, compare, run_bench, table
from edgekit_runtime.errors import TargetError, UsageError
from tests.browser import needs_chromium
from tests.goods import Goods

SMALL = {"repeats": 1, "prompt_tokens": 8, "decode_tokens": 4, "threads": 1}


@needs_chromium
def test_a_page_is_measured_as_a_device_is(goods: Goods, tmp_path: Path) -> None:
    output = tmp_path / "browser.json"
    options = [f"--{key.replace('_', '-')}={value}" for key, value in SMALL.items()]
    # A process of its own: in this one, other tests may hold a browser open.
    command = [sys.executable, "-m", "edgekit", "bench", str(goods.bundle), "--target", "browser", *options]
    run = subprocess.run([*command, "--output", str(output)], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert "peak RSS" in run.stdout
    document = json.loads(output.read_text())
    assert document["schema"] == BENCH_SCHEMA
    assert document["machine"]["browser"].startswith("Chromium")
    assert document["target"] == {"kind": "browser", "name": "browser", "emulated": False}
    assert [result["adapter"] for result in document["results"]] == ["base", "one"]
    for result in document["results"]:
        assert all(result[key]["median"] > 0 for key in ("ttft_ms", "prefill_tps", "decode_tps"))
    assert "switch_ms" in document["results"][1]
    assert document["open_verified_ms"] > 0
    assert document["peak_rss_mb"] > 50
    native = run_bench(goods.bundle, **SMALL)
    assert "engine name: llama.cpp | wllama" in compare(native, document)
    assert table(native)


def test_targets_and_browsers_that_are_not_there_are_told(goods: Goods, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="browser"):
        bench_on("moon", argparse.Namespace())
    with pytest.raises(UsageError, match="chromium, firefox"):
        browsers.open_tab("lynx")
    monkeypatch.setattr(browsers.shutil, "which", lambda _: None)
    for name in browsers.BROWSERS:
        with pytest.raises(TargetError, match="apt-get install"), browsers.open_tab(name):
            pass
