"""How a data set lies in a folder: configurations and splits, as the hub's own library reads them.

Its README may name them (``configs:`` in the YAML in front); where it doesn't, names of files and folders tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgekit.data.source import PACKED, SUFFIXES, DataSource
from edgekit_runtime.errors import InputError

README = "README.md"
TRAIN, VALIDATION, TEST = "train", "validation", "test"
_WORDS = {
    TRAIN: ("train", "training"),
    VALIDATION: ("validation", "valid", "val", "dev"),
    TEST: ("test", "testing", "eval", "evaluation"),
}
# What rows of each part come from when no split is named: the first of these that there is.
_USUAL = {"train": (TRAIN,), "eval": tuple(word for split in (VALIDATION, TEST) for word in _WORDS[split])}
_SHARD = re.compile(r"(?:.*/)?([^/]+)-\d{5}-of-\d{5}(?:-[0-9a-f]+)?\.[^/]+")
_Splits = Mapping[str, Sequence[str]]


def choose_files(names: Iterable[str], readme: str, source: DataSource) -> list[str]:
    """The files that hold the rows of ``source``, sorted.

    Args:
        names: all files of the data set, as paths with ``/``.
        readme: its README.
        source: which configuration, split or files are meant.

    Raises:
        InputError: it has no such files, or it isn't certain which are meant.
    """
    if "dataset_info.json" in names or "dataset_dict.json" in names:
        raise InputError(f"{source} was written by save_to_disk", "write it with to_parquet or to_json instead")
    readable = sorted(name for name in names if _is_readable(name))
    if source.files is not None:
        return _matching(readable, source.files) or _refuse_pattern(source, readable)
    if not readable:
        raise InputError(f"{source} has no data files", f"edgekit reads {', '.join(SUFFIXES)}")
    splits = _splits(readable, _configs(readme, source), source)
    if source.split is not None and source.split in splits:
        return list(splits[source.split])
    if source.split is None:
        found = next((split for split in _USUAL[source.part] if split in splits), None)
        if found is not None:
            return list(splits[found])
    asked = f"split {source.split!r}" if source.split is not None else f"usual split for {source.part}"
    raise InputError(f"{source} has no {asked}", f"name one with split: ({', '.join(splits)})")


def _is_readable(name: str) -> bool:
    hidden = any(part.startswith((".", "__")) for part in name.split("/"))
    lower = name.lower().removesuffix(PACKED)
    beside = lower.rpartition("/")[2] in ("dataset_infos.json", "config.json", "metadata.json", "state.json")
    return lower.endswith(SUFFIXES) and not hidden and not beside


def _splits(readable: Sequence[str], configs: Sequence[Mapping[str, Any]], source: DataSource) -> _Splits:
    config = _config(readable, configs, source)
    folder = str(config.get("data_dir") or "").strip("/")
    inside = [name for name in readable if not folder or name.startswith(f"{folder}/")]
    given = config.get("data_files")
    if given is None:
        return _by_name(inside, source)
    result = {
        split: sorted({name for pattern in patterns for name in _matching(inside, _below(folder, pattern))})
        for split, patterns in _patterns(given).items()
    }
    return {split: files for split, files in result.items() if files}


def _below(folder: str, pattern: str) -> str:
    return f"{folder}/{pattern}" if folder else pattern


def _config(readable: Sequence[str], configs: Sequence[Mapping[str, Any]], source: DataSource) -> Mapping[str, Any]:
    """The configuration that is meant; where the README has none, a folder may be one."""
    by_name = {str(each.get("config_name", "default")): each for each in configs}
    if source.config is not None:
        if source.config in by_name:
            return by_name[source.config]
        if not by_name and any(name.startswith(f"{source.config}/") for name in readable):
            return {"data_dir": source.config}
        known = f"it has {', '.join(by_name)}" if by_name else "leave config out"
        raise InputError(f"{source} has no configuration {source.config!r}", known)
    if len(by_name) <= 1:
        return next(iter(by_name.values()), {})
    usual = next((each for name, each in by_name.items() if each.get("default") is True or name == "default"), None)
    if usual is None:
        raise InputError(f"{source} has several configurations", f"name one with config: ({', '.join(by_name)})")
    return usual


def _by_name(names: Sequence[str], source: DataSource) -> _Splits:
    kinds = {name.lower().removesuffix(PACKED).rpartition(".")[2] for name in names}
    if len(kinds) > 1:
        raise InputError(
            f"{source} has files of several kinds ({', '.join(sorted(kinds))})", "name those meant with files:"
        )
    result: dict[str, list[str]] = {}
    for name in names:
        result.setdefault(_split_of(name) or "", []).append(name)
    if set(result) == {""}:  # no name tells: all of it is for training
        return {TRAIN: result[""]}
    return {split: files for split, files in result.items() if split}


def _split_of(name: str) -> str | None:
    shard = _SHARD.fullmatch(name)
    if shard is not None:
        return next((split for split, words in _WORDS.items() if shard[1].lower() in words), shard[1])
    for part in reversed(name.lower().split("/")):  # the file says it, else the nearest folder
        words = re.split(r"[^a-z]+", part)
        found = [split for split, known in _WORDS.items() if any(word in known for word in words)]
        if found:
            return found[0]
    return None


def _configs(readme: str, source: DataSource) -> list[Mapping[str, Any]]:
    """``configs`` of the YAML in front of a README."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    front = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", readme, re.DOTALL)
    try:
        document = YAML(typ="safe", pure=True).load(front[1]) if front else {}
    except (YAMLError, ValueError, RecursionError):
        raise InputError(f"the README of {source} is not YAML in front", "name the files with files:") from None
    configs = document.get("configs") if isinstance(document, dict) else None
    return [each for each in configs if isinstance(each, dict)] if isinstance(configs, list) else []


def _patterns(given: Any) -> dict[str, list[str]]:
    """Split -> patterns of what a README says: a pattern, a list of them, or objects with split and path."""
    result: dict[str, list[str]] = {}
    for each in given if isinstance(given, list) else [given]:
        entry = each if isinstance(each, dict) else {"split": TRAIN, "path": each}
        paths = entry.get("path")
        result.setdefault(str(entry.get("split", TRAIN)), []).extend(
            str(path) for path in (paths if isinstance(paths, list) else [paths])
        )
    return result


def _matching(names: Iterable[str], pattern: str) -> list[str]:
    """Names that a shell's pattern fits: ``*`` stays inside a folder, ``**`` does not."""
    signs = re.split(r"(\*\*/|\*\*|\*|\?)", pattern.removeprefix("./"))
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    wanted = re.compile("".join(known.get(sign, re.escape(sign)) for sign in signs))
    return [name for name in names if wanted.fullmatch(name)]


def _refuse_pattern(source: DataSource, readable: Sequence[str]) -> list[str]:
    known = f"it has {', '.join(readable[:5])}" if readable else f"edgekit reads {', '.join(SUFFIXES)}"
    raise InputError(f"{source} has no data file {source.files!r}", known)
