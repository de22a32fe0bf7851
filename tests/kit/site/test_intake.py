"""Adapter files are taken and refused in a page as on other devices: the module's code, in Node.js."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.adapter import EMBEDDING, KEY_RANK
from edgekit_runtime.formats.gguf import read_gguf
from edgekit_runtime.intake.adapters import take_in
from tests.runtime.intake.test_adapters import ALPHAS, NAMES
from tests.tiny_gguf import DOWN, EXPERTS, KEY, TYPES, Arrays, matrices, write_base, write_lora

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="no Node.js: apt-get install nodejs")

SCRIPT = """
import { openAsBlob } from "node:fs";
const [folder, base, ...adapters] = process.argv.slice(1);
const { readGguf } = await import(`${folder}/gguf.js`);
const { takeIn } = await import(`${folder}/intake.js`);
const header = await readGguf(await openAsBlob(base), base);
const said = [];
for (const each of adapters) {
  try {
    const facts = await takeIn(await openAsBlob(each), each, header, "family");
    said.push(Object.fromEntries(facts.pairs));
  } catch (error) {
    if (error.code === undefined) throw error;
    said.push(error.message);
  }
}
console.log(JSON.stringify(said));
"""


def in_node(base: Path, *adapters: Path) -> list[Any]:
    """For each adapter its pairs, or why it is refused."""
    folder = files("edgekit_web") / "app" / "edgekit-runtime"
    command = [str(NODE), "--no-warnings", "--input-type=module", "-e", SCRIPT, str(folder), str(base)]
    done = subprocess.run([*command, *map(str, adapters)], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout)
    return found


def here(base: Path, adapter: Path) -> Any:
    try:
        facts = take_in(adapter, read_gguf(base), family="family")
    except InputError as error:
        return str(error.problem)
    return {name: list(sizes) for name, sizes in facts.pairs.items()}


def without(arrays: Arrays, name: str) -> Arrays:
    return {each: values for each, values in arrays.items() if each != name}


def dense(name: str, change: Callable[[Any], Any]) -> Arrays:
    arrays = matrices(rank=8)
    return arrays | {name: change(arrays[name]).copy()}


ARRAYS: dict[str, Arrays] = {
    "sound": matrices(),
    "embedding": matrices(EMBEDDING, rank=4),
    "embedding of two ranks": matrices(EMBEDDING, rank=4)
    | {f"{EMBEDDING}.lora_b": matrices(EMBEDDING, rank=2)[f"{EMBEDDING}.lora_b"]},
    "experts that the base lacks": matrices("blk.0.ffn_down_exps.weight", rank=4, many=(EXPERTS,)),
    "half": without(matrices(), f"{KEY}.lora_a"),
    "no pair": {},
    "norm": matrices() | {"blk.0.attn_norm.weight": np.ones(4, np.float32)},
    "more": matrices() | {f"{DOWN}.lora_b.lora_a": np.ones((4, 4), np.float32)},
    "swapped A": dense(f"{DOWN}.lora_a", np.transpose),
    "swapped B": dense(f"{KEY}.lora_b", np.transpose),
    "NaN": dense(f"{DOWN}.lora_a", lambda each: each * np.float32("nan")),
    "zeros": {name: each * (".lora_a" in name) for name, each in matrices().items()},
}


def test_the_same_files_are_taken_and_refused_as_elsewhere(tmp_path: Path) -> None:
    base, tied = write_base(tmp_path / "base.gguf"), write_base(tmp_path / "tied.gguf", tied=True)
    paths = [write_lora(tmp_path / f"{number}.gguf", each) for number, each in enumerate(ARRAYS.values())]
    paths += [write_lora(tmp_path / f"{kind}.gguf", matrices(), type_name=kind) for kind in TYPES]
    paths += [
        write_lora(tmp_path / f"alpha-{number}.gguf", matrices(), alpha=each)
        for number, each in enumerate(ALPHAS.values())
    ]
    paths += [
        write_lora(tmp_path / f"value-{number}.gguf", matrices(), alpha=each)
        for number, each in enumerate((None, 0.0, -8.0, float("nan"), float("inf"), 1e30))
    ]
    paths += [write_lora(tmp_path / f"rank-{rank}.gguf", matrices(), facts={KEY_RANK: rank}) for rank in (16, 32)]
    for model in (base, tied):
        for path, found in zip(paths, in_node(model, *paths), strict=True):
            expected = here(model, path)
            assert type(found) is type(expected), (path, found, expected)
            if isinstance(found, dict):
                assert found == expected
    refused = sum(isinstance(each, str) for each in in_node(base, *paths))
    assert refused == len(paths) - 2 - len(TYPES) - 2  # sound, embedding; every type; alpha of -8, rank of 32


def test_a_layer_of_experts_is_taken(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base.gguf", experts=True)
    name = "blk.0.ffn_down_exps.weight"
    sound = write_lora(tmp_path / "a.gguf", matrices(name, rank=4, many=(EXPERTS,)))
    few = write_lora(tmp_path / "b.gguf", matrices(name, rank=4, many=(EXPERTS - 1,)))
    taken, refused = in_node(base, sound, few)
    assert taken == here(base, sound)
    assert "which the base has as" in refused


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_values_that_are_no_numbers_are_found_wherever_they_are(tmp_path: Path, data: st.DataObject) -> None:
    base = write_base(tmp_path / "base.gguf")
    type_name, name = data.draw(st.sampled_from(TYPES)), data.draw(st.sampled_from(NAMES))
    path = write_lora(tmp_path / "a.gguf", matrices(), type_name=type_name)
    tensor = read_gguf(path).tensors[name]
    content = bytearray(path.read_bytes())
    step = {"F32": 4, "Q8_0": 34}.get(type_name, 2)
    at = tensor.offset + data.draw(st.integers(0, tensor.size // step - 1)) * step
    width = 4 if type_name == "F32" else 2
    content[at : at + width] = data.draw(st.binary(min_size=width, max_size=width))
    path.write_bytes(content)
    (found,) = in_node(base, path)
    expected = here(base, path)
    assert type(found) is type(expected)
    content[at : at + width] = b"\xff" * width
    path.write_bytes(content)
    (found,) = in_node(base, path)
    assert f"{name} holds values that are NaN or infinite" in found
