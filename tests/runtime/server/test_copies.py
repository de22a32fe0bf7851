"""What was checked is what runs: files that change, come in crowds, are old, or are none, over HTTP."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from edgekit_exporters.gguf.metadata import rewrite_metadata
from edgekit_runtime.formats.bundle import file_digest, open_bundle
from edgekit_runtime.formats.gguf import read_gguf
from edgekit_runtime.formats.signing import make_key, sign
from edgekit_runtime.server import adapters as adapters_module
from edgekit_runtime.server.adapters import Adapters
from edgekit_runtime.server.app import make_app
from edgekit_runtime.server.copies import KEPT_UNUSED, Copies, NoAdapter, private_place
from edgekit_runtime.server.refusals import RETRY_AFTER_S
from edgekit_runtime.server.supervisor import Supervisor
from edgekit_runtime.store import Store
from tests.goods import Goods
from tests.runtime.server.test_watch import names
from tests.runtime.store.test_admission import changed, put_nan
from tests.runtime.store.test_incoming import flickering
from tests.service import Service, serving

LOAD = "/v1/load_lora_adapter"


def load(service: Service, path: Path | str, name: str = "two", **more: Any) -> httpx.Response:
    body = {"lora_name": name, "lora_path": str(path), "load_inplace": True}
    return service.http.post(LOAD, json=body | more)


@pytest.mark.parametrize("stored", [False, True])
def test_a_file_that_is_swapped_after_it_was_loaded_never_runs(goods: Goods, tmp_path: Path, stored: bool) -> None:
    root = goods.bundle
    if stored:
        root = tmp_path / "store"
        Store(root, create=True).install(goods.bundle)
    file = Path(shutil.copy(goods.two, tmp_path / "two.gguf"))
    with serving(root) as service:
        assert load(service, file).status_code == 200
        before = service.text(model="two")
        for swapped in (goods.one_newer.read_bytes(), b"", None):
            file.unlink() if swapped is None else file.write_bytes(swapped)
            assert service.text(model="two") == before
            os.kill(service.worker, signal.SIGKILL)
            assert service.text(model="two") == before


def test_whoever_swaps_a_file_all_the_time_gets_nothing_in_that_nobody_signed(goods: Goods, tmp_path: Path) -> None:
    key = tmp_path / "key"
    public = make_key(key)
    bundle = Path(shutil.copytree(goods.bundle, tmp_path / "bundle"))
    sign(bundle, key)
    store = Store(tmp_path / "store", create=True)
    store.trust(public)
    store.install(bundle)
    file = Path(shutil.copy(goods.two, tmp_path / "two.gguf"))
    sign(file, key)
    good, outcomes = file_digest(file), set()
    with serving(store.root) as service:
        with flickering(file, file.read_bytes(), goods.one_newer.read_bytes()):
            for _ in range(25):
                answer = load(service, file)
                outcomes.add(answer.status_code)
                assert answer.status_code == 400 or answer.json()["digest"] == good
        assert load(service, file).status_code == 200
        before = service.text(model="two")
        os.kill(service.worker, signal.SIGKILL)
        assert service.text(model="two") == before
    assert outcomes == {200, 400}


def test_an_older_version_has_to_be_asked_for_over_http_too(goods: Goods, tmp_path: Path) -> None:
    older = next((goods.bundle / "adapters").glob("one-*.gguf"))
    watch = tmp_path / "drop"
    with serving(goods.bundle, "--watch", str(watch)) as service:
        before = service.text()
        assert load(service, goods.one_newer, "one").status_code == 200
        newer = service.text()
        refused = load(service, older, "one")
        assert refused.status_code == 400
        assert "one 1.0.0 is older than 1.10" in refused.json()["error"]["message"]
        assert load(service, older, "one", allow_downgrade="yes").status_code == 400
        shutil.copy(older, watch)
        service.wait_for((watch / "rejected" / older.name).exists)
        os.kill(service.worker, signal.SIGKILL)  # the next one first has what is in the bundle
        assert load(service, older, "one").status_code == 400
        assert service.text() == newer
        assert load(service, older, "one", allow_downgrade=True).status_code == 200
        assert service.text(messages=[{"role": "user", "content": "scratch"}]) == before


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


ODD: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "empty": Path.touch,
    "text": lambda path: path.write_text("root:x:0:0"),
    "half": lambda path: path.write_bytes(b"GGUF\x03"),
    "folder": Path.mkdir,
    "fifo": lambda path: os.mkfifo(path),
    "socket": _socket,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "dangling": lambda path: path.symlink_to("nowhere"),
    "loop": lambda path: path.symlink_to(path.name),
    "forbidden": lambda path: path.touch(0o000),
}


def test_who_asks_does_not_learn_which_files_there_are(goods: Goods, tmp_path: Path) -> None:
    for name, make in ODD.items():
        make(tmp_path / name)
    paths = [str(tmp_path / name) for name in ODD]
    paths += [".", "..", "/", "a\0b", "\0", "x" * 100_000, "/x" * 5000, "/proc/self/mem", "/dev/tty"]
    paths += ["/root/.ssh/id", str(next(goods.bundle.glob("base/*.gguf"))), str(goods.bundle / "manifest.json")]
    with serving(goods.bundle) as service:
        answers = {path: load(service, path) for path in paths}
        assert {answer.status_code for answer in answers.values()} == {404}
        (said,) = {answer.text for answer in answers.values()}
        assert "no adapter that can be loaded" in said
        log = "".join(service.lines)
        assert f"{tmp_path / 'folder'} is no regular file" in log  # whoever runs it does
        assert f"there is no {tmp_path / 'missing'}" in log
        bad = load(service, changed(goods, tmp_path, put_nan))
        assert "NaN or infinite" in bad.text  # it says that it is an adapter: its maker learns what is wrong
        assert service.text()


def test_files_may_have_to_be_in_one_folder(goods: Goods, tmp_path: Path) -> None:
    inside = tmp_path / "adapters"
    inside.mkdir()
    shutil.copy(goods.two, inside / "two.gguf")
    (inside / "out.gguf").symlink_to(goods.two)
    (inside / "text.gguf").write_text("no adapter")
    with serving(goods.bundle, "--adapter-files", str(inside)) as service:
        for path in (goods.two, inside / "out.gguf", inside / ".." / ".." / goods.two, "a\0b", "/etc/passwd"):
            answer = load(service, path)
            assert answer.status_code == 404
            assert "no adapter that can be loaded" in answer.text
        assert "not a GGUF" in load(service, "text.gguf").text
        assert names(service) == ["one"]
        assert load(service, "two.gguf").status_code == 200
        assert load(service, inside / "two.gguf").status_code == 200


def test_a_store_that_can_not_be_written_is_served(goods: Goods, tmp_path: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    store.install(goods.bundle)
    (store.root / "tmp").rmdir()
    with serving(store.root) as service:
        assert any("nothing can be written in the store" in line for line in service.lines)
        assert load(service, goods.two).status_code == 200
        assert service.text(model="two")


class _Taking(Supervisor):
    """A worker that loads whatever it is given."""

    async def load(self, model: dict[str, Any], path: str) -> None:
        assert file_digest(Path(path)) == model["digest"]


def test_of_many_loads_at_once_one_canary_runs_at_any_moment(
    goods: Goods, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / f"{number}.gguf" for number in range(24)]
    for number, file in enumerate(files):
        rewrite_metadata(goods.two, file, {"edgekit.name": f"many-{number}"})
    running, most, tried = 0, 0, 0

    async def canary(_: object, paths: list[Path]) -> list[bool]:
        nonlocal running, most, tried
        running, tried = running + 1, tried + 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        return [True] * len(paths)

    monkeypatch.setattr(adapters_module, "try_adapters_async", canary)

    async def send() -> list[httpx.Response]:
        with open_bundle(goods.bundle) as bundle, private_place(None) as folder:
            assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
            supervisor = _Taking({})
            app = make_app(supervisor, Adapters(supervisor, bundle, folder=folder))
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
                bodies = [{"lora_name": file.stem, "lora_path": str(file)} for file in files]
                few = await asyncio.gather(*(client.post(LOAD, json=body) for body in bodies[:12]))
                many = await asyncio.gather(*(client.post(LOAD, json=body) for body in bodies))
            return [*few, *many]

    answers = asyncio.run(asyncio.wait_for(send(), 120))
    assert most == 1
    assert {answer.status_code for answer in answers[:12]} == {200}
    refused = [answer for answer in answers if answer.status_code != 200]
    assert {answer.status_code for answer in refused} == {429}
    assert all(answer.headers["retry-after"] == str(RETRY_AFTER_S) for answer in refused)
    assert len(refused) == len(files) - adapters_module.MOST_LOADING
    assert tried == adapters_module.MOST_LOADING  # what was tried is not tried again


def test_a_canary_that_crashes_frees_its_turn(goods: Goods, monkeypatch: pytest.MonkeyPatch) -> None:
    async def crash(*_: object) -> list[bool]:
        raise RuntimeError("a defect")

    monkeypatch.setattr(adapters_module, "try_adapters_async", crash)

    async def send() -> None:
        with open_bundle(goods.bundle) as bundle, private_place(None) as folder:
            adapters = Adapters(Supervisor({}), bundle, folder=folder)
            for _ in range(adapters_module.MOST_LOADING + 1):
                with pytest.raises(RuntimeError):
                    await adapters.load(None, goods.two)

    asyncio.run(asyncio.wait_for(send(), 120))


def test_copies_that_nobody_uses_go(goods: Goods, tmp_path: Path) -> None:
    with open_bundle(goods.bundle) as bundle, private_place(None) as folder:
        header, family = read_gguf(bundle.base_files.header), bundle.manifest.base.family
        copies = Copies(folder.path, None, None)
        taken = []
        for number in range(KEPT_UNUSED + 4):
            file = tmp_path / f"{number}.gguf"
            rewrite_metadata(goods.two, file, {"edgekit.name": f"many-{number}"})
            taken.append(copies.take(file, None, header, family).copy)
            copies.keep([taken[0].digest])
        assert [each.path.exists() for each in taken] == [True, *[False] * 3, *[True] * KEPT_UNUSED]
        assert taken[0].path.stat().st_mode & 0o222 == 0
        with pytest.raises(NoAdapter):
            copies.take(tmp_path, None, header, family)
    assert not folder.path.exists()
