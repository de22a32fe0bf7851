"""One model as Ollama would make it: what a Modelfile says, over what the model that it builds on brings."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from edgekit.importing.ollama import store
from edgekit.importing.ollama.modelfile import (
    ADAPTER,
    FROM,
    LICENSE,
    MESSAGE,
    PARAMETER,
    SYSTEM,
    TEMPLATE,
    Instruction,
    read_modelfile,
)
from edgekit.importing.ollama.settings import read_settings
from edgekit.importing.ollama.store import StoredModel, find_model, is_name
from edgekit_exporters.hf.plain_files import ADAPTER_CONFIG
from edgekit_runtime.errors import InputError, shown
from edgekit_runtime.formats.gguf import MAGIC, read_gguf
from edgekit_runtime.formats.manifest import name_from
from edgekit_runtime.formats.prompt_adapter import KEY_GENERAL_TYPE

MODELFILE = "modelfile"  # in any case, with anything before it or behind it: mario.Modelfile, Modelfile.mario
PROJECTORS = ("clip", "mmproj")  # general.architecture and general.type of files that read images
GENERAL_MODEL = "model"  # general.type of bases, where a file says any
WEIGHTS = "*.safetensors"
MODEL_CONFIG = "config.json"
Kind = TypeVar("Kind", dict[str, Any], list[Any])


@dataclass
class OllamaModel:
    """What a model is made of.

    Attributes:
        name: what it may be called.
        source: what FROM says.
        base: a GGUF file or a Hugging Face folder; None where FROM names a model that is not on this machine.
        projector: a GGUF that reads images for it.
        adapters: LoRA GGUFs, or what PEFT saves.
        parameters: values by name, as text; ``stop`` has several.
        template: Ollama's own, in Go's syntax.
        system: the system prompt.
        messages: roles and texts that stand before each conversation.
        licenses: texts.
        others: instructions that say nothing to a device.
    """

    name: str
    source: str = ""
    base: Path | None = None
    projector: Path | None = None
    adapters: list[Path] = field(default_factory=list)
    parameters: dict[str, list[str]] = field(default_factory=dict)
    template: str | None = None
    system: str | None = None
    messages: list[tuple[str, str]] = field(default_factory=list)
    licenses: list[str] = field(default_factory=list)
    others: list[Instruction] = field(default_factory=list)


def read_model(source: str, *, base_needed: bool = True) -> OllamaModel:
    """Find out what a model is made of.

    Args:
        source: a Modelfile, a folder with one, or the name of a model that Ollama has on this machine.
        base_needed: whether FROM has to be something that is on this machine.

    Raises:
        InputError: it is none of these, a Modelfile that can't be read, or files that are missing.
    """
    path = Path(source)
    if path.exists():
        return _from_file(_modelfile(path), base_needed)
    stored = find_model(source)
    if stored is None:
        raise InputError(
            f"there is no file {source}" + (", and no model of Ollama by that name" if is_name(source) else ""),
            "give a Modelfile, its folder, or the name of a model that `ollama list` lists",
        )
    model = OllamaModel(name_from(stored.name), source)
    _take_stored(model, stored)
    return model


def _modelfile(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = sorted(each for each in path.iterdir() if each.is_file() and MODELFILE in each.name.lower())
    if len(found) != 1:
        problem = f"{path} has {len(found) or 'no'} Modelfile{'s' if len(found) > 1 else ''}"
        raise InputError(problem, "give the file itself, or write one: FROM and ADAPTER with their paths are enough")
    return found[0]


def _from_file(path: Path, base_needed: bool) -> OllamaModel:
    instructions = read_modelfile(path)
    words = [word for word in path.name.split(".") if word.lower() not in (MODELFILE, "txt")]
    model = OllamaModel(name_from(".".join(words) or path.resolve().parent.name))
    for each in instructions:
        if each.name == FROM:
            _take_base(model, each, path, base_needed)
    own: dict[str, list[str]] = {}
    takers: dict[str, Callable[[Instruction], object]] = {
        FROM: lambda each: None,
        ADAPTER: lambda each: model.adapters.append(_adapter(each, path)),
        PARAMETER: lambda each: _take_parameter(own, each, path),
        TEMPLATE: lambda each: setattr(model, "template", each.value),
        SYSTEM: lambda each: setattr(model, "system", each.value),
        LICENSE: lambda each: model.licenses.append(each.value),
    }
    messages = [(each.key, each.value) for each in instructions if each.name == MESSAGE]
    model.messages = messages or model.messages
    for each in instructions:
        if each.name != MESSAGE:
            takers.get(each.name, model.others.append)(each)
    model.parameters |= own
    _take_system(model)
    return model


def _take_base(model: OllamaModel, instruction: Instruction, modelfile: Path, base_needed: bool) -> None:
    """FROM: a GGUF, a folder, or a model of Ollama; a second one may be what reads images."""
    given, place = instruction.value, _place(instruction.value, modelfile)
    where = f"{modelfile}:{instruction.line}"
    if place.is_file() and _is_projector(place):
        model.projector = place
    elif model.source:
        raise InputError(f"{where}: there is a second base", "a model has one FROM, and one for images at most")
    elif place.exists():
        model.source, model.base = given, _weights(place) if place.is_dir() else place
    else:
        model.source = given
        stored = find_model(given)
        if stored is not None:
            _take_stored(model, stored)
        elif base_needed:
            raise _no_base(given, where)


def _no_base(given: str, where: str) -> InputError:
    if is_name(given) and not given.endswith((".gguf", ".bin")):
        return InputError(
            f"{where}: {given} is a name in Ollama's library, and Ollama has no such model on this machine",
            f"`ollama pull {given}`, or write the path of a GGUF file or of a safetensors folder",
        )
    return InputError(f"{where}: there is no file {shown(given)}", "paths begin at the folder of the Modelfile")


def _weights(folder: Path) -> Path:
    """What a folder holds: the folder itself with safetensors in it, or the first file of a GGUF."""
    if next(folder.glob(WEIGHTS), None) is not None:
        return folder
    files = sorted(each for each in folder.glob("*.gguf") if each.is_file())
    bases = [each for each in files if not _is_projector(each) and "-of-" not in each.name] or files[:1]
    if len(bases) != 1:
        problem = f"{folder} has {len(bases) or 'neither safetensors nor'} GGUF files"
        raise InputError(problem, "name the GGUF file of the model in FROM")
    return bases[0]


def _take_stored(model: OllamaModel, stored: StoredModel) -> None:
    """What a model of Ollama's store brings."""
    bases, projectors = stored.files[store.MODEL], stored.files.get(store.PROJECTOR, [])
    if len(bases) > 1 or len(projectors) > 1:
        raise InputError(f"the model {stored.name} of Ollama is in several files", "name one GGUF file in FROM")
    model.base, model.projector = bases[0], next(iter(projectors), None)
    model.adapters += stored.files.get(store.ADAPTER, [])
    texts = stored.texts
    model.template = next(iter(texts.get(store.TEMPLATE, [])), None)
    model.system = next(iter(texts.get(store.SYSTEM, [])), None)
    model.licenses += texts.get(store.LICENSE, [])
    for text in texts.get(store.PARAMETERS, []):
        values = _json(text, dict, stored)
        model.parameters |= {name: _texts(value) for name, value in values.items()}
    for text in texts.get(store.MESSAGES, []):
        found = (each for each in _json(text, list, stored) if isinstance(each, dict))
        model.messages += [(str(each.get("role")), str(each.get("content"))) for each in found]
    _take_system(model)


