"""The same module in Firefox."""

from __future__ import annotations

import base64
import hashlib
import shutil
from pathlib import Path

import pytest

from edgekit.site import build_site
from edgekit.site.browsers import FIREFOX, open_tab
from edgekit_runtime import Runtime
from edgekit_runtime.formats.images import read_picture
from tests.site import hosting
from tests.vlm import Model, picture_file

LOAD = """async () => {
  const { load } = await import("./index.js");
  globalThis.runtime = await load("../", { threads: 1 });
  return runtime.info;
}"""
ASK = """async ({ data, request }) => {
  const image = new Blob([Uint8Array.from(atob(data), (sign) => sign.charCodeAt(0))]);
  const { readPicture } = await import("./images.js");
  const { rgb } = await readPicture(image);
  const digest = [...new Uint8Array(await crypto.subtle.digest("SHA-256", rgb))];
  return { digest, answer: await runtime.generate({ ...request, image }) };
}"""


@pytest.mark.skipif(not any(map(shutil.which, FIREFOX)), reason="no Firefox: apt-get install firefox-esr")
def test_greedy_captions_are_the_native_runtimes(smolvlm: Model, tmp_path: Path) -> None:
    build_site(smolvlm.bundle, tmp_path / "site")
    image = picture_file(tmp_path / "1.png", (60, 40))
    data = base64.b64encode(image.read_bytes()).decode()
    with (
        Runtime(smolvlm.bundle, threads=1, context=512) as native,
        hosting(tmp_path / "site") as host,
        open_tab("firefox") as page,
    ):
        page.goto(host.url + "edgekit-runtime/blank.html")
        assert page.run(LOAD)["loads"] == 1
        assert page.run("() => crossOriginIsolated")
        for adapter in ("one", "base", "two"):
            request = {"prompt": "What is it?", "adapter": adapter, "max_tokens": 8}
            got = page.run(ASK, {"data": data, "request": request})
            assert bytes(got["digest"]) == hashlib.sha256(read_picture(image).rgb).digest()
            assert got["answer"]["text"] == native.generate(image=image, **request).text
        assert page.run("() => runtime.info.loads") == 1
