"""ONNX files that are damaged or say something wrong: adapters, graphs, and where graphs have their weights."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.adapter import AdapterFacts
from edgekit_runtime.formats.base_files import BaseFiles
from edgekit_runtime.formats.base_header import onnx_layers
from edgekit_runtime.formats.bundle import file_digest, open_bundle
from edgekit_runtime.formats.gguf import GgufFile, read_gguf
from edgekit_runtime.formats.onnx_adapter import SUFFIX, model_version, trailer
from edgekit_runtime.formats.onnx_base import DATA_FILE, ENGINE, KEY_LAYERS, MIXED_FILE, MODEL_FILE, VOCABULARY_FILE
from edgekit_runtime.formats.onnx_graph import check_graph
from edgekit_runtime.intake import canary
from edgekit_runtime.intake.adapters import take_in, take_in_bundle
from tests.raw_gguf import Value, metadata_of_base, write_raw
from tests.runtime.torture.test_mutations import damage
from tests.runtime.torture.test_shapes import Shaper, run_in_children, shaped_json, timed

onnx = pytest.importorskip("onnx", reason="the extra is not installed: pip install 'edgekit[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'edgekit-runtime[onnx]'")

FAMILY = "tiny"
FACTS: dict[str, Any] = {
    "edgekit.name": "one",
    "edgekit.version": "1.0",
    "edgekit.family": FAMILY,
    "edgekit.rank": 4,
    "edgekit.targets": ["o_proj"],
    "edgekit.system": "Be short.",
    "edgekit.generation": {"max_tokens": 7, "temperature": 0.5, "top_k": 3, "top_p": 0.9},
    "edgekit.output_schema": {"type": "object", "properties": {"a": {"enum": [1]}}},
    "edgekit.template_arguments": {"enable_thinking": False},
    "adapter.alora.invocation_tokens": [1, 2],
}
PLACES = ["../x", "/etc/hostname", "/dev/zero", "fifo", "link", ".", "", "a\0b", "x" * 5000, DATA_FILE + "/", "\udc80x"]
PLACES += ["./" + DATA_FILE, MODEL_FILE, VOCABULARY_FILE, "*/_ORT_MEM_ADDR_/*", "\\\\host\\x", "file:///etc/hostname"]
COUNTS = ["-1", "0", "1", "9" * 18, "9" * 40, str(1 << 63), "1e3", "", " 1", "0x10", "99999999"]
SIZES = [0, 1, -1, 3, 64, 65_535, 1 << 31, 1 << 40, (1 << 63) - 1, -(1 << 63)]


@dataclass(frozen=True)
class Tiny:
    """A base as ONNX with a small vocabulary."""

    files: BaseFiles
    header: GgufFile

    @property
    def folder(self) -> Path:
        return self.files.model.parent

    @property
    def layers(self) -> dict[str, tuple[int, int]]:
        return onnx_layers(self.header)


@pytest.fixture(scope="module")
def tiny(tiny_onnx_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp("tiny-onnx")
    with open_bundle(tiny_onnx_bundle) as bundle:
        whole = bundle.base_files
        for path in (whole.model, whole.parts[DATA_FILE], whole.parts[MIXED_FILE]):
            shutil.copy(path, folder)
        layers: Value = ("[STRING]", read_gguf(whole.header).metadata[KEY_LAYERS])
    metadata = {key: value for key, value in metadata_of_base().items() if not key.startswith("llama.")}
    write_raw(folder / VOCABULARY_FILE, {**metadata, KEY_LAYERS: layers, "edgekit.family": ("STRING", FAMILY)}, {})
    parts = {name: folder / name for name in (DATA_FILE, MIXED_FILE, VOCABULARY_FILE)}
    files = BaseFiles(ENGINE, folder / MODEL_FILE, parts)
    return Tiny(files, read_gguf(files.header))


def matrices(layers: dict[str, tuple[int, int]]) -> dict[str, Any]:
    chosen = np.random.default_rng(1)
    found = {}
    for name, (inputs, outputs) in list(layers.items())[:2]:
        found[f"{name}.lora_A"] = chosen.normal(0, 0.1, (inputs, 4)).astype(np.float32)
        found[f"{name}.lora_B"] = chosen.normal(0, 0.1, (4, outputs)).astype(np.float32)
    return found


def flatbuffer(arrays: dict[str, Any], path: Path, *, version: int) -> bytes:
    """As ONNX Runtime writes it."""
    file = onnxruntime.AdapterFormat()
    file.set_adapter_version(1)
    file.set_model_version(version)
    file.set_parameters({name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()})
    file.export_adapter(str(path))
    return path.read_bytes()


def moved(content: bytes, chosen: random.Random) -> bytes:
    """A few offsets, lengths or sizes of a flatbuffer changed."""
    data = bytearray(content)
    for _ in range(chosen.choice([1, 1, 2, 3])):
        words = [at for at in range(0, len(data) - 8, 4) if struct.unpack_from("<I", data, at)[0] < len(data)]
        at = chosen.choice(words)
        size = chosen.choice([0, 0, 1, 2])  # of 4, 2 or 8 bytes
        code, bits = "IHQ"[size], (32, 16, 64)[size]
        old = struct.unpack_from(f"<{code}", data, at)[0]
        new = chosen.choice([0, 1, 3, 4, old + 4, old - 4, old * 2, len(data), len(data) - at, 1 << bits - 1, -1, -4])
        struct.pack_into(f"<{code}", data, at, new % (1 << bits))
    return bytes(data)


def reshaped(arrays: dict[str, Any], chosen: random.Random) -> dict[str, Any]:
    """A matrix gone, renamed, turned, of other values, of another type or of another rank."""
    found = dict(arrays)
    name = chosen.choice(list(found))
    array = found.pop(name)
    ways: list[Callable[[], dict[str, Any]]] = [
        dict,
        lambda: {chosen.choice([name + "x", "", "x" * 2000, "a\0b", "é", name[:-1] + "C", name[:-6]]): array},
        lambda: {name: np.ascontiguousarray(array.T)},
        lambda: {name: array.astype(chosen.choice([np.float16, np.float64, np.int8, np.int64, np.bool_]))},
        lambda: {name: array.reshape(chosen.choice([(-1,), (1, -1), (-1, 1), (1, *array.shape)]))},
        lambda: {name: array[:0]},
        lambda: {name: np.full_like(array, chosen.choice([np.nan, np.inf, 0, 3e38, 1e-45]))},
        lambda: {name: np.zeros(chosen.choice([(0, 0), (0,), (4, 4), (4, 100_000)]), np.float32)},
    ]
    return found | chosen.choice(ways)()


def test_onnx_adapters(tiny: Tiny, tmp_path: Path, torture: bool, figures: Callable[[str, object], None]) -> None:
    """Read within bounds, refused in one line, or taken, and then run in a child without a crash."""
    shaper, counts = Shaper(5), Counter[str]()
    chosen, version = shaper.chosen, model_version(FAMILY)
    arrays = matrices(tiny.layers)
    plain = flatbuffer(arrays, tmp_path / "plain", version=version)
    taken: list[Path] = []
    path = tmp_path / f"a{SUFFIX}"
    for number in range(5_000 if torture else 200):
        content, facts = plain, FACTS
        match chosen.randrange(5):
            case 0:
                content = damage(plain, chosen)
            case 1:
                content = moved(plain, chosen)
            case 2:
                changed = reshaped(arrays, chosen)
                content = flatbuffer(changed, tmp_path / "plain", version=chosen.choice([version] * 9 + [0, -1]))
            case _:
                facts = shaped_json(shaper, FACTS)
        behind = trailer(facts)
        if chosen.random() < 0.1:
            behind = chosen.choice([b"", behind[1:], behind[:-1], damage(behind, chosen), bytes(64), bytes(65)])
        path.write_bytes(content + behind)
        timed(counts, "ONNX adapter", lambda: take_in(path, tiny.header, family=FAMILY))
        if counts["ONNX adapter: taken"] > len(taken):
            taken.append(path.rename(tmp_path / f"{number}{SUFFIX}"))
    run_in_children(tiny.files, taken if torture else taken[:10], counts)
    for kind, count in sorted(counts.items()):
        figures(kind, count)


def tensors_in(graph: Any) -> list[Any]:
    """Of a graph, constants in its nodes included."""
    inner = [attribute.t for node in graph.node for attribute in node.attribute if attribute.HasField("t")]
    return [*graph.initializer, *inner]


def set_place(tensor: Any, **entries: str) -> None:
    tensor.data_location = onnx.TensorProto.EXTERNAL
    known = {each.key: each.value for each in tensor.external_data} | entries
    del tensor.external_data[:]
    for key, value in known.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def reworked(model: Any, chosen: random.Random) -> bytes:
    """A graph that is whole, and says something wrong."""
    graph = model.graph
    tensors = tensors_in(graph)
    outside = [each for each in tensors if each.external_data]
    tensor, node = chosen.choice(tensors), chosen.choice(graph.node)
    value = chosen.choice([*graph.input, *graph.output])
    dimension = chosen.choice(value.type.tensor_type.shape.dim)
    match chosen.randrange(14):
        case 0 | 1:
            set_place(chosen.choice([chosen.choice(outside), tensor]), location=chosen.choice(PLACES))
        case 2 | 3:
            set_place(chosen.choice(outside), **{chosen.choice(["offset", "length"]): chosen.choice(COUNTS)})
        case 4:
            entry = chosen.choice(outside).external_data.add()
            entry.key, entry.value = chosen.choice([("location", "../x"), ("offset", "0"), ("x" * 9999, "y"), ("", "")])
        case 5:
            del tensor.dims[:]
            tensor.dims.extend(chosen.choice(SIZES) for _ in range(chosen.choice([0, 1, 2, 2, 9])))
        case 6:
            tensor.data_type = chosen.choice([-1, *range(24), 1 << 30])
        case 7:
            tensor.raw_data = chosen.choice([b"", b"\0", bytes(100_000)])
        case 8:
            node.op_type = chosen.choice(["", "Add", "Loop", "If", "MatMulNBits", "EPContext", "x" * 999])
        case 9:
            kind = chosen.choice([node.input, node.output])
            if kind:
                kind[chosen.randrange(len(kind))] = chosen.choice(["", "x", "input_ids", *list(node.output)])
        case 10:
            if node.attribute:
                chosen.choice(node.attribute).i = chosen.choice(SIZES)
        case 11:
            dimension.dim_value = chosen.choice(SIZES)
        case 12:
            value.type.tensor_type.elem_type = chosen.choice([-1, *range(24)])
        case 13:
            value.name = chosen.choice(["x", "", "logits", "past_key_values.9.key", "input_ids"])
    return bytes(model.SerializeToString())


def outcome(files: BaseFiles) -> str:
    """What comes of a base in a child."""
    try:
        canary.try_adapters(files, [])
    except InputError as error:
        return next((word for word in ("crashes", "hangs") if word in str(error)), "refused")
    return "runs"


def test_onnx_graphs(tiny: Tiny, tmp_path: Path, torture: bool, figures: Callable[[str, object], None]) -> None:
    """None asks for a file that isn't the base's; what our reader takes crashes a child at most."""
    chosen, counts = random.Random(6), Counter[str]()
    folder = tmp_path / "base"
    shutil.copytree(tiny.folder, folder)
    os.mkfifo(folder / "fifo")
    (folder / "link").symlink_to("/etc/hostname")
    parts = {name: folder / name for name in tiny.files.parts}
    sound = tiny.files.model.read_bytes()
    left = 200 if torture else 4
    for _ in range(5_000 if torture else 150):
        content = damage(sound, chosen) if chosen.random() < 0.3 else reworked(onnx.load_from_string(sound), chosen)
        graph = folder / MODEL_FILE
        graph.write_bytes(content)
        before = counts["ONNX graph: taken"]
        timed(counts, "ONNX graph", lambda graph=graph: check_graph(graph, parts))
        if counts["ONNX graph: taken"] > before:
            assert places_in(content) <= {DATA_FILE, MODEL_FILE, VOCABULARY_FILE, MIXED_FILE}
            if left and chosen.random() < 0.1:
                left -= 1
                counts[f"ONNX graph in a child: {outcome(BaseFiles(ENGINE, graph, parts))}"] += 1
    assert counts["ONNX graph in a child: hangs"] == 0
    for kind, count in sorted(counts.items()):
        figures(kind, count)


def places_in(content: bytes) -> set[str]:
    """Files that a graph asks for, as onnx itself reads it."""
    try:
        tensors = tensors_in(onnx.load_from_string(content).graph)
    except Exception:  # protobuf takes less than our reader, which passes over what holds no tensors
        return set()
    return {each.value for tensor in tensors for each in tensor.external_data if each.key == "location"}


def test_onnx_bundles(
    tiny: Tiny, tiny_onnx_bundle: Path, tmp_path: Path, torture: bool, figures: Callable[[str, object], None]
) -> None:
    """A manifest or a file of the base that is something else: a link, a pipe, nothing, another one."""
    shaper, counts = Shaper(7), Counter[str]()
    chosen = shaper.chosen
    sound = json.loads((tiny_onnx_bundle / "manifest.json").read_text())
    names = [sound["base"]["file"], *(part["file"] for part in sound["base"]["parts"])]
    for _ in range(300 if torture else 30):
        folder = tmp_path / "bundle"
        shutil.copytree(tiny_onnx_bundle, folder, copy_function=os.link)
        document = copy.deepcopy(shaped_json(shaper, sound) if chosen.random() < 0.5 else sound)
        name = chosen.choice(names)
        path = folder / name
        path.unlink()
        match chosen.randrange(7):
            case 0:
                os.mkfifo(path)
            case 1:
                path.symlink_to(tiny_onnx_bundle / name)
            case 2:
                path.mkdir()
            case 3:
                path.write_bytes(b"")
            case 4:
                path.write_bytes((tiny_onnx_bundle / chosen.choice(names)).read_bytes())
            case 5:
                path.write_bytes(damage((tiny_onnx_bundle / name).read_bytes(), chosen))
            case 6:
                os.link(tiny_onnx_bundle / name, path)
                if isinstance(document, dict) and document.get("base") == sound["base"]:
                    part = chosen.choice(document["base"]["parts"])
                    part["name"] = chosen.choice(["x", "../x", "", *(each["name"] for each in sound["base"]["parts"])])
        if path.is_file() and not path.is_symlink() and isinstance(document, dict):
            _refit(document, folder, name)
        (folder / "manifest.json").unlink()
        (folder / "manifest.json").write_text(json.dumps(document))

        def opened(folder: Path = folder) -> None:
            with open_bundle(folder) as bundle:
                take_in_bundle(bundle, read_gguf(bundle.base_files.header))

        timed(counts, "ONNX bundle", opened)
        shutil.rmtree(folder)
    assert counts["ONNX bundle: taken"] < counts["ONNX bundle: refused"]  # by chance it is what it was
    for kind, count in sorted(counts.items()):
        figures(kind, count)


def _refit(document: dict[str, Any], folder: Path, name: str) -> None:
    """Let the manifest fit the file that is there."""
    digest, size = file_digest(folder / name), (folder / name).stat().st_size
    try:
        base = document["base"]
        for each in (base, *base["parts"]):
            if each["file"] == name:
                each["digest"] = digest
        for each in document["files"]:
            if each["path"] == name:
                each |= {"sha256": digest, "size": size}
    except (TypeError, KeyError, AttributeError):  # it has no such place any more
        return


def test_a_sound_one_of_each_is_taken(tiny: Tiny, tiny_onnx_bundle: Path, tmp_path: Path) -> None:
    """Or the runs above would prove nothing."""
    path = tmp_path / f"a{SUFFIX}"
    content = flatbuffer(matrices(tiny.layers), tmp_path / "plain", version=model_version(FAMILY))
    path.write_bytes(content + trailer(FACTS))
    assert AdapterFacts.read(path).rank == 4
    take_in(path, tiny.header, family=FAMILY)
    for graph in (tiny.files.model, tiny.files.parts[MIXED_FILE]):
        check_graph(graph, tiny.files.parts)
        assert places_in(graph.read_bytes()) == {DATA_FILE}
    with open_bundle(tiny_onnx_bundle) as bundle:
        take_in_bundle(bundle, read_gguf(bundle.base_files.header))
    assert canary.try_adapters(tiny.files, [path]) == [True]
