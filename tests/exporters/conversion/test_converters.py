"""The converters come once, are kept with their checksums, and damage is noticed."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from edgekit_exporters.conversion import converters as llama_tools
from edgekit_exporters.conversion.converters import engine_version, tools_folder
from edgekit_runtime.errors import InputError, TargetError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path))
    monkeypatch.setattr(llama_tools, "KNOWN_SDISTS", {})
    return tmp_path / "llama.cpp"


def put_sdist(
    cache: Path, names: tuple[str, ...] = ("convert_lora_to_gguf.py", "conversion/llama.py", "other.py")
) -> Path:
    """A source distribution in miniature, where the download would have put it."""
    root = f"llama_cpp_python-{engine_version()}"
    archive = cache / f"{root}.tar.gz"
    cache.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:gz") as tar:
        for name in names:
            member = tarfile.TarInfo(f"{root}/vendor/llama.cpp/{name}")
            member.size = len(name)
            tar.addfile(member, io.BytesIO(name.encode()))
    return archive


def test_only_the_converters_are_unpacked_and_a_second_call_needs_no_archive(cache: Path) -> None:
    archive = put_sdist(cache)
    folder = tools_folder()
    assert (folder / "conversion/llama.py").read_text() == "conversion/llama.py"
    assert not (folder / "other.py").exists()
    archive.unlink()
    assert tools_folder() == folder


def test_a_damaged_converter_is_noticed(cache: Path) -> None:
    put_sdist(cache)
    (tools_folder() / "convert_lora_to_gguf.py").write_text("changed")
    with pytest.raises(InputError, match="is damaged: delete"):
        tools_folder()


def test_an_archive_with_another_checksum_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_sdist(cache)
    monkeypatch.setattr(llama_tools, "KNOWN_SDISTS", {engine_version(): "0" * 64})
    with pytest.raises(InputError, match="delete it"):
        tools_folder()
    assert not (cache / engine_version()).exists()


def test_without_network_the_error_says_where_to_put_the_file(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 1, "", "ERROR: no connection")

    monkeypatch.setattr(llama_tools.subprocess, "run", offline)
    with pytest.raises(TargetError, match=r"no connection.*put its source distribution at .*tar\.gz"):
        tools_folder()


@pytest.mark.parametrize(
    ("files", "last", "told"),
    [
        # The converter says the same of a folder without tokenizer as of a tokenizer that it does not know.
        (
            ["config.json", "tokenizer_config.json"],
            "NotImplementedError: BPE pre-tokenizer was not recognized - update get_vocab_base_pre()",
            r"base has no tokenizer: put its files beside config.json",
        ),
        (
            ["config.json", "tokenizer.json"],
            "NotImplementedError: BPE pre-tokenizer was not recognized - update get_vocab_base_pre()",
            r"^llama.cpp does not know the pre-tokenizer of .*base: restore the tokenizer files",
        ),
        (
            ["config.json", "tokenizer.json"],
            "ValueError: Can not map tensor 'model.layers.0.self_attn.k_norm.weight'",
            r"base: Can not map tensor 'model.*': check that config.json and the weights are of one model",
        ),
        (
            ["config.json", "spiece.model"],
            "ERROR:hf-to-gguf:Model BlenderbotForCausalLM is not supported",
            r"base: Model BlenderbotForCausalLM is not supported: check that the architecture",
        ),
    ],
)
def test_what_the_converter_refuses_is_told_with_what_to_mend(
    tmp_path: Path, files: list[str], last: str, told: str
) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for name in files:
        (base / name).touch()
    stderr = f'Traceback (most recent call last):\n  File "conversion/base.py", line 1953, in convert\n{last}\n'
    refusal = llama_tools._refusal("convert", base, stderr)
    assert re.search(told, str(refusal))
    assert "Traceback" not in str(refusal)
    assert "base.py" not in str(refusal)
