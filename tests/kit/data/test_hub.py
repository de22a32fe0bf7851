"""Folders and hub data sets: which files hold the rows, from a cache as huggingface_hub keeps it, and offline."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from edgekit.data import DataSource, data_digest, load_rows
from edgekit_runtime.errors import InputError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIGS = """---
license: mit
configs:
- config_name: en
  default: true
  data_files:
  - split: train
    path: en/part-*.jsonl
  - split: dev
    path: [en/dev.jsonl]
- config_name: de
  data_dir: de
  data_files: "*.jsonl"
---
# About
"""


def lay(folder: Path, *names: str, readme: str | None = None) -> Path:
    """A data set whose rows answer with the name of their file."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"prompt": "q", "completion": name}) + "\n")
    if readme is not None:
        (folder / "README.md").write_text(readme)
    return folder


def answers(**source: Any) -> list[str]:
    return [row.answer for row in load_rows(DataSource(**source))]


@pytest.mark.parametrize(
    ("names", "part", "wanted"),
    [
        (["a.jsonl", "b.jsonl"], "train", ["a.jsonl", "b.jsonl"]),
        (["train.jsonl", "test.jsonl"], "train", ["train.jsonl"]),
        (["train.jsonl", "test.jsonl"], "eval", ["test.jsonl"]),
        (["train.jsonl", "test.jsonl", "valid.jsonl"], "eval", ["valid.jsonl"]),
        (["my_train_set.json", "my-eval.json"], "eval", ["my-eval.json"]),
        (["train/1.jsonl", "train/2.jsonl", "dev/1.jsonl"], "train", ["train/1.jsonl", "train/2.jsonl"]),
        (
            ["data/train-00000-of-00001.jsonl", "data/gen-00000-of-00001.jsonl"],
            "train",
            ["data/train-00000-of-00001.jsonl"],
        ),
        (
            ["data/train-00000-of-00001-0a1b.jsonl", "about.md", ".git/train.jsonl"],
            "train",
            ["data/train-00000-of-00001-0a1b.jsonl"],
        ),
        (["training/latest.jsonl", "contest.jsonl", "test.jsonl"], "train", ["training/latest.jsonl"]),
    ],
)
def test_splits_of_a_folder_are_found_by_name(names: list[str], part: str, wanted: list[str], tmp_path: Path) -> None:
    assert answers(path=lay(tmp_path / "set", *names), part=part) == wanted


def test_a_readme_goes_before_names(tmp_path: Path) -> None:
    names = ["en/part-1.jsonl", "en/part-2.jsonl", "en/dev.jsonl", "de/x.jsonl", "train.jsonl"]
    folder = lay(tmp_path, *names, readme=CONFIGS)
    assert answers(path=folder) == ["en/part-1.jsonl", "en/part-2.jsonl"]
    assert answers(path=folder, part="eval") == ["en/dev.jsonl"]
    assert answers(path=folder, config="de") == ["de/x.jsonl"]
    assert answers(path=folder, files="train.jsonl") == ["train.jsonl"]
    assert answers(path=folder, files="**/*.jsonl", part="eval") == sorted(names)
    assert answers(path=folder, files="*/*-1.jsonl") == ["en/part-1.jsonl"]


def test_a_folder_may_be_a_configuration(tmp_path: Path) -> None:
    folder = lay(tmp_path, "en/train/0000.jsonl", "en/test/0000.jsonl", "de/train/0000.jsonl")
    assert answers(path=folder, config="en") == ["en/train/0000.jsonl"]


