"""A device installs a bundle of a registry by its digest, and downloads what its store lacks alone."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from edgekit.targets.pull import pull
from edgekit.targets.push import push
from edgekit_runtime import Runtime
from edgekit_runtime.cli import main
from edgekit_runtime.errors import InputError, TargetError
from edgekit_runtime.formats.base_files import BaseFiles
from edgekit_runtime.formats.bundle import read_manifest
from edgekit_runtime.formats.signing import make_key, sign
from edgekit_runtime.registry.reference import Reference
from edgekit_runtime.registry.source import RegistryBundle
from edgekit_runtime.store import Store
from edgekit_runtime.store.objects import HEADROOM
from tests import registry as registries
from tests.docker_registry import PROGRAM, running_docker_registry
from tests.goods import Goods
from tests.kit.targets.sshd import LossyLink
from tests.registry import Registry

WAITS = (0.01,) * 3
REPORT = b"good " * 1000
SKOPEO = shutil.which("skopeo")


@dataclass(frozen=True)
class Versions:
    """Two versions of a signed bundle with the same base; ``size`` is that of the second one's only new adapter."""

    first: Path
    second: Path
    key: Path
    size: int


@pytest.fixture(scope="module")
def versions(goods: Goods, tiny_chat_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Versions:
    import torch
    from transformers import AutoModelForCausalLM

    from edgekit.bases.resolve import resolve_base
    from edgekit_exporters.bundle import write_bundle
    from edgekit_exporters.gguf.adapter import AdapterSource
    from edgekit_exporters.gguf.base import base_gguf
    from tests.adapters import save_random_lora
    from tests.goods import text_plan

    folder = tmp_path_factory.mktemp("versions")
    base = resolve_base(str(tiny_chat_base))
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)
    save_random_lora(model, folder / "peft", std=0.1, r=64, lora_alpha=64, target_modules="all-linear")
    adapters = [AdapterSource("one", "2.0.0", folder / "peft", system="You are terse.")]
    plan = text_plan(base, base_gguf(base, "F16"), adapters, version="2026.03.01", default_adapter="one")
    write_bundle(plan, folder / "second")
    _with_report(Path(shutil.copytree(goods.bundle, folder / "first")))
    make_key(folder / "key")
    for name in ("first", "second"):
        sign(folder / name, folder / "key")
    manifest = read_manifest(folder / "second")
    (size,) = (file.size for file in manifest.files if file.path == manifest.adapters[0].file)
    return Versions(folder / "first", folder / "second", folder / "key", size)


def _with_report(bundle: Path) -> None:
    """A file that devices don't need."""
    (bundle / "report").mkdir()
    (bundle / "report" / "report.md").write_bytes(REPORT)
    document = json.loads((bundle / "manifest.json").read_text())
    sha256 = hashlib.sha256(REPORT).hexdigest()
    document["files"].append({"path": "report/report.md", "size": len(REPORT), "sha256": sha256})
    (bundle / "manifest.json").write_text(json.dumps(document))


@pytest.fixture(autouse=True)
def no_logins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


@pytest.fixture
def store(versions: Versions, tmp_path: Path) -> Store:
    """One that trusts the key, and takes the engine's word: what the engine says is tested elsewhere."""

    def trial(base: BaseFiles, adapters: Sequence[Path]) -> list[bool]:
        assert base.model.is_file()
        assert all(each.is_file() for each in adapters)
        return [True] * len(adapters)

    made = Store(tmp_path / "store", create=True, trial=trial)
    made.trust(versions.key.with_name("key.pub"))
    return made


def _pushed(registry: Registry, bundle: Path, tag: str = "1") -> Reference:
    """The bundle's digest in the registry, which counts anew from here."""
    named = push(bundle, Reference.parse(f"oci://{registry.host}/line-3:{tag}"), waits=WAITS).reference
    registry.forget()
    return Reference(named.host, named.repository, digest=named.digest)


def _install(store: Store, reference: Reference, **options: bool) -> list[str]:
    return store.install_pulled(RegistryBundle(reference, waits=WAITS), **options)


def _left(store: Store) -> list[Path]:
    return list((store.root / "tmp").iterdir())


