"""The SIMD dot products that stand in wllama's modules, against the C code that they replace."""

from __future__ import annotations

import base64
import io
import shutil
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgekit.site import build_site
from edgekit.site.assets import PACKAGES, package_bytes
from edgekit.site.kernels import kernels, with_kernels
from edgekit_runtime.errors import InputError
from tests.browser import needs_chromium
from tests.site import ask, hosting, load_module, phone

if TYPE_CHECKING:
    from playwright.sync_api import Browser

BLOCKS = 40
RUN = """async ({ module, x, y, n, wide }) => {
  const bytes = (text) => Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
  const { instance } = await WebAssembly.instantiate(bytes(module));
  const { memory, dot } = instance.exports;
  const at = (number) => (wide ? BigInt(number) : number);
  new Uint8Array(memory.buffer).set(bytes(x), 64);
  new Uint8Array(memory.buffer).set(bytes(y), 16384);
  dot(n, at(0), at(0), at(64), at(0), at(16384), at(0), 1);
  return new Uint32Array(memory.buffer)[0];
}"""


def a_module(body: bytes, *, wide: bool) -> bytes:
    """One function and a memory of 64 KiB, both exported."""

    def section(kind: int, content: bytes) -> bytes:
        return bytes([kind]) + size(len(content)) + content

    def size(length: int) -> bytes:
        return bytes([length & 0x7F | 0x80, length >> 7])

    word = b"\x7e" if wide else b"\x7f"
    kind = b"\x01\x60\x08\x7f" + word * 6 + b"\x7f\x00"
    exports = b"\x02\x06memory\x02\x00\x03dot\x00\x00"
    memory = b"\x01\x04\x01" if wide else b"\x01\x00\x01"
    parts = ((1, kind), (3, b"\x01\x00"), (5, memory), (7, exports), (10, b"\x01" + size(len(body)) + body))
    return b"\0asm\1\0\0\0" + b"".join(section(*part) for part in parts)


def blocks(scales: np.ndarray, quants: np.ndarray) -> bytes:
    return np.hstack([scales.astype("<f2").view(np.uint8).reshape(-1, 2), quants.view(np.uint8)]).tobytes()


@needs_chromium
@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("extreme", [True, False])
def test_sums_are_those_of_the_c_code_to_the_bit(browser: Browser, wide: bool, extreme: bool) -> None:
    random = np.random.default_rng(7)
    scales_x, scales_y = random.normal(0, 1e-2, (2, BLOCKS)).astype(np.float16)
    scales_x[:3], scales_y[3:5] = (6e-8, -3e-5, 65504), (0, -0.0)  # subnormal, the largest, none
    y = random.integers(-127, 128, (BLOCKS, 32), dtype=np.int8)
    bytes_x = random.integers(-128, 128, (BLOCKS, 32), dtype=np.int8)
    nibbles = random.integers(0, 256, (BLOCKS, 16), dtype=np.uint8)
    if extreme:
        y[:], bytes_x[:], nibbles[:] = -127, -128, 0
    low, high = (nibbles & 15).astype(np.int32) - 8, (nibbles >> 4).astype(np.int32) - 8
    weights = {"ggml_vec_dot_q4_0_q8_0": np.hstack([low, high]), "ggml_vec_dot_q8_0_q8_0": bytes_x.astype(np.int32)}
    with phone(browser) as page:
        for name, body in kernels(wide=wide).items():
            want = np.float32(0)
            for w, each, dx, dy in zip(weights[name], y, scales_x, scales_y, strict=True):
                total, dx, dy = np.float32(int(w @ each.astype(np.int32))), np.float32(dx), np.float32(dy)
                want += total * dx * dy if "q4" in name else total * (dx * dy)
            given = {
                "module": base64.b64encode(a_module(body, wide=wide)).decode(),
                "x": base64.b64encode(blocks(scales_x, nibbles if "q4" in name else bytes_x)).decode(),
                "y": base64.b64encode(blocks(scales_y, y)).decode(),
                "n": 32 * BLOCKS,
                "wide": wide,
            }
            assert page.evaluate(RUN, given) == want.view(np.uint32), name


def test_a_module_of_another_make_is_refused() -> None:
    imports = b"\x02\x07\x01\x01e\x01f\x00\x00"
    with pytest.raises(InputError, match="ggml_vec_dot_q4_0_q8_0"):
        with_kernels(b"\0asm\1\0\0\0" + imports + b"\x0a\x01\x00")


@needs_chromium
@pytest.mark.model
def test_a_quantized_model_answers_as_without_them(demo_bundle: Path, browser: Browser, tmp_path: Path) -> None:
    build_site(demo_bundle, tmp_path / "fast")
    shutil.copytree(tmp_path / "fast", tmp_path / "plain")
    with tarfile.open(fileobj=io.BytesIO(package_bytes(PACKAGES[0])), mode="r:gz") as tar:
        stream = tar.extractfile("package/esm/wasm/wllama.wasm")
        assert stream is not None
        (tmp_path / "plain/vendor/wllama/wllama.wasm").write_bytes(stream.read())
    answers = []
    for folder in ("fast", "plain"):
        with hosting(tmp_path / folder) as host, phone(browser) as page:
            load_module(page, host)
            answers.append([ask(page, prompt=p, max_tokens=24)["text"] for p in ("Name a colour.", "Count to ten.")])
    assert answers[0] == answers[1]
