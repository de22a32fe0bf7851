"""A model in several GGUF files is found by any of them, and becomes one file that holds the same."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import gguf
import pytest

from edgekit.bases.resolve import check_base, resolve_base
from edgekit_exporters.gguf.base import base_gguf
from edgekit_exporters.gguf.metadata import rewrite_metadata
from edgekit_exporters.gguf.split import joined, joined_header, parts_of
from edgekit_runtime.engines.llama.engine import LlamaEngine
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.gguf import read_gguf


@pytest.fixture(scope="module")
def whole(tiny_chat_base: Path) -> Path:
    return base_gguf(resolve_base(str(tiny_chat_base)), "F16")


@pytest.fixture(scope="module")
def split(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same in several files, as gguf-py splits a model.  Tests must not change them."""
    folder = tmp_path_factory.mktemp("split")
    reader = gguf.GGUFReader(whole)
    architecture = str(read_gguf(whole).metadata["general.architecture"])
    writer = gguf.GGUFWriter(folder / "tiny.gguf", architecture, split_max_tensors=7)
    for field in reader.fields.values():
        if field.name != "general.architecture" and not field.name.startswith("GGUF."):
            several = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], several)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    parts = sorted(folder.iterdir())
    assert [path.name for path in parts] == [f"tiny-{number:05}-of-00003.gguf" for number in (1, 2, 3)]
    return parts


@pytest.fixture
def copied(split: list[Path], tmp_path: Path) -> list[Path]:
    return [Path(shutil.copy(part, tmp_path)) for part in split]


def _tensors(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {
        name: (info.shape, info.type_name, content[info.offset : info.offset + info.size])
        for name, info in read_gguf(path).tensors.items()
    }


def test_any_file_leads_to_all_of_them_and_one_that_holds_the_same(split: list[Path], whole: Path) -> None:
    made = {joined(part) for part in split}
    assert len(made) == 1
    (one,) = made
    assert one.name == "tiny.gguf"
    assert _tensors(one) == _tensors(whole)
    assert read_gguf(one).metadata == read_gguf(whole).metadata
    assert joined_header(split[1]).tensors.keys() == read_gguf(whole).tensors.keys()


def test_llama_cpp_computes_the_same_with_it(split: list[Path], whole: Path) -> None:
    rows = []
    for path in (joined(split[0]), whole):
        engine = LlamaEngine(path, context=32, threads=1)
        from edgekit_runtime.engines.base import Part

        engine.decode([Part(0, 0, [5, 6, 7])])
        rows.append(engine.row(0).copy())
        engine.close()
    assert abs(rows[0]).max() > 0
    assert (rows[0] == rows[1]).all()


def test_a_file_of_them_is_a_base(split: list[Path], whole: Path) -> None:
    for part in split:
        check_base(str(part))
    base = resolve_base(str(split[2]))
    assert base.gguf == joined(split[0])
    assert base.family == read_gguf(whole).metadata["edgekit.family"]
    assert (base.folder / "config.json").is_file()


def test_files_that_are_missing_are_named(copied: list[Path]) -> None:
    copied[0].unlink()
    copied[2].unlink()
    with pytest.raises(InputError, match=r"tiny-00001-of-00003\.gguf, tiny-00003-of-00003\.gguf is missing beside it"):
        check_base(str(copied[1]))


def test_a_name_that_leads_nowhere_is_told(copied: list[Path]) -> None:
    renamed = copied[0].rename(copied[0].with_name("model.gguf"))
    with pytest.raises(InputError, match="its name doesn't tell the others"):
        parts_of(renamed)


@pytest.mark.parametrize("swapped", ["another number", "another model"])
def test_files_of_different_models_are_not_joined(swapped: str, copied: list[Path], whole: Path) -> None:
    if swapped == "another number":
        shutil.copy(copied[2], copied[1])
    else:
        rewrite_metadata(whole, copied[1], {"split.no": 1, "split.count": 3})
    with pytest.raises(InputError, match="doesn't belong to the files beside it"):
        joined(copied[0])


def test_a_whole_file_is_itself_whatever_its_name_says(whole: Path, tmp_path: Path) -> None:
    named = Path(shutil.copy(whole, tmp_path / "tiny-00001-of-00003.gguf"))
    assert joined(named) == named