def test_a_device_that_has_the_base_downloads_the_adapter_alone(store: Store, versions: Versions) -> None:
    with registries.running() as registry:
        first, second = _pushed(registry, versions.first), _pushed(registry, versions.second)
        assert _install(store, first) == ["one 1.0.0"]
        assert len(registry.downloads()) == 4  # manifest.json, its signature, base and adapter: no report
        registry.forget()
        assert _install(store, second) == ["one 2.0.0"]
        assert registry.sent <= 1.05 * versions.size
        registry.forget()
        _install(store, second)
        assert registry.sent <= 0.05 * versions.size
    assert not _left(store)
    assert store.rotten() == []


def test_an_installation_goes_on_where_the_last_one_broke_off(store: Store, versions: Versions) -> None:
    with registries.running() as registry:
        reference = _pushed(registry, versions.second)
        base = read_manifest(versions.second).base.digest
        size = len(registry.blobs[f"sha256:{base}"])
        registry.cut_after = [size // 2, *[0] * 5]
        with pytest.raises(TargetError, match="are to come: run this again"):
            _install(store, reference)
        assert store.current() is None
        registry.cut_after = []
        registry.forget()
        assert _install(store, reference) == ["one 2.0.0"]
        assert registry.sent <= size - size // 2 + 1.05 * versions.size
    assert not _left(store)


def test_files_that_have_arrived_whole_are_not_downloaded_again(
    store: Store, versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    with registries.running() as registry:
        reference = _pushed(registry, versions.second)

        def stop(*_: object) -> NoReturn:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr("edgekit_runtime.store.pulled.Bundle", stop)
            with pytest.raises(KeyboardInterrupt):
                _install(store, reference)
        registry.forget()
        assert _install(store, reference) == ["one 2.0.0"]
        assert len(registry.downloads()) <= 2  # manifest and signature
    assert not _left(store)


def test_what_has_arrived_needs_no_room_again(
    store: Store, versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = read_manifest(versions.second).base.digest
    with registries.running() as registry:
        reference = _pushed(registry, versions.second)
        size = len(registry.blobs[f"sha256:{base}"])
        registry.cut_after = [size - 20_000, *[0] * 5]
        with pytest.raises(TargetError):
            _install(store, reference)
        registry.cut_after = []
        disk = shutil.disk_usage(store.root)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: disk._replace(free=HEADROOM + 2 * versions.size))
        assert _install(store, reference) == ["one 2.0.0"]


def test_gc_removes_what_has_arrived_of_an_installation_that_broke_off(store: Store, versions: Versions) -> None:
    with registries.running() as registry:
        reference = _pushed(registry, versions.second)
        _install(store, _pushed(registry, versions.first))
        registry.cut_after = [20_000, *[0] * 5]
        with pytest.raises(TargetError):
            _install(store, reference)
    (begun,) = _left(store)
    assert [each.stat().st_size for each in begun.iterdir()] == [20_000]
    assert store.gc() == (1, 20_000)
    assert not _left(store)


def test_what_is_wrong_changes_nothing(store: Store, versions: Versions, tmp_path: Path) -> None:
    manifest = read_manifest(versions.second)
    adapter = manifest.adapters[0].digest
    with registries.running() as registry:
        _install(store, _pushed(registry, versions.first))
        before = store.current()
        second = _pushed(registry, versions.second)
        registry.lies = {f"sha256:{adapter}": b"x" * versions.size}
        with pytest.raises(InputError, match="is not what its digest says"):
            _install(store, second)
        registry.lies = {}
        assert _install(store, second) == ["one 2.0.0"]
        store.rollback()
        unsigned = shutil.copytree(versions.second, tmp_path / "unsigned")
        (unsigned / "manifest.sig").unlink()
        (unsigned / "manifest.json").write_bytes((unsigned / "manifest.json").read_bytes() + b"\n")
        with pytest.raises(InputError, match="not signed, and this device asks for it"):
            _install(store, _pushed(registry, unsigned))
        make_key(tmp_path / "stranger")
        sign(unsigned, tmp_path / "stranger")
        with pytest.raises(InputError, match="signed by nobody"):
            _install(store, _pushed(registry, unsigned))
        assert not set(registry.downloads()) & {file.sha256 for file in manifest.files}
        registry.stop()
        with pytest.raises(TargetError, match="can't be reached"):
            _install(store, second)
    assert store.current() == before


def test_an_older_bundle_is_refused_unless_it_is_wanted(store: Store, versions: Versions) -> None:
    with registries.running() as registry:
        first, second = _pushed(registry, versions.first), _pushed(registry, versions.second)
        _install(store, second)
        with pytest.raises(InputError, match="older"):
            _install(store, first)
        assert _install(store, first, allow_downgrade=True) == ["one 1.0.0"]


def test_the_command_says_what_is_wrong_with_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def install(*words: str) -> int:
        return main(["adapters", "install", *words, "--store", str(tmp_path / "store")])

    with registries.running() as registry:
        assert install(f"oci://{registry.host}/line-3:1") == 3
        assert f"there is no oci://{registry.host}/line-3:1" in capsys.readouterr().err
    assert install(f"oci://{registry.host}/line-3:1") == 5
    assert install("oci://Registry") == 3
    assert install("line-3.tar", "--ca", "authority.pem") == 2


def test_files_are_installed_without_the_client_of_registries(tmp_path: Path) -> None:
    code = (
        "import sys; from edgekit_runtime.cli import main; "
        f"sys.exit(main(['adapters', 'install', '{tmp_path}', '--store', '{tmp_path / 'store'}']) * 10 "
        "+ ('urllib3' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 30


@pytest.mark.skipif(PROGRAM is None, reason="there is no docker-registry: apt install docker-registry")
def test_a_real_registry_serves_push_pull_and_devices_through_restarts_and_broken_lines(
    versions: Versions, tmp_path: Path, device: Callable[..., str]
) -> None:
    manifest = read_manifest(versions.first)
    base, adapter = (
        next(f.size for f in manifest.files if f.path == e.file) for e in (manifest.base, *manifest.adapters)
    )
    with running_docker_registry(tmp_path) as registry:
        port = int(registry.host.rpartition(":")[2])
        up, down, second_down = (
            LossyLink(port, base // 2),
            *(LossyLink(port, n, answers=True) for n in (base // 2, base)),
        )

        def named(tag: str, link: LossyLink | None = None) -> Reference:
            return Reference.parse(f"oci://127.0.0.1:{link.port if link else port}/team/line-3{tag}")

        first = push(versions.first, named(":1", up)).reference
        registry.kill()
        with pytest.raises(TargetError, match="can't be reached"):
            push(versions.second, named(":2"))
        registry.start()
        second = push(versions.second, named(":2"))
        assert second.sent == versions.size
        assert "active: one 1.0.0" in device("install", str(named(f"@sha256:{first.digest}", down)))
        assert down.passed <= 1.05 * (base + adapter)
        assert "active: one 2.0.0" in device("install", str(named(f"@sha256:{second.reference.digest}", second_down)))
        assert second_down.passed <= 1.05 * versions.size
        assert (up.broken, down.broken, second_down.broken) == (True, True, False)
        pulled = pull(named(":2"), tmp_path / "out", trust=versions.key.with_name("key.pub"))
        assert pulled.reference.digest == second.reference.digest
        if SKOPEO is not None:
            _copy(named(":2"), named("-copy:2"))
            copied = named(f"-copy@sha256:{second.reference.digest}")
            assert pull(copied, tmp_path / "copy", trust=versions.key.with_name("key.pub")).signed
        for link in (up, down, second_down):
            link.close()
    with Runtime(tmp_path / "out", threads=1) as bundle, Runtime(tmp_path / "store", threads=1) as installed:
        expected = bundle.generate("scratch", max_tokens=8)
        assert installed.generate("scratch", max_tokens=8).text == expected.text


def _copy(source: Reference, target: Reference) -> None:
    names = [str(each).replace("oci://", "docker://") for each in (source, target)]
    plain = ["--insecure-policy", "copy", "--src-tls-verify=false", "--dest-tls-verify=false"]
    subprocess.run([str(SKOPEO), *plain, *names], check=True, capture_output=True)


@pytest.fixture
def device(versions: Versions, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`edgekit-runtime adapters` on a store that trusts the key; returns what it says."""

    def adapters(*words: str) -> str:
        assert main(["adapters", *words, "--store", str(tmp_path / "store")]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    adapters("trust", str(versions.key.with_name("key.pub")))
    return adapters
