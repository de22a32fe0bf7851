"""A base's folder may bring code and pickles: nothing of it runs, whoever reads the folder, and nobody is asked."""

from __future__ import annotations

import ast
import io
import json
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit.bases.resolve import resolve_base
from edgekit.cli import main
from edgekit_exporters.conversion.converters import convert
from edgekit_exporters.gguf.base import base_gguf
from edgekit_exporters.hf.codeless import asks_for_code, carries_code, without_code
from edgekit_exporters.peft.settings import checked_settings
from edgekit_runtime.errors import InputError

ROOMS = ("edgekit", "exporters", "devices", "runtime")
LOADERS = ("AutoConfig", "AutoTokenizer", "AutoModel", "AutoProcessor", "AutoImageProcessor", "AutoFeatureExtractor")
CODE = """
from pathlib import Path
Path({marker!r}).write_text("ran")
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class Config(LlamaConfig):
    model_type = {kind!r}
class Model(LlamaForCausalLM):
    config_class = Config
class Tokenizer(PreTrainedTokenizerFast):
    pass
"""


class _Pickled:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.marker), "w"))


def edit(path: Path, **changes: Any) -> None:
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, **changes}))


def hostile(base: Path, folder: Path, marker: Path, *, model_type: str = "llama", **tokenizer: Any) -> Path:
    """A copy of ``base`` with code in every place where something looks for it; all of it writes ``marker``."""
    shutil.copytree(base, folder)
    (folder / "theirs.py").write_text(CODE.format(marker=str(marker), kind=model_type))
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(CODE.format(marker=str(marker), kind=model_type))
    code = {"AutoConfig": "theirs.Config", "AutoModelForCausalLM": "theirs.Model"}
    edit(folder / "config.json", model_type=model_type, auto_map=code)
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["theirs.Tokenizer", None]}, **tokenizer)
    with (folder / "pytorch_model.bin").open("wb") as stream:
        pickle.dump(_Pickled(marker), stream)
    return folder


@pytest.fixture
def agreeing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who says yes to every question, as `yes | edgekit` does."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 1000))


