"""An adapter in any form that tools leave: the same adapter, or a refusal that says what is wrong with which file."""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from edgekit_exporters.base import Base
from edgekit_exporters.hf.plain_files import ADAPTER_CONFIG
from edgekit_exporters.peft.files import INDEX_FILE, PICKLE_FILE, WEIGHTS_FILE
from edgekit_exporters.peft.intake import _taken, take_in
from edgekit_runtime.errors import InputError
from tests.exporters.peft.intake import own_logits, peft_answers, save_adapter

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123456\n"


@pytest.fixture(scope="module")
def clean(tiny_base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(tiny_base, tmp_path_factory.mktemp("clean") / "adapter")


@pytest.fixture(scope="module")
def wanted(clean: Path, tiny_base: Base) -> torch.Tensor:
    return peft_answers(tiny_base, clean)


@pytest.fixture
def folder(clean: Path, tmp_path: Path) -> Path:
    shutil.copytree(clean, tmp_path / "adapter")
    return tmp_path / "adapter"


def _shard(folder: Path) -> dict[str, str]:
    weights = load_file(folder / WEIGHTS_FILE)
    (folder / WEIGHTS_FILE).unlink()
    names = sorted(weights)
    places: dict[str, str] = {}
    for number in (1, 2, 3):
        shard = f"adapter_model-0000{number}-of-00003.safetensors"
        part = names[number - 1 :: 3]
        save_file({name: weights[name] for name in part}, folder / shard)
        places |= dict.fromkeys(part, shard)
    (folder / INDEX_FILE).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return places


def _pickle(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS_FILE), folder / PICKLE_FILE)
    (folder / WEIGHTS_FILE).unlink()


def _checkpoints(folder: Path) -> None:
    """The newest is not whole."""
    newest, whole, older = (folder / f"checkpoint-{n}" for n in (100, 20, 3))
    for each in (newest, whole, older):
        each.mkdir()
    for path in [path for path in folder.iterdir() if path.is_file()]:
        shutil.copy(path, newest / path.name)
        shutil.move(path, whole / path.name)
    (newest / WEIGHTS_FILE).write_bytes((newest / WEIGHTS_FILE).read_bytes()[:1000])


def _named(folder: Path) -> None:
    """PEFT saves an adapter that isn't called "default" one folder below."""
    shutil.copytree(folder, folder.parent / "dpo")
    for path in [path for path in folder.iterdir() if path.name != "README.md"]:
        path.unlink()
    shutil.move(folder.parent / "dpo", folder / "dpo")


