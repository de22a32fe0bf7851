"""Adapters as tools leave them on a disk: a PEFT folder, a trainer's output, shards, one file; found and read.

Nothing here knows the base.  What is read is only what is there: names and values are checked by
:mod:`~edgekit_exporters.peft.intake`.
"""

from __future__ import annotations

import functools
import logging
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from edgekit_exporters.hf.plain_files import ADAPTER_CONFIG, check_plain_file, read_json
from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.gguf import MAGIC

log = logging.getLogger(__name__)

MODEL_CONFIG_FILE = "config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
INDEX_FILE = f"{WEIGHTS_FILE}.index.json"
PICKLE_FILE = "adapter_model.bin"
WEIGHTS_FILES = (WEIGHTS_FILE, INDEX_FILE, PICKLE_FILE)  # in the order that PEFT prefers
INDEX_SUFFIX = ".safetensors.index.json"
PICKLE_SUFFIXES = (".bin", ".pt", ".pth")
CHECKPOINT = re.compile(r"checkpoint-(\d+)")
KINDS = "a PEFT folder, a trainer's output folder, a .safetensors or .bin file, or a LoRA GGUF"


@dataclass(frozen=True)
class AdapterFiles:
    """An adapter as it is on the disk.

    Attributes:
        path: what the user named.
        weights_file: where its tensors are.
        config_file: its adapter_config.json; None for a LoRA GGUF, which holds its settings itself.
    """

    path: Path
    weights_file: Path
    config_file: Path | None

    @property
    def folder(self) -> Path:
        """Where its files lie."""
        return self.weights_file.parent

    @property
    def is_gguf(self) -> bool:
        """Whether llama.cpp's converter wrote it, for Ollama's ADAPTER say."""
        return self.config_file is None

    def config(self) -> dict[str, Any]:
        """What adapter_config.json says, unchecked; empty for a GGUF.

        Raises:
            InputError: it can't be read, or is no JSON object.
        """
        return {} if self.config_file is None else read_json(self.config_file)

    def tensor_files(self) -> list[Path]:
        """The files that hold its tensors, sorted: one, or all shards that an index names.

        Raises:
            InputError: an index that can't be read.
        """
        if not self.weights_file.name.endswith(INDEX_SUFFIX):
            return [self.weights_file]
        return [self.folder / name for name in sorted(set(_shard_names(self.weights_file).values()))]

    def weights(self) -> dict[str, torch.Tensor]:
        """The tensors by their names in the file; none for a GGUF, whose names depend on the base.

        Raises:
            InputError: a damaged or incomplete file, or one that holds more than tensors.
        """
        if self.is_gguf:
            return {}
        if self.weights_file.name.endswith(INDEX_SUFFIX):
            return _read_shards(self.weights_file)
        if self.weights_file.suffix in PICKLE_SUFFIXES:
            return _read_pickle(self.weights_file)
        return _read_safetensors(self.weights_file)


def find_adapter(path: Path) -> AdapterFiles:
    """Find the files of the adapter that ``path`` names.

    Args:
        path: a folder with adapter_config.json and weights; a folder with checkpoint-N in it, of which the newest whole
            one is taken; a weights file with adapter_config.json beside it; or a LoRA GGUF.

    Raises:
        InputError: none there, or more than one that could be meant.
    """
    if path.is_symlink() and not path.exists():
        raise InputError(f"{path} is a link to something that is gone", "correct the link, or name the adapter itself")
    try:
        if path.is_dir():
            return _in_folder(path)
        check_plain_file(path)
        with path.open("rb") as stream:
            if stream.read(len(MAGIC)) == MAGIC:
                return AdapterFiles(path, path, None)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} can't be read ({_reason(error)})", "check the path and who may read it") from None
    if path.suffix in (".safetensors", *PICKLE_SUFFIXES) or path.name.endswith(INDEX_SUFFIX):
        return AdapterFiles(path, path, _config_beside(path))
    if path.name == ADAPTER_CONFIG:
        raise InputError(f"{path} is the adapter's settings alone", f"name its folder, {path.parent}")
    raise InputError(f"{path} is no adapter", f"name {KINDS}")


def _config_beside(path: Path) -> Path:
    config = path.with_name(ADAPTER_CONFIG)
    if not (config.exists() or config.is_symlink()):
        raise InputError(f"{path} has no {ADAPTER_CONFIG} beside it", f"put the {ADAPTER_CONFIG} of its training there")
    return config


def _in_folder(path: Path) -> AdapterFiles:
    if _is_there(path / ADAPTER_CONFIG):
        return AdapterFiles(path, _weights_in(path), path / ADAPTER_CONFIG)
    found = [each for name in WEIGHTS_FILES if _is_there(each := path / name)]
    if found:
        _config_beside(found[0])
    checkpoints = _checkpoints(path)
    if checkpoints:
        return _newest_whole(path, checkpoints)
    named = [each for each in sorted(path.iterdir()) if each.is_dir() and _is_there(each / ADAPTER_CONFIG)]
    if len(named) == 1:  # PEFT puts an adapter that isn't called "default" into a folder of its name
        tell_once(f"taking {named[0].name}, the only adapter in {path}")
        return AdapterFiles(path, _weights_in(named[0]), named[0] / ADAPTER_CONFIG)
    if named:
        raise InputError(
            f"{path} holds several adapters ({', '.join(each.name for each in named)})", "name the folder of one"
        )
    if (path / MODEL_CONFIG_FILE).exists():
        raise InputError(f"{path} is a whole model, no adapter: it has no {ADAPTER_CONFIG}", "name it as base: instead")
    raise InputError(
        f"{path} is not a PEFT adapter: it has no {ADAPTER_CONFIG}",
        "run `edgekit train` first, or name the folder that PEFT's save_pretrained wrote",
    )


