"""What a model of Ollama is made of: files beside the Modelfile, models of its store, and what is missing."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.importing.ollama.model import read_model
from edgekit.importing.ollama.settings import read_settings
from edgekit.importing.ollama.store import KIND, find_model
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.manifest import NAME_PATTERN, name_from
from edgekit_runtime.formats.sampling_defaults import check_generation
from edgekit_runtime.server.ollama.tables import OPTIONS
from tests.tiny_gguf import matrices, write_base, write_lora


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A base and an adapter."""
    write_base(tmp_path / "base.gguf")
    write_lora(tmp_path / "lora.gguf", matrices())
    return tmp_path


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "models"))
    return Store(tmp_path / "models")


class Store:
    """A folder as Ollama keeps models in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "blobs").mkdir(parents=True)

    def add(self, name: str, **layers: bytes) -> Path:
        """A model of these layers, by their kind; its manifest."""
        entries = []
        for kind, content in layers.items():
            digest = hashlib.sha256(content).hexdigest()
            (self.folder / "blobs" / f"sha256-{digest}").write_bytes(content)
            entries.append({"mediaType": f"{KIND}{kind}", "digest": f"sha256:{digest}", "size": len(content)})
        path = self.folder / "manifests" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"schemaVersion": 2, "layers": entries}))
        return path


def written(folder: Path, text: str, name: str = "Modelfile") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_paths_begin_at_the_modelfile(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = written(folder, "FROM ./base.gguf\nADAPTER lora.gguf\nadapter lora.gguf\nSYSTEM Hi.\nLICENSE a\nLICENSE b")
    monkeypatch.chdir("/")
    for source in (path, folder):
        model = read_model(str(source))
        assert model.base is not None
        assert model.base.samefile(folder / "base.gguf")
        assert [each.name for each in model.adapters] == ["lora.gguf"] * 2
        assert (model.system, model.licenses) == ("Hi.", ["a", "b"])
    monkeypatch.setenv("HOME", str(folder))
    home = read_model(str(written(folder, "FROM ~/base.gguf"))).base
    assert home == folder / "base.gguf"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Modelfile", "mario-1"), ("Modelfile.luigi", "luigi"), ("Luigi.Modelfile", "luigi"), ("x y.modelfile", "x-y")],
)
def test_a_model_is_called_as_its_file_or_folder(folder: Path, name: str, expected: str) -> None:
    inner = folder / "Mario 1"
    inner.mkdir()
    assert read_model(str(written(inner, "FROM ../base.gguf", name))).name == expected


def test_a_folder_may_be_the_base(folder: Path) -> None:
    (folder / "hf").mkdir()
    (folder / "hf" / "model.safetensors").write_bytes(b"")
    assert read_model(str(written(folder, "FROM ./hf"))).base == folder / "hf"
    (folder / "gg").mkdir()
    with pytest.raises(InputError, match="neither safetensors nor GGUF"):
        read_model(str(written(folder, "FROM ./gg")))
    write_base(folder / "gg" / "model.gguf")
    assert read_model(str(written(folder, "FROM gg"))).base == folder / "gg" / "model.gguf"
    write_base(folder / "gg" / "other.gguf")
    with pytest.raises(InputError, match="has 2 GGUF files"):
        read_model(str(written(folder, "FROM gg")))


def test_a_name_is_a_model_of_the_store(folder: Path, store: Store) -> None:
    base, lora = (folder / "base.gguf").read_bytes(), (folder / "lora.gguf").read_bytes()
    store.add("registry.ollama.ai/library/tiny/latest", model=base, template=b"{{ .Prompt }}", system=b"Old.")
    params = json.dumps({"stop": ["<a>", "<b>"], "temperature": 0.5, "num_ctx": 64}).encode()
    messages = json.dumps([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]).encode()
    layers = {"model": base, "adapter": lora, "params": params, "messages": messages, "license": b"free"}
    store.add("registry.ollama.ai/me/tiny/7b", **layers)
    plain = read_model("tiny")
    assert (plain.name, plain.template, plain.system) == ("tiny", "{{ .Prompt }}", "Old.")
    assert plain.base is not None
    assert plain.base.read_bytes() == base
    own = read_model("me/tiny:7b")
    assert (own.name, len(own.adapters), own.licenses) == ("tiny-7b", 1, ["free"])
    assert own.parameters == {"stop": ["<a>", "<b>"], "temperature": ["0.5"], "num_ctx": ["64"]}
    assert own.messages == [("user", "q"), ("assistant", "a")]
    over = read_model(
        str(written(folder, "FROM me/tiny:7b\nADAPTER lora.gguf\nPARAMETER stop <c>\nSYSTEM New.\nMESSAGE user z"))
    )
    assert (over.system, len(over.adapters), over.messages) == ("New.", 2, [("user", "z")])
    assert over.parameters == {"stop": ["<c>"], "temperature": ["0.5"], "num_ctx": ["64"]}
    assert find_model("nobody") is None
    assert find_model("../tiny") is None


def test_a_damaged_store_is_told(folder: Path, store: Store) -> None:
    manifest = store.add("registry.ollama.ai/library/tiny/latest", model=b"GGUF")
    for content, said in (
        ("{", "not JSON"),
        ("[]", "no JSON object"),
        ('{"layers": []}', "no weights"),
        ('{"layers": [7]}', "no type or digest"),
        (json.dumps({"layers": [{"mediaType": f"{KIND}model", "digest": "sha256:../x"}]}), "no type or digest"),
        (json.dumps({"layers": [{"mediaType": f"{KIND}model", "digest": f"sha256:{'0' * 64}"}]}), "is missing"),
    ):
        manifest.write_text(content)
        with pytest.raises(InputError, match=said):
            read_model("tiny")


def test_a_first_message_of_the_system_is_the_system_prompt(folder: Path) -> None:
    model = read_model(str(written(folder, "FROM base.gguf\nMESSAGE system Be kind.\nMESSAGE user hi")))
    assert (model.system, model.messages) == ("Be kind.", [("user", "hi")])
    both = read_model(str(written(folder, "FROM base.gguf\nSYSTEM A\nMESSAGE system B")))
    assert (both.system, both.messages) == ("A", [("system", "B")])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("FROM llama3.2", "Modelfile:1: llama3.2 is a name in Ollama's library.*ollama pull llama3.2"),
        ("FROM ./nowhere.gguf", "there is no file"),
        ("FROM base.gguf\nFROM base.gguf", "Modelfile:2: there is a second base"),
        ("FROM base.gguf\nADAPTER ./nowhere", "Modelfile:2: there is no adapter"),
        ("FROM base.gguf\nADAPTER ./base.gguf", "Modelfile:2: './base.gguf' is a whole model.*name the model in FROM"),
        ("FROM base.gguf\n\nADAPTER whole", "Modelfile:3: 'whole' is a whole model"),
        ("FROM base.gguf\nADAPTER whole/model.safetensors", "Modelfile:2: .* is a whole model"),
        ("FROM base.gguf\nPARAMETER temprature 1", "Modelfile:2: there is no PARAMETER 'temprature': did you mean"),
        ("FROM base.gguf\nPARAMETER top_k x\nPARAMETER top_k 1", "Modelfile:2: PARAMETER top_k is 'x', and has to be"),
        ("# of mine\nFROM base.gguf\nPARAMETER top_p 2", "Modelfile:3: PARAMETER top_p .* a number from 0 to 1"),
        ("FROM base.gguf\nADAPTER " + "x" * 5000, "Modelfile.* is no path|there is no adapter"),
        ("FROM ~nobody-of-that-name/x", "is no path"),
    ],
)
def test_what_is_missing_is_named(folder: Path, store: Store, text: str, said: str) -> None:
    (folder / "whole").mkdir()
    for each in ("config.json", "model.safetensors"):
        (folder / "whole" / each).write_text("{}")
    with pytest.raises(InputError, match=said):
        read_model(str(written(folder, text)))


def test_an_adapter_beside_settings_of_a_model_is_one(folder: Path) -> None:
    for name in ("adapter_config.json", "checkpoint-3/adapter_config.json"):
        place = folder / name[:4]
        (place / name).parent.mkdir(parents=True)
        for each in (name, "config.json"):
            (place / each).write_text("{}")
        assert read_model(str(written(folder, f"FROM base.gguf\nADAPTER {place.name}"))).adapters == [place]


def test_a_source_that_is_none_is_told(folder: Path, store: Store) -> None:
    with pytest.raises(InputError, match="no model of Ollama by that name"):
        read_model("nobody")
    with pytest.raises(InputError, match="has no Modelfile"):
        read_model(str(folder))
    written(folder, "FROM base.gguf")
    written(folder, "FROM base.gguf", "a.Modelfile")
    with pytest.raises(InputError, match="has 2 Modelfiles"):
        read_model(str(folder))
    without = read_model(str(written(folder, "FROM llama3.2\nADAPTER lora.gguf", "b")), base_needed=False)
    assert (without.base, without.source) == (None, "llama3.2")


# Parameters.


def test_parameters_become_defaults_or_are_named() -> None:
    found = read_settings(
        {
            **{"temperature": ["0.3", "0.7"], "top_k": ["40"], "top_p": ["1"], "num_predict": ["12"]},
            **{"stop": ["a", "", "b"], "num_ctx": ["4096"], "seed": ["42"], "mirostat": ["0"], "typical_p": ["0.7"]},
            **{"num_gpu": ["99"], "penalize_newline": ["True"]},
        },
        "Modelfile",
    )
    assert found.generation == {"temperature": 0.7, "top_k": 40, "top_p": 1.0, "max_tokens": 12}
    assert found.stops == ["a", "b"]
    assert [each.split()[1] for each in found.left_out] == ["num_ctx", "seed", "typical_p", "num_gpu"]
    assert "--context 4096" in found.left_out[0]
    endless = read_settings({"num_predict": ["-1"]}, "Modelfile")
    assert endless.generation is None
    assert "max_tokens: -1" in endless.left_out[0]


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"temprature": ["1"]}, "no PARAMETER 'temprature': did you mean temperature"),
        ({"temperature": ["hot"]}, "temperature is 'hot', and has to be a number"),
        ({"temperature": ["nan"]}, "temperature"),
        ({"top_k": ["1.5"]}, "top_k is '1.5', and has to be a whole number"),
        ({"top_p": ["2"]}, "top_p"),
        ({"num_predict": ["0"]}, "max_tokens"),
    ],
)
def test_wrong_parameters_are_refused(parameters: dict[str, list[str]], said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_settings(parameters, "Modelfile")


VALUES = st.lists(st.text(max_size=8) | st.floats().map(str), min_size=1)


@given(st.dictionaries(st.sampled_from(list(OPTIONS)), VALUES))
def test_any_value_is_taken_named_or_refused(parameters: dict[str, list[str]]) -> None:
    refused, found = "", None
    try:
        found = read_settings(parameters, "Modelfile")
    except InputError as error:
        refused = str(error)
    assert "\n" not in refused
    if found is not None:
        check_generation(found.generation, "it")


@given(st.text())
def test_a_name_is_made_of_any_text_or_of_none(text: str) -> None:
    found = name_from(text)
    assert found == "" or re.fullmatch(NAME_PATTERN, found)
    assert name_from(found) == found