@pytest.mark.parametrize(
    ("names", "readme", "source", "message"),
    [
        (["train.jsonl"], None, {"part": "eval"}, r"has no usual split for eval: name one with split: \(train\)"),
        (["train.jsonl"], None, {"split": "train[:9]"}, r"has no split 'train\[:9\]': name one with split: \(train\)"),
        (["train.jsonl"], None, {"config": "en"}, "has no configuration 'en': leave config out"),
        (["en/part-1.jsonl"], CONFIGS, {"config": "fr"}, "no configuration 'fr': it has en, de"),
        (["a.jsonl"], CONFIGS.replace("  default: true\n", ""), {}, r"several configurations: .*config: \(en, de\)"),
        (["a.jsonl"], "---\nconfigs: [\n---\n", {}, "the README of .* is not YAML in front"),
        (["train.jsonl", "train.csv"], None, {}, r"files of several kinds \(csv, jsonl\)"),
        (["a.txt"], None, {}, "has no data files: edgekit reads .jsonl"),
        ([], "# only this", {}, "has no data files"),
        (["a.jsonl"], None, {"files": "b*.jsonl"}, r"has no data file 'b\*.jsonl': it has a.jsonl"),
        (["dataset_info.json", "data.jsonl"], None, {}, "was written by save_to_disk"),
    ],
)
def test_what_is_not_certain_is_refused(
    names: list[str], readme: str | None, source: dict[str, str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "set").mkdir()
    with pytest.raises(InputError, match=message):
        load_rows(DataSource(path=lay(tmp_path / "set", *names, readme=readme), **source))


def test_a_file_has_no_splits(tmp_path: Path) -> None:
    lay(tmp_path, "a.jsonl")
    with pytest.raises(InputError, match="is no folder, so it has no split"):
        load_rows(DataSource(path=tmp_path / "a.jsonl", split="train"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Lays data sets out as huggingface_hub's cache does, and cuts the network off."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def put(*names: str, commit: str = COMMIT, listed: tuple[str, ...] | None = None, **more: Any) -> Path:
        home = tmp_path / "hub" / "datasets--org--name"
        (home / "refs").mkdir(parents=True, exist_ok=True)
        (home / "refs/main").write_text(commit)
        folder = lay(home / "snapshots" / commit, *names, **more)
        if listed is not None:
            from huggingface_hub._tree_cache import TreeCacheEntry, write_tree_cache

            entry = TreeCacheEntry(size=1, blob_id="0" * 40, lfs_sha256=None, lfs_size=None, xet_hash=None)
            write_tree_cache(str(home), commit, dict.fromkeys(listed, entry))
        return folder

    return put


def test_a_data_set_of_the_cache_is_read_offline(cache: Callable[..., Path]) -> None:
    cache("data/train.jsonl", "data/test.jsonl")
    (row,) = load_rows(DataSource(hub="org/name"))
    assert (row.answer, row.where) == ("data/train.jsonl", "org/name/data/train.jsonl:1")
    assert answers(hub="org/name", part="eval") == ["data/test.jsonl"]
    assert answers(hub="org/name", revision=COMMIT, split="test") == ["data/test.jsonl"]


def test_a_bad_row_of_the_hub_names_data_set_file_and_line(cache: Callable[..., Path]) -> None:
    (cache("train.jsonl") / "train.jsonl").write_text('{"prompt": "q", "completion": "a"}\n{"prompt": "q"}\n')
    with pytest.raises(InputError, match="^org/name/train.jsonl:2: the keys prompt"):
        load_rows(DataSource(hub="org/name"))


def test_a_cache_that_holds_a_part_is_never_taken_for_the_whole(cache: Callable[..., Path]) -> None:
    shards = tuple(f"data/train-{number:05d}-of-00002.jsonl" for number in range(2))
    cache(shards[0])  # without a listing, the names of shards tell
    with pytest.raises(InputError, match="only a part of the data set org/name is in the cache"):
        load_rows(DataSource(hub="org/name"))
    cache("train/a.jsonl", commit="f" * 40, listed=("train/a.jsonl", "train/b.jsonl", "test.jsonl"))
    with pytest.raises(InputError, match="the hub can't be reached for the data set org/name"):
        load_rows(DataSource(hub="org/name"))
    cache("train/a.jsonl", "train/b.jsonl", commit="f" * 40)
    assert answers(hub="org/name") == ["train/a.jsonl", "train/b.jsonl"]  # test.jsonl isn't needed


@pytest.mark.parametrize("revision", [None, "v2", "a" * 40])
def test_what_is_not_in_the_cache_can_not_be_reached(cache: Callable[..., Path], revision: str | None) -> None:
    if revision:
        cache("train.jsonl")
    with pytest.raises(
        InputError, match="can't be reached for the data set org/name .*: unset HF_HUB_OFFLINE"
    ) as caught:
        load_rows(DataSource(hub="org/name", revision=revision))
    assert "\n" not in str(caught.value)


def test_the_digest_covers_the_revision(cache: Callable[..., Path]) -> None:
    cache("train.jsonl")
    one = data_digest([DataSource(hub="org/name")])
    assert data_digest([DataSource(hub="org/name", revision=COMMIT)]) == one
    cache("train.jsonl", commit="f" * 40)
    assert data_digest([DataSource(hub="org/name")]) != one


class Hub:
    """The hub's HTTP, answered here: what huggingface_hub asks before it downloads."""

    def __init__(self, files: dict[str, bytes] | None, status: int = 200, code: str = "") -> None:
        self.files, self.status, self.code = files, status, code
        self.asked: list[str] = []

    def answer(self, request: Any) -> Any:
        import hashlib

        from huggingface_hub.utils._http import httpx2

        self.asked.append(f"{request.method} {request.url.path}")
        if self.files is None:
            raise httpx2.ConnectError("no route to host", request=request)
        if self.status != 200:
            return httpx2.Response(self.status, headers={"x-error-code": self.code}, request=request)
        path = request.url.path
        if "/tree/" in path:
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in self.files.items()
            ]
            return httpx2.Response(200, json=tree, request=request)
        if path.startswith("/api/datasets/"):
            about = {"id": "org/name", "sha": COMMIT, "siblings": [{"rfilename": name} for name in self.files]}
            return httpx2.Response(200, json=about, request=request)
        data = self.files[path.partition(f"/resolve/{COMMIT}/")[2]]
        headers = {"etag": f'"{hashlib.sha1(data).hexdigest()}"', "x-repo-commit": COMMIT}
        return httpx2.Response(200, content=data, headers=headers, request=request)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    from huggingface_hub.utils import _http

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(_http.time, "sleep", lambda _seconds: None)  # between tries

    def open_(served: Hub) -> Hub:
        transport = _http.httpx2.MockTransport(served.answer)
        hooks = {"request": [_http.hf_request_event_hook]}  # which heeds HF_HUB_OFFLINE
        huggingface_hub.set_client_factory(lambda: _http.httpx2.Client(transport=transport, event_hooks=hooks))
        return served

    yield open_
    huggingface_hub.set_client_factory(_http.default_client_factory)


def test_only_the_files_of_a_split_are_downloaded_and_then_kept(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    row = b'{"prompt": "q", "completion": "a"}\n'
    served = hub(Hub({"README.md": CONFIGS.encode(), "en/part-1.jsonl": row, "en/dev.jsonl": row, "big.bin": b""}))
    (found,) = load_rows(DataSource(hub="org/name"))
    assert found.where == "org/name/en/part-1.jsonl:1"
    assert not [each for each in served.asked if "big.bin" in each or "dev.jsonl" in each]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_rows(DataSource(hub="org/name")) == [found]
    with pytest.raises(InputError, match="the hub can't be reached for the data set org/name"):
        load_rows(DataSource(hub="org/name", part="eval"))


@pytest.mark.parametrize(
    ("served", "message"),
    [
        (Hub(None), "the hub can't be reached for the data set org/name .*: connect"),
        (Hub({}, 500), "the hub can't be reached for the data set org/name"),
        (Hub({}, 404, "RepoNotFound"), "the hub has no data set 'org/name'"),
        (Hub({}, 401), "the hub has no data set 'org/name'.*hf auth login"),
        (Hub({}, 403, "GatedRepo"), "the data set org/name is behind an agreement"),
        (Hub({}, 404, "RevisionNotFound"), "the data set org/name has no revision 'v2'"),
        (Hub({}), "hub:org/name has no data files"),
    ],
)
def test_what_the_hub_refuses_is_told_in_one_line(hub: Any, served: Hub, message: str) -> None:
    hub(served)
    with pytest.raises(InputError, match=message) as caught:
        load_rows(DataSource(hub="org/name", revision="v2"))
    assert "\n" not in str(caught.value)