def _weights_in(folder: Path) -> Path:
    found = [name for name in WEIGHTS_FILES if _is_there(folder / name)]
    if WEIGHTS_FILE in found and INDEX_FILE in found:
        raise InputError(
            f"{folder} has both {WEIGHTS_FILE} and {INDEX_FILE}, and they may differ", "remove the one that is older"
        )
    if found:
        return folder / found[0]
    checkpoints = [each.name for each in _checkpoints(folder) if _is_whole(each)]
    others = sorted(each.name for each in folder.glob("*.safetensors"))
    hint = "save the adapter again"
    if checkpoints:
        hint = f"name one of its checkpoints, {checkpoints[0]} say"
    elif len(others) == 1:
        hint = f"name {others[0]} in it as path, if that is the adapter"
    raise InputError(f"{folder} has no {WEIGHTS_FILE}", hint)


def _checkpoints(folder: Path) -> list[Path]:
    """Its checkpoint-N, the largest N first."""
    steps = [
        (int(match[1]), each)
        for each in folder.iterdir()
        if (match := CHECKPOINT.fullmatch(each.name)) and each.is_dir()
    ]
    return [each for _, each in sorted(steps, reverse=True)]


def _newest_whole(path: Path, checkpoints: list[Path]) -> AdapterFiles:
    whole = next((each for each in checkpoints if _is_whole(each)), None)
    if whole is None:
        raise InputError(
            f"none of the checkpoints in {path} is a whole adapter (the newest is {checkpoints[0].name})",
            "save the adapter again with PEFT's save_pretrained",
        )
    skipped = checkpoints[: checkpoints.index(whole)]
    broken = f"; {', '.join(each.name for each in skipped)} is not whole" if skipped else ""
    tell_once(f"taking {whole.name}, the newest whole checkpoint of {path}{broken}")
    return AdapterFiles(path, _weights_in(whole), whole / ADAPTER_CONFIG)


def _is_whole(folder: Path) -> bool:
    """Whether settings and tensors of a checkpoint can be read."""
    if not _is_there(folder / ADAPTER_CONFIG):
        return False
    try:
        files = AdapterFiles(folder, _weights_in(folder), folder / ADAPTER_CONFIG)
        files.config()
        return bool(files.weights())
    except InputError:
        return False


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()  # a dangling link is told as such when it is read


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    check_plain_file(path)
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{path} is damaged ({_reason(error)})", "copy or write the adapter again") from None


def _shard_names(index: Path) -> dict[str, str]:
    """Tensor -> file, as an index has it."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(each, str) for each in places.values()):
        raise InputError(f"{index}: weight_map names no files for tensors", "save the adapter again")
    return places


def _read_shards(index: Path) -> dict[str, torch.Tensor]:
    """All tensors that an index names, from the files that it names for them."""
    places = _shard_names(index)
    tensors: dict[str, torch.Tensor] = {}
    for name in sorted(set(places.values())):
        shard = index.with_name(name) if name and Path(name).name == name else None
        if shard is None:
            raise InputError(f"{index} names {name!r}, which is no file beside it", "save the adapter again")
        if not os.path.lexists(shard):  # which also takes names that no system has
            raise InputError(f"{index.parent} lacks the shard {name}", "copy all files of the adapter")
        read = _read_safetensors(shard)
        listed = {key for key, place in places.items() if place == name}
        if read.keys() != listed:
            other = min(read.keys() ^ listed)
            raise InputError(
                f"{shard} and {index.name} don't agree on the tensor {other}", "copy all files of one and the same save"
            )
        tensors |= read
    return tensors


def _read_pickle(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a torch file; Python code in it is refused, not run."""
    check_plain_file(path)
    _refuse_packed(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" not in str(error) and "Unsupported" not in str(error):
            raise InputError(f"{path} is damaged ({_reason(error)})", "copy or write the adapter again") from None
        raise InputError(
            f"{path} holds Python code or objects besides tensors, which edgekit never runs",
            "save the adapter with safetensors, PEFT's save_pretrained does",
        ) from None
    except Exception as error:  # torch and its unpickler raise of all kinds for damaged files
        raise InputError(f"{path} is damaged ({_reason(error)})", "copy or write the adapter again") from None
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items()
    ):
        raise InputError(
            f"{path} holds something else than tensors by name", "save the adapter with PEFT's save_pretrained"
        )
    if not all(map(_is_plain, content.values())):
        raise InputError(
            f"{path} holds tensors without numbers of their own (sparse, quantized, expanded, or on the meta device)",
            "save the adapter as plain floats",
        )
    return {name: value.detach() for name, value in content.items()}


def _is_plain(value: torch.Tensor) -> bool:
    """Whether each element is a number that stands in the file; others may be of any size, or be none."""
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def _refuse_packed(path: Path) -> None:
    """Tensors are stored as they are by torch; a packed file may come to any size in memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            packed = any(each.compress_type != zipfile.ZIP_STORED for each in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # an older form, or damaged: torch tells
    if packed:
        raise InputError(f"{path} was compressed after it was saved", "copy the file as torch wrote it")


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())[:200]


@functools.cache
def tell_once(message: str) -> None:
    """Log ``message`` as information, however often an adapter is taken in during one command."""
    log.info("%s", message)


def stamp(files: AdapterFiles) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of each file of an adapter: the same stamp, the same adapter."""
    for each in sorted(files.folder.glob("*")) if not files.is_gguf else [files.weights_file]:
        if each.is_file():
            status = each.stat()
            yield each.name, status.st_size, status.st_mtime_ns