FORMS: dict[str, Callable[[Path], Path | None]] = {
    "folder": lambda folder: None,
    "shards": lambda folder: _shard(folder) and None,
    "index": lambda folder: _shard(folder) and folder / INDEX_FILE,
    "pickle in a folder": _pickle,
    "one safetensors file": lambda folder: folder / WEIGHTS_FILE,
    "one file of another name": lambda folder: (folder / WEIGHTS_FILE).rename(folder / "best.safetensors"),
    "one pickle": lambda folder: _pickle(folder) or (folder / PICKLE_FILE).rename(folder / "best.pt"),
    "checkpoints": _checkpoints,
    "a folder of its name": _named,
    "a link": lambda folder: (link := folder.parent / "link").symlink_to(folder) or link,
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_every_form_is_the_same_adapter(
    form: Callable[[Path], Path | None], folder: Path, wanted: torch.Tensor, tiny_base: Base
) -> None:
    assert torch.equal(own_logits(tiny_base, form(folder) or folder), wanted)


def test_the_checkpoint_that_is_taken_is_told(folder: Path, tiny_base: Base, caplog: pytest.LogCaptureFixture) -> None:
    _checkpoints(folder)
    with caplog.at_level(logging.INFO, "edgekit_exporters"):
        take_in(folder, tiny_base)
    assert "taking checkpoint-20" in caplog.text
    assert "checkpoint-100 is not whole" in caplog.text


def _several(folder: Path) -> None:
    for name in ("sft", "dpo"):
        shutil.copytree(folder, folder.parent / name)
    shutil.rmtree(folder)
    folder.mkdir()
    for name in ("sft", "dpo"):
        shutil.move(folder.parent / name, folder / name)


def _no_whole_checkpoint(folder: Path) -> None:
    _checkpoints(folder)
    (folder / "checkpoint-20" / WEIGHTS_FILE).write_bytes(POINTER)


def _lost_beside_checkpoints(folder: Path) -> None:
    shutil.copytree(folder, folder.parent / "checkpoint-5")
    (folder / WEIGHTS_FILE).unlink()
    shutil.move(folder.parent / "checkpoint-5", folder)


def _a_model(folder: Path) -> None:
    (folder / ADAPTER_CONFIG).rename(folder / "config.json")
    (folder / WEIGHTS_FILE).rename(folder / "model.safetensors")


def _missing_shard(folder: Path) -> None:
    (folder / min(_shard(folder).values())).unlink()


def _index_of(places: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        _shard(folder)
        (folder / INDEX_FILE).write_text(json.dumps({"weight_map": places}))

    return damage


def _shard_elsewhere(folder: Path) -> None:
    places = _shard(folder)
    moved = {name: f"../{shard}" for name, shard in places.items()}
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": moved}))


def _unlisted_tensor(folder: Path) -> None:
    places = _shard(folder)
    places.pop(min(places))
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": places}))


def _in_place_of(name: str, work: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        work(folder / name)

    return damage


class _Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("/tmp/edgekit-intake-was-run",)


def _pickled(content: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / WEIGHTS_FILE).unlink()
        torch.save(content, folder / PICKLE_FILE)

    return damage


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "several adapters": (_several, r"several adapters \(dpo, sft\)"),
    "no whole checkpoint": (_no_whole_checkpoint, "none of the checkpoints .*newest is checkpoint-100"),
    "weights lost beside checkpoints": (_lost_beside_checkpoints, "has no adapter_model.safetensors.*checkpoint-5"),
    "a whole model": (_a_model, "is a whole model, no adapter"),
    "nothing": (lambda folder: [path.unlink() for path in folder.iterdir()], "is not a PEFT adapter"),
    "no config": (lambda folder: (folder / ADAPTER_CONFIG).unlink(), "has no adapter_config.json beside it"),
    "no weights": (lambda folder: (folder / WEIGHTS_FILE).unlink(), "has no adapter_model.safetensors"),
    "missing shard": (_missing_shard, "lacks the shard adapter_model-00001-of-00003.safetensors"),
    "index of nothing": (_index_of({}), "weight_map names no files"),
    "index of numbers": (_index_of({"a": 1}), "weight_map names no files"),
    "index without": (_index_of(None), "weight_map names no files"),
    "shard elsewhere": (_shard_elsewhere, "is no file beside it"),
    "unlisted tensor": (_unlisted_tensor, "don't agree on the tensor"),
    "both": (lambda folder: (folder / INDEX_FILE).write_text("{}"), "has both"),
    "pointer": (lambda folder: (folder / WEIGHTS_FILE).write_bytes(POINTER), "git-LFS pointer.*git lfs pull"),
    "empty": (lambda folder: (folder / WEIGHTS_FILE).write_bytes(b""), "is empty"),
    "zeros": (lambda folder: (folder / WEIGHTS_FILE).write_bytes(bytes(64)), "is damaged|holds no tensors"),
    "no tensors": (lambda folder: save_file({}, folder / WEIGHTS_FILE), "holds no tensors"),
    "folder for weights": (_in_place_of(WEIGHTS_FILE, Path.mkdir), "is a folder"),
    "folder for config": (_in_place_of(ADAPTER_CONFIG, Path.mkdir), "is a folder"),
    "pipe for weights": (_in_place_of(WEIGHTS_FILE, os.mkfifo), "is no file"),
    "link to nowhere": (
        _in_place_of(WEIGHTS_FILE, lambda path: path.symlink_to("gone")),
        "link to a file that is gone",
    ),
    "config to nowhere": (
        _in_place_of(ADAPTER_CONFIG, lambda path: path.symlink_to("gone")),
        "link to a file that is gone",
    ),
    "code": (_pickled({"a": _Code()}), "Python code or objects"),
    "a list": (_pickled([torch.ones(2)]), "something else than tensors"),
    "nested": (_pickled({"state_dict": {"a": torch.ones(2)}}), "something else than tensors"),
    "sparse": (_pickled({"a": torch.ones(2, 2).to_sparse()}), "sparse, quantized|damaged"),
    "no pickle": (
        _in_place_of(WEIGHTS_FILE, lambda path: path.with_name(PICKLE_FILE).write_bytes(b"PK\3\4nothing")),
        "damaged",
    ),
}


@pytest.mark.parametrize(("damage", "said"), DAMAGES.values(), ids=DAMAGES.keys())
def test_what_is_no_whole_adapter_is_refused_by_its_file(
    damage: Callable[[Path], object], said: str, folder: Path, tiny_base: Base
) -> None:
    damage(folder)
    with pytest.raises(InputError, match=said) as caught:
        take_in(folder, tiny_base)
    assert str(folder) in caught.value.problem
    assert not Path("/tmp/edgekit-intake-was-run").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [("nowhere", "is not there"), (ADAPTER_CONFIG, "settings alone.*name its folder"), ("README.md", "is no adapter")],
)
def test_a_path_to_something_else_is_refused(name: str, said: str, folder: Path, tiny_base: Base) -> None:
    (folder / "README.md").write_text("# an adapter")
    with pytest.raises(InputError, match=said):
        take_in(folder / name, tiny_base)


def test_a_link_to_an_adapter_that_is_gone_is_told(folder: Path, tiny_base: Base) -> None:
    (folder.parent / "link").symlink_to(folder.parent / "gone")
    with pytest.raises(InputError, match="link to something that is gone"):
        take_in(folder.parent / "link", tiny_base)


@pytest.mark.parametrize("kind", ["safetensors", "pickle"])
@given(data=st.data())
@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
def test_any_damage_to_the_bytes_is_refused_or_harmless(
    kind: str, data: st.DataObject, clean: Path, tiny_base: Base, tmp_path: Path
) -> None:
    """Cut short, a byte changed or bytes put in; what is taken all the same is whole and finite."""
    content = (clean / WEIGHTS_FILE).read_bytes()
    if kind == "pickle":
        stream = io.BytesIO()
        torch.save(load_file(clean / WEIGHTS_FILE), stream)
        content = stream.getvalue()
    at = data.draw(st.integers(0, len(content) - 1) | st.integers(0, 400))
    put = data.draw(st.binary(max_size=4))
    content = content[:at] if data.draw(st.booleans()) else content[:at] + put + content[at + 1 :]
    folder = tmp_path / "damaged"
    folder.mkdir(exist_ok=True)
    (folder / ADAPTER_CONFIG).write_bytes((clean / ADAPTER_CONFIG).read_bytes())
    (folder / (WEIGHTS_FILE if kind == "safetensors" else PICKLE_FILE)).write_bytes(content)
    _taken.cache_clear()
    try:
        taken = take_in(folder, tiny_base)
    except InputError:
        return
    assert taken.weights.keys() == take_in(clean, tiny_base).weights.keys()
    assert all(torch.isfinite(value).all() for value in taken.weights.values())


def test_other_weights_in_the_same_place_are_read_again(folder: Path, tiny_base: Base) -> None:
    before = take_in(folder, tiny_base)
    assert take_in(folder, tiny_base) is before
    weights = {name: value * 2 for name, value in load_file(folder / WEIGHTS_FILE).items()}
    save_file(weights, folder / WEIGHTS_FILE)
    after = take_in(folder, tiny_base)
    assert all(torch.equal(after.weights[name], 2 * value) for name, value in before.weights.items())


@pytest.mark.parametrize(
    "dtype", [torch.float4_e2m1fn_x2, torch.float8_e8m0fnu, torch.int8, torch.bool, torch.complex64]
)
def test_types_that_torch_only_carries_are_refused(folder: Path, tiny_base: Base, dtype: torch.dtype) -> None:
    weights = load_file(folder / WEIGHTS_FILE)
    save_file(
        {
            name: torch.zeros(value.shape, dtype=torch.uint8).view(dtype) if dtype.itemsize == 1 else value.to(dtype)
            for name, value in weights.items()
        },
        folder / WEIGHTS_FILE,
    )
    with pytest.raises(InputError, match="none of the floats that adapters are saved as"):
        take_in(folder, tiny_base)


@pytest.mark.parametrize(
    "make",
    [
        lambda value: value.to("meta"),
        lambda value: value.to_sparse(),
        lambda value: torch.zeros(1).expand(1 << 20, 1 << 20),
        lambda value: torch.empty_strided(value.shape, (0, 0)).zero_(),
    ],
)
def test_tensors_whose_numbers_are_not_in_the_file_are_refused(
    folder: Path, tiny_base: Base, make: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    weights = load_file(folder / WEIGHTS_FILE)
    (folder / WEIGHTS_FILE).unlink()
    torch.save({name: make(value) for name, value in weights.items()}, folder / PICKLE_FILE)
    with pytest.raises(InputError, match="without numbers of their own"):
        take_in(folder, tiny_base)


def test_a_packed_pickle_is_refused_before_it_fills_the_memory(folder: Path, tiny_base: Base) -> None:
    _pickle(folder)
    with zipfile.ZipFile(folder / PICKLE_FILE) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(folder / PICKLE_FILE, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(InputError, match="was compressed after it was saved"):
        take_in(folder, tiny_base)


@pytest.mark.parametrize("name", ["a" * 300, "a" * 5000, "a\0b", "..", ".", "\ud800"])
def test_an_index_may_name_what_no_file_can_be_called(folder: Path, tiny_base: Base, name: str) -> None:
    places = _shard(folder)
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": dict.fromkeys(places, name)}))
    with pytest.raises(InputError):
        take_in(folder, tiny_base)


def test_a_folder_with_weights_of_another_name_is_told_so(folder: Path, tiny_base: Base) -> None:
    (folder / WEIGHTS_FILE).rename(folder / "adapters.safetensors")
    with pytest.raises(InputError, match=r"has no adapter_model.safetensors: name adapters.safetensors in it"):
        take_in(folder, tiny_base)
    take_in(folder / "adapters.safetensors", tiny_base)