def _take_system(model: OllamaModel) -> None:
    """A first message of the system is another way to write SYSTEM."""
    if model.messages and model.messages[0][0] == "system" and model.system in (None, model.messages[0][1]):
        model.system = model.messages.pop(0)[1]


def _json(text: str, kind: type[Kind], stored: StoredModel) -> Kind:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, kind):
        raise InputError(f"the model {stored.name} of Ollama is damaged", "`ollama pull` it again")
    return found


def _texts(value: object) -> list[str]:
    """A value of the store as a Modelfile has it."""
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    return [value if isinstance(value, str) else json.dumps(value)]


def _take_parameter(found: dict[str, list[str]], instruction: Instruction, modelfile: Path) -> None:
    """PARAMETER; each is checked by itself, so that an error has its line."""
    name = instruction.key.lower()
    read_settings({name: [instruction.value]}, f"{modelfile}:{instruction.line}")
    found.setdefault(name, []).append(instruction.value)


def _adapter(instruction: Instruction, modelfile: Path) -> Path:
    place, where = _place(instruction.value, modelfile), f"{modelfile}:{instruction.line}"
    if not place.exists():
        problem = f"{where}: there is no adapter {shown(instruction.value)}"
        raise InputError(problem, "paths begin at the folder of the Modelfile")
    if _is_whole_model(place):
        raise InputError(
            f"{where}: {shown(instruction.value)} is a whole model, and an ADAPTER is a LoRA",
            "name the model in FROM, or give the adapter that was merged into it",
        )
    return place


def _is_whole_model(path: Path) -> bool:
    """Whether a file or folder is a model by itself, as far as its settings or its header say so."""
    if path.is_dir() or path.suffix == Path(WEIGHTS).suffix:
        folder = path if path.is_dir() else path.parent
        adapters = [folder / ADAPTER_CONFIG, *(path.glob(f"*/{ADAPTER_CONFIG}") if path.is_dir() else ())]
        return (folder / MODEL_CONFIG).exists() and not any(each.exists() for each in adapters)
    if not _is_gguf(path):
        return False
    metadata = read_gguf(path).metadata
    kind = metadata.get(KEY_GENERAL_TYPE, GENERAL_MODEL)
    return kind == GENERAL_MODEL and f"{metadata.get('general.architecture')}.block_count" in metadata


def _place(text: str, modelfile: Path) -> Path:
    try:
        place = modelfile.parent / Path(text).expanduser()
        place.exists()
    except (OSError, RuntimeError) as error:  # far too long, or a home of nobody
        raise InputError(f"{modelfile}: {shown(text)} is no path ({error})", "correct it") from None
    return place


def _is_projector(path: Path) -> bool:
    if not _is_gguf(path):
        return False
    metadata = read_gguf(path).metadata
    return any(metadata.get(key) in PROJECTORS for key in ("general.architecture", KEY_GENERAL_TYPE))


def _is_gguf(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC
