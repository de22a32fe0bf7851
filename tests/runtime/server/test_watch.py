"""Adapters that come while the service runs: a watched folder, and changes of the store."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from edgekit_runtime.formats.signing import make_key, sign
from edgekit_runtime.store import Store
from tests.goods import Goods
from tests.runtime.store.test_admission import BAD, Change, changed
from tests.service import Service, serving


def names(service: Service) -> list[str]:
    return [each["name"] for each in service.status()["adapters"]]


def drop(file: Path, folder: Path) -> Path:
    return Path(shutil.copy(file, folder / file.name))


def test_a_dropped_adapter_is_live_and_a_bad_one_is_put_aside_with_the_reason(goods: Goods, tmp_path: Path) -> None:
    watch = tmp_path / "drop"
    with serving(goods.bundle, "--watch", str(watch)) as service:
        drop(goods.two, watch)
        service.wait_for(lambda: "two" in names(service))
        assert service.text(model="two")
        bad = drop(goods.other_family, watch)
        reason = watch / "rejected" / f"{bad.name}.txt"
        service.wait_for(reason.exists)
        assert not bad.exists()
        assert (watch / "rejected" / bad.name).exists()
        assert "base" in reason.read_text()
        assert service.status()["rejected"][0]["file"] == bad.name
        (watch / "slow.gguf").write_bytes(goods.two.read_bytes()[:1000])  # still on its way
        assert not (watch / "rejected" / "slow.gguf").exists()
        (watch / "slow.gguf").write_bytes(goods.two.read_bytes())
        assert service.text(model="two")
    with serving(goods.bundle, "--watch", str(watch)) as service:
        service.wait_for(lambda: "two" in names(service))  # again after a restart


def test_a_store_takes_what_is_dropped_and_is_followed(goods: Goods, tmp_path: Path) -> None:
    store, watch = Store(tmp_path / "store", create=True), tmp_path / "drop"
    store.install(goods.bundle)
    with serving(store.root, "--watch", str(watch)) as service:
        old = service.text()
        dropped = drop(goods.two, watch)
        service.wait_for(lambda: "two" in names(service))
        service.wait_for(lambda: not dropped.exists())
        assert [each.name for each in store.installed()] == ["one", "two"]
        store.install(goods.one_newer)
        service.wait_for(lambda: any(each["version"] == "1.10" for each in service.status()["adapters"]))
        assert service.text() != old
        store.rollback()
        service.wait_for(lambda: not any(each["version"] == "1.10" for each in service.status()["adapters"]))
        assert service.text() == old
        drop(goods.two, watch)  # the same once more harms nothing
        service.wait_for(lambda: not dropped.exists())


def test_two_services_on_one_store_answer_the_same(goods: Goods, tmp_path: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    store.install(goods.bundle)
    drops = tmp_path / "drop-1", tmp_path / "drop-2"
    with (
        serving(store.root, "--watch", str(drops[0])) as first,
        serving(store.root, "--watch", str(drops[1])) as second,
    ):
        for file, folder in zip((goods.two, goods.one_newer), drops, strict=True):
            drop(file, folder)
        for service in (first, second):
            service.wait_for(lambda service=service: sorted(names(service)) == ["one", "two"])
            service.wait_for(lambda service=service: "1.10" in [a["version"] for a in service.status()["adapters"]])
        assert [first.text(model=name) for name in ("one", "two")] == [
            second.text(model=name) for name in ("one", "two")
        ]
        assert first.status()["rejected"] == second.status()["rejected"] == []
        store.gc()  # leaves what both have to themselves
        assert first.text() == second.text()
        assert not list((store.root / "tmp").glob("*/tmp/*"))


def test_with_trust_set_only_signed_adapters_go_live(goods: Goods, tmp_path: Path) -> None:
    key = tmp_path / "key"
    public = make_key(key)
    bundle = tmp_path / "bundle"
    shutil.copytree(goods.bundle, bundle)
    sign(bundle, key)
    store, watch = Store(tmp_path / "store", create=True), tmp_path / "drop"
    store.trust(public)
    store.install(bundle)
    with serving(store.root, "--watch", str(watch)) as service:
        drop(goods.two, watch)
        service.wait_for((watch / "rejected" / goods.two.name).exists)
        asked = service.http.post("/v1/load_lora_adapter", json={"lora_name": "two", "lora_path": str(goods.two)})
        assert asked.status_code == 400
        signed = Path(shutil.copy(goods.two, tmp_path / goods.two.name))
        signature = sign(signed, key)
        shutil.copy(signature, watch)
        drop(signed, watch)
        service.wait_for(lambda: "two" in names(service))


@pytest.mark.parametrize("content", [b"", b"GGUF", b"nonsense" * 100])
def test_rubbish_in_the_folder_is_put_aside(goods: Goods, tmp_path: Path, content: bytes) -> None:
    watch = tmp_path / "drop"
    watch.mkdir()
    (watch / "x.gguf").write_bytes(content)
    (watch / "note.txt").write_text("not an adapter")
    with serving(goods.bundle, "--watch", str(watch)) as service:
        service.wait_for((watch / "rejected" / "x.gguf").exists)
        assert (watch / "note.txt").exists()
        assert service.text()


@pytest.mark.parametrize(("change", "why"), BAD)
@pytest.mark.parametrize("stored", [False, True])
def test_a_bad_adapter_is_refused_by_folder_and_by_http(
    goods: Goods, tmp_path: Path, change: Change, why: str, stored: bool
) -> None:
    bad, watch = changed(goods, tmp_path, change), tmp_path / "drop"
    root = goods.bundle
    if stored:
        root = tmp_path / "store"
        Store(root, create=True).install(goods.bundle)
    with serving(root, "--watch", str(watch)) as service:
        answer = service.http.post("/v1/load_lora_adapter", json={"lora_name": "two", "lora_path": str(bad)})
        assert answer.status_code == 400
        assert re.search(why, answer.text)
        drop(bad, watch)
        reason = watch / "rejected" / f"{bad.name}.txt"
        service.wait_for(reason.exists)
        assert re.search(why, reason.read_text())
        assert names(service) == ["one"]