@pytest.mark.usefixtures("agreeing")
def test_a_base_that_needs_its_code_is_refused_by_name(
    tiny_chat_base: Path,
    tmp_path: Path,
    tiny_project: Callable[..., Path],
    random_lora: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    marker = tmp_path / "marker"
    folder = hostile(tiny_chat_base, tmp_path / "theirs", marker, model_type="theirs")
    project = tiny_project()
    random_lora(project / "adapters" / "small")
    file = project / "edgekit.yaml"
    file.write_text(file.read_text().replace(str(tiny_chat_base), str(folder)))
    for command in (["train"], ["export"], ["plan", "--device", "raspberry-pi-5"]):
        capsys.readouterr()
        assert main([*command, "--project", str(project)]) == 3, command
        said = capsys.readouterr()
        assert "needs code of its own" in said.err
        assert "'theirs'" in said.err
        assert "[y/N]" not in said.out + said.err
    assert not marker.exists()


@pytest.mark.usefixtures("agreeing")
def test_a_base_that_transformers_knows_works_without_the_code_that_it_brings(
    tiny_chat_base: Path, tmp_path: Path, tiny_project: Callable[..., Path]
) -> None:
    marker = tmp_path / "marker"
    folder = hostile(tiny_chat_base, tmp_path / "theirs", marker)
    project = tiny_project()
    file = project / "edgekit.yaml"
    file.write_text(file.read_text().replace(str(tiny_chat_base), str(folder)))
    assert main(["train", "--project", str(project)]) == 0
    assert main(["export", "--project", str(project), "--accept-loss", "random weights"]) == 0
    assert not marker.exists()
    base = resolve_base(str(folder))
    assert not carries_code(base.folder)
    assert {path.suffix for path in base.folder.iterdir()} <= {".json", ".safetensors", ".jinja"}
    # The same float model, and so the same family but for its name.
    assert base.family.rpartition("-")[2] == resolve_base(str(tiny_chat_base)).family.rpartition("-")[2]


@pytest.mark.usefixtures("agreeing")
def test_a_tokenizer_of_an_unknown_class_is_read_from_its_tokens(tiny_chat_base: Path, tmp_path: Path) -> None:
    from edgekit.encoding.encoder import Encoder

    marker = tmp_path / "marker"
    folder = hostile(tiny_chat_base, tmp_path / "theirs", marker, tokenizer_class="TheirTokenizer")
    base = resolve_base(str(folder))
    ours, plain = Encoder(base.folder), Encoder(tiny_chat_base)
    assert ours.tokenizer("scratch of 3 mm").input_ids == plain.tokenizer("scratch of 3 mm").input_ids
    (folder / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"needs code of its own \(auto_map in tokenizer_config.json\)"):
        resolve_base(str(folder))
    assert not marker.exists()


def test_a_gguf_is_read_alone_whatever_lies_in_its_folder(tiny_chat_base: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    folder = hostile(tiny_chat_base, tmp_path / "theirs", marker)
    file = folder / "model.gguf"
    shutil.copy(base_gguf(resolve_base(str(tiny_chat_base)), "F16"), file)
    base = resolve_base(str(file))
    assert not carries_code(base.folder)
    assert not marker.exists()


def test_converters_get_no_folder_with_code(tiny_chat_base: Path, tmp_path: Path) -> None:
    folder = hostile(tiny_chat_base, tmp_path / "theirs", tmp_path / "marker")
    with pytest.raises(InputError, match="has code or pickles in it"):
        convert(folder, tmp_path / "x.gguf", "--vocab-only")
    assert not (tmp_path / "marker").exists()


def test_a_folder_of_data_is_used_where_it_is(tiny_chat_base: Path) -> None:
    assert without_code(tiny_chat_base, "tiny") == tiny_chat_base


@pytest.mark.parametrize(
    ("document", "asks"),
    [
        ({"auto_map": {}}, True),
        ({"text_config": {"auto_map": {"AutoConfig": "a.B"}}}, True),
        ({"parts": [{"auto_map": "a.B"}]}, True),
        (json.loads('{"auto\\u005fmap": 1}'), True),
        ({"model_type": "auto_map"}, False),
        ([], False),
        (None, False),
    ],
)
def test_code_is_seen_however_deep_it_is_asked_for(document: Any, asks: bool) -> None:
    assert asks_for_code(document) is asks


def test_another_model_that_a_folder_points_to_is_not_followed(tiny_chat_base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pointing"
    shutil.copytree(tiny_chat_base, folder)
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "somebody/else"}')
    assert not (resolve_base(str(folder)).folder / "adapter_config.json").exists()


def test_an_adapter_that_names_a_module_to_import_is_refused(tmp_path: Path) -> None:
    config = {"peft_type": "LORA", "megatron_config": {"a": 1}, "megatron_core": "antigravity"}
    with pytest.raises(InputError, match="(?i)megatron"):
        checked_settings(config, tmp_path / "adapter_config.json")


def _calls() -> list[tuple[str, ast.Call]]:
    root = Path(__file__).parents[3]
    files = [path for room in ROOMS for path in sorted((root / room).rglob("*.py"))]
    return [
        (f"{path.relative_to(root)}:{node.lineno}", node)
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]


def test_no_loader_is_left_to_decide_by_itself_whether_to_run_code() -> None:
    found = 0
    for place, call in _calls():
        assert isinstance(call.func, ast.Attribute)
        loader = ast.unparse(call.func.value).rpartition(".")[2]
        if call.func.attr not in ("from_pretrained", "from_config") or not loader.startswith(LOADERS):
            continue
        found += 1
        given = {each.arg: ast.unparse(each.value) for each in call.keywords}
        assert given.get("trust_remote_code") == "False", place
    assert found > 15
