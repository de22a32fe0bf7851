"""The same files in a browser: onnxruntime-web computes what the native engine computes, adapters included."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from edgekit.bases.resolve import resolve_base
from edgekit.site.assets import Package, package_bytes
from edgekit_exporters.base import Base
from edgekit_exporters.gguf.adapter import AdapterSource
from edgekit_runtime.engines import Part
from edgekit_runtime.errors import TargetError
from edgekit_runtime.formats.base_files import BaseFiles
from edgekit_runtime.formats.onnx_base import DATA_FILE, ENGINE, LORA_A, MIXED_FILE, MODEL_FILE, VOCABULARY_FILE
from tests.adapters import save_random_lora
from tests.browser import needs_chromium
from tests.site import chromium, hosting

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytest.importorskip("onnx_ir", reason="the extra is not installed: pip install 'edgekit[onnx]'")

import onnx_ir as ir

from edgekit_exporters.onnx.adapter import write_adapter_onnx
from edgekit_exporters.onnx.base import base_onnx
from edgekit_exporters.onnx.graph import require_inputs
from edgekit_runtime.engines.onnx.engine import OnnxEngine
from edgekit_runtime.formats.onnx_adapter import read_onnx_adapter

WEB = Package(
    name="onnxruntime-web",
    version="1.30.0",
    sha512="q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
    license="MIT",
    folder="ort",
    files={
        "dist/ort.wasm.min.mjs": "ort.mjs",
        "dist/ort-wasm-simd-threaded.mjs": "ort-wasm-simd-threaded.mjs",
        "dist/ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
    },
)
PROMPT, ANSWER = tuple(range(100, 112)), 8

# Greedy decoding as a page would write it: the KV cache goes from the outputs to the next inputs.
PAGE_SCRIPT = """async ({ prompt, count, matrices, heads, size }) => {
  const ort = await import("./ort.mjs");
  ort.env.wasm.numThreads = 1;
  const externalData = [{ path: "model.onnx.data", data: "./model.onnx.data" }];
  const session = await ort.InferenceSession.create("./model.onnx", { executionProviders: ["wasm"], externalData });
  const content = await (await fetch("./adapter.bin")).arrayBuffer();
  const adapter = {};
  for (const { name, shape, offset } of matrices) {
    adapter[name] = new ort.Tensor("float32", new Float32Array(content, offset, shape[0] * shape[1]), shape);
  }
  const whole = (values, shape) => new ort.Tensor("int64", BigInt64Array.from(values, BigInt), shape);
  const past = {};
  for (const name of session.inputNames.filter((each) => each.startsWith("past_key_values"))) {
    past[name] = new ort.Tensor("float32", new Float32Array(0), [1, heads, 0, size]);
  }
  const answer = [];
  let tokens = prompt, seen = 0, first;
  while (answer.length < count) {
    seen += tokens.length;
    const output = await session.run({
      input_ids: whole(tokens, [1, tokens.length]),
      attention_mask: whole(new Array(seen).fill(1), [1, seen]),
      logits_from: whole([-1], [1]),
      ...past,
      ...adapter,
    });
    for (const name of Object.keys(past)) past[name] = output[name.replace("past_key_values", "present")];
    const last = output.logits.data;
    first ??= Array.from(last);
    tokens = [last.indexOf(Math.max(...last))];
    answer.push(tokens[0]);
  }
  return { first, answer };
}"""


@pytest.fixture(scope="module")
def ort() -> dict[str, bytes]:
    """The files of onnxruntime-web."""
    try:
        content = package_bytes(WEB)
    except TargetError as error:
        pytest.skip(str(error))
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as tar:
        found = {}
        for inside, name in WEB.files.items():
            stream = tar.extractfile(f"package/{inside}")
            assert stream is not None
            found[name] = stream.read()
    return found


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with chromium() as browser:
        yield browser.new_page()


@needs_chromium
@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_a_browser_answers_as_the_native_engine(
    precision: str, ort: dict[str, bytes], page: Page, tiny_chat_base: Path, tmp_path: Path
) -> None:
    base = resolve_base(str(tiny_chat_base))
    folder = base_onnx(base, precision)
    adapter = _adapter(base, folder, tmp_path)
    for name, content in ort.items():
        (tmp_path / name).write_bytes(content)
    shutil.copyfile(folder / DATA_FILE, tmp_path / DATA_FILE)
    model = ir.load(tmp_path.joinpath(shutil.copyfile(folder / MODEL_FILE, tmp_path / "with-defaults.onnx")))
    require_inputs(model)
    ir.save(model, tmp_path / MODEL_FILE)
    (tmp_path / "index.html").write_text("<!doctype html>")
    matrices = _write_matrices(adapter, tmp_path / "adapter.bin")
    empty = [{"name": each["name"], "shape": _rank_0(each), "offset": 0} for each in matrices]
    decoder = json.loads((folder / "genai_config.json").read_text())["model"]["decoder"]
    shape = {"heads": decoder["num_key_value_heads"], "size": decoder["head_size"]}
    with hosting(tmp_path) as host:
        page.goto(host.url)
        for stack, given in (((), empty), ((("a", 1.0),), matrices)):
            expected, answer = _native(folder, adapter, stack)
            asked = {"prompt": list(PROMPT), "count": ANSWER, "matrices": given, **shape}
            found = page.evaluate(PAGE_SCRIPT, asked)
            if precision == "fp32":  # activations rounded to 8 bits turn the near ties of random weights
                assert found["answer"] == answer
            got = torch.log_softmax(torch.tensor(found["first"]), -1)
            assert float((expected.exp() * (expected - got)).sum()) < {"fp32": 1e-5, "int4": 0.03}[precision]


def _adapter(base: Base, folder: Path, scratch: Path) -> Path:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)
    save_random_lora(model, scratch / "peft", std=0.1, r=4, lora_alpha=8, target_modules="all-linear")
    write_adapter_onnx(AdapterSource("a", "1", scratch / "peft"), base, scratch / "a.onnx_adapter", folder)
    return scratch / "a.onnx_adapter"


def _write_matrices(adapter: Path, destination: Path) -> list[dict[str, Any]]:
    """The matrices of an adapter one after another, and where each is."""
    index, offset = [], 0
    with destination.open("wb") as stream:
        for name, array in read_onnx_adapter(adapter).arrays().items():
            stream.write(np.ascontiguousarray(array).tobytes())
            index.append({"name": name, "shape": list(array.shape), "offset": offset})
            offset += array.nbytes
    return index


def _rank_0(matrix: dict[str, Any]) -> list[int]:
    rows, columns = matrix["shape"]
    return [rows, 0] if matrix["name"].endswith(LORA_A) else [0, columns]


def _native(folder: Path, adapter: Path, stack: tuple[tuple[str, float], ...]) -> tuple[torch.Tensor, list[int]]:
    """Log-probabilities after the prompt, and the greedy answer."""
    parts = {name: folder / name for name in (MIXED_FILE, DATA_FILE, VOCABULARY_FILE)}
    engine = OnnxEngine(BaseFiles(ENGINE, folder / MODEL_FILE, parts), context=64, threads=1)
    engine.load_adapter("a", adapter)
    engine.select(stack)
    engine.decode([Part(0, 0, PROMPT)])
    first = torch.log_softmax(torch.from_numpy(engine.row(0).copy()), -1)
    answer = [int(engine.row(0).argmax())]
    while len(answer) < ANSWER:
        engine.decode([Part(0, len(PROMPT) + len(answer) - 1, [answer[-1]])])
        answer.append(int(engine.row(0).argmax()))
    engine.close()
    return first, answer
