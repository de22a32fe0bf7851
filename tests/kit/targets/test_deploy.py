"""Deploying to a real OpenSSH server on loopback, as another user where the test may make one."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.cli import main
from edgekit.targets import rollout
from edgekit.targets.offline_kit import write_offline
from edgekit_devices.wheelhouse import Platform, Wheelhouse
from edgekit_exporters.base import Base
from edgekit_exporters.bundle import write_bundle
from edgekit_exporters.gguf.adapter import AdapterSource
from edgekit_runtime.formats.bundle import file_digest, open_bundle, read_manifest
from edgekit_runtime.formats.manifest import MANIFEST_FILE
from tests.goods import text_plan
from tests.kit.targets.local_runtime import local_wheelhouse
from tests.kit.targets.sshd import SSHD, LossyLink, Server, free_port, running_sshd

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
DEVICE_PYTHON = f"/usr/bin/python{PYTHON}" if os.geteuid() == 0 else sys.executable

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux" or SSHD is None, reason="there is no sshd: apt install openssh-server"),
    pytest.mark.skipif(not Path(DEVICE_PYTHON).exists(), reason=f"another user has no Python {PYTHON} here"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_sshd() as running:
        yield running


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Wheelhouse:
    libc = os.confstr("CS_GNU_LIBC_VERSION").replace(" ", "-")  # type: ignore[union-attr]
    return local_wheelhouse(tmp_path_factory.mktemp("house") / "local", Platform(os.uname().machine, libc, PYTHON))


@pytest.fixture(autouse=True)
def runtime_of_this_machine(house: Wheelhouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cross build takes minutes: the device is this machine, and gets what is installed here."""
    monkeypatch.setattr(rollout, "build_runtime", lambda profile, python=None: house)


@pytest.fixture(scope="module")
def bundles(tiny_chat_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Bundles of the tiny base; ``seeds`` gives each adapter its weights."""
    import torch
    from transformers import AutoModelForCausalLM

    from edgekit.bases.resolve import resolve_base
    from edgekit_exporters.gguf.base import base_gguf
    from tests.adapters import save_random_lora

    base: Base = resolve_base(str(tiny_chat_base))
    model = AutoModelForCausalLM.from_pretrained(tiny_chat_base, dtype=torch.float32)

    @functools.cache
    def make(version: str, **seeds: int) -> Path:
        root = tmp_path_factory.mktemp(f"bundle-{version}")
        sources = []
        for name, seed in seeds.items():
            torch.manual_seed(seed)
            save_random_lora(model, root / name, std=0.1, r=4, lora_alpha=8, target_modules="all-linear")
            sources.append(AdapterSource(name, f"1.0.{seed}", root / name))
        write_bundle(text_plan(base, base_gguf(base, "F16"), sources, version=version), root / "bundle")
        return root / "bundle"

    return make


@pytest.fixture(scope="module")
def deployed(server: Server, house: Wheelhouse, bundles: Callable[..., Path]) -> Path:
    """A bundle that is on the server already."""
    bundle = bundles("1", one=1, two=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rollout, "build_runtime", lambda profile, python=None: house)
        assert main(["deploy", str(bundle), "--target", server.target(), "--ssh", server.ssh]) == 0
    return bundle


def _deploy(server: Server, bundle: Path, target: str | None = None) -> int:
    return main(["deploy", str(bundle), "--target", target or server.target(), "--ssh", server.ssh, "--json"])


def _installed(server: Server, path: str = ".local/share/edgekit-device") -> dict[str, object]:
    listed = server.run(f"{path}/runtime/bin/edgekit-runtime adapters list --store {path}/store --json")
    document: dict[str, object] = json.loads(listed)
    return document


def test_a_bundle_arrives_and_answers_as_another_user(server: Server, deployed: Path) -> None:
    answer = server.run(
        "cd .local/share/edgekit-device && runtime/bin/edgekit-runtime run --store store --adapter one --prompt scratch"
        " --max-tokens 4 --json"
    )
    assert json.loads(answer)["usage"]["completion_tokens"] > 0
    owner = (server.home / ".local/share/edgekit-device/store").stat().st_uid
    assert owner != 0 or os.geteuid() != 0
    assert not list((server.home / ".local/share/edgekit-device").glob("kit/bundle"))


def test_only_the_bytes_of_a_changed_adapter_travel(
    server: Server, deployed: Path, bundles: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    newer = bundles("2", one=1, two=3)
    capsys.readouterr()
    assert _deploy(server, newer) == 0
    (outcome,) = json.loads(capsys.readouterr().out)
    manifest = read_manifest(newer)
    adapter = next(file for file in manifest.files if "two" in file.path)
    base = next(file for file in manifest.files if file.path == manifest.base.file)
    assert adapter.size <= outcome["sent"] < adapter.size + 50_000  # and manifest, checksums, facts
    assert outcome["sent"] < base.size / 10
    assert _deploy(server, newer) == 0  # once more changes nothing
    (again,) = json.loads(capsys.readouterr().out)
    assert "installed already" in again["said"]


def test_a_bundle_that_the_engine_refuses_is_rolled_back_with_exit_5(
    server: Server,
    deployed: Path,
    bundles: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = _installed(server)
    broken = _break_base(bundles("3", one=4, two=5), tmp_path)
    capsys.readouterr()
    assert _deploy(server, broken) == 5
    said = capsys.readouterr()
    (outcome,) = json.loads(said.out)
    assert "llama.cpp refuses" in outcome["error"]
    assert "rolled back to generation" in outcome["error"]
    assert _installed(server) == before
    answer = server.run(
        ".local/share/edgekit-device/runtime/bin/edgekit-runtime doctor --store .local/share/edgekit-device/store"
    )
    assert "FAIL" not in answer


def test_a_first_install_that_fails_leaves_nothing(
    server: Server, bundles: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = _break_base(bundles("1", one=1), tmp_path)
    path = str(server.home / "first")
    assert _deploy(server, broken, target=server.target(path)) == 5
    assert "nothing is left of it" in json.loads(capsys.readouterr().out)[0]["error"]
    assert not (server.home / "first" / "store").exists()
    assert not (server.home / "first" / "runtime").exists()


def test_a_dropped_link_is_taken_up_where_it_broke(
    server: Server, house: Wheelhouse, bundles: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = bundles("1", one=1)
    link = LossyLink(server.port, limit=20_000_000)  # in the middle of the largest wheels
    path = str(server.home / "lossy")
    try:
        assert _deploy(server, bundle, target=server.target(path, link.port)) == 0
    finally:
        link.close()
    assert link.broken
    (outcome,) = json.loads(capsys.readouterr().out)
    whole = house.size + sum(file.stat().st_size for file in bundle.rglob("*") if file.is_file())
    assert link.passed < 1.5 * whole
    assert "installed line-3 1" in outcome["said"]


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system can only be mounted by root")
def test_a_full_disk_is_told_before_anything_is_sent_and_changes_nothing(
    server: Server, bundles: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    small = server.home / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=777", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this sandbox mounts nothing")
    try:
        assert _deploy(server, bundles("1", one=1), target=server.target(str(small / "edgekit"))) == 5
        (outcome,) = json.loads(capsys.readouterr().out)
        assert "its disk is full" in outcome["error"]
        assert "free some space" in outcome["error"]
        assert not (small / "edgekit" / "store").exists()
        assert outcome["sent"] == 0
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system can only be mounted by root")
def test_a_disk_that_fills_up_on_the_way_is_told(server: Server, bundles: Callable[..., Path], tmp_path: Path) -> None:
    from edgekit.targets.ssh import DeviceError, connect, parse_target

    small = server.home / "tiny"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=777", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this sandbox mounts nothing")
    big = tmp_path / "big"
    big.write_bytes(bytes(4_000_000))
    try:
        with (
            connect(parse_target(server.target()), server.ssh) as device,
            pytest.raises(DeviceError, match="its disk is full"),
        ):
            device.upload(big, file_digest(big), str(small / "big"))
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_several_targets_get_a_table_and_one_failure_is_exit_5(
    server: Server, deployed: Path, bundles: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = bundles("3", one=4, two=5)
    targets = [server.target(), f"ssh://nobody-there@127.0.0.1:{server.port}"]
    words = [word for target in targets for word in ("--target", target)]
    assert main(["deploy", str(bundle), *words, "--ssh", server.ssh]) == 5
    said = capsys.readouterr()
    assert "installed line-3 3" in said.out
    assert "FAILED" in said.out
    assert "it refuses the login" in said.out
    assert "1 of 2 targets failed" in said.err


def test_an_unknown_host_key_is_refused(server: Server, bundles: Callable[..., Path], tmp_path: Path) -> None:
    from edgekit.targets.ssh import LinkLost, connect, parse_target

    config = tmp_path / "config"
    config.write_text(
        (server.folder / "ssh_config").read_text().replace(f"{server.folder}/known_hosts", str(tmp_path / "none"))
    )
    with (
        connect(parse_target(server.target()), f"ssh -F {config}") as device,
        pytest.raises(LinkLost, match="host key is unknown"),
    ):
        device.run("true")


def test_a_machine_over_ssh_is_detected(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "detect", server.target(), "--ssh", server.ssh, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["architecture"] == os.uname().machine
    assert document["cores"] == os.cpu_count()


def test_what_is_deployed_is_measured_over_ssh(
    server: Server, deployed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["bench", "--target", server.target(), "--ssh", server.ssh, "--quick", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["target"] == {"kind": "ssh", "name": server.target(), "emulated": False}
    assert {"base", "one", "two"} <= {result["adapter"] for result in document["results"]}
    nothing = server.target(str(tmp_path))
    assert main(["bench", "--target", nothing, "--ssh", server.ssh]) == 5
    assert "there is nothing to measure: edgekit deploy" in capsys.readouterr().err


# Does what systemd would with the unit: enough to see that the installer writes, starts, asks and removes it.
SYSTEMCTL = """#!/bin/sh
shift
unit=$HOME/.config/systemd/user/edgekit.service
stop() { [ ! -e "$HOME/pid" ] || { kill "$(cat "$HOME/pid")"; rm "$HOME/pid"; sleep 1; }; }
case $1 in
    restart)
        stop
        rm -f "$HOME/died"
        nohup $(sed -n 's/^ExecStart=//p' "$unit") > "$HOME/log" 2>&1 < /dev/null &
        echo $! > "$HOME/pid"
        ;;
    disable) stop ;;
    show)
        kill -0 "$(cat "$HOME/pid" 2>/dev/null || echo none)" 2>/dev/null || echo 1 >> "$HOME/died"
        wc -l < "$HOME/died" 2>/dev/null || echo 0
        ;;
esac
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="the stand-in for systemd needs a user of its own")
def test_a_service_is_started_asked_and_rolled_back(
    server: Server, bundles: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    systemctl = server.home / "bin" / "systemctl"
    systemctl.parent.mkdir()
    systemctl.write_text(SYSTEMCTL)
    systemctl.chmod(0o755)
    port, path = str(free_port()), str(server.home / "service")
    words = ["--target", server.target(path), "--ssh", server.ssh, "--service", "--port", port, "--json"]
    ask = f"python3 -c 'import urllib.request as u; print(u.urlopen(\"http://127.0.0.1:{port}/v1/models\").read().decode())'"
    try:
        assert main(["deploy", str(bundles("1", one=1)), *words]) == 0
        assert '"one"' in server.run(ask)
        capsys.readouterr()
        assert main(["deploy", str(_break_base(bundles("3", one=4, two=5), tmp_path)), *words]) == 5
        assert "rolled back to generation 1" in json.loads(capsys.readouterr().out)[0]["error"]
        assert '"two"' not in server.run(f"sleep 3; {ask}")
    finally:
        server.run(f"if [ -e {path}/install.sh ]; then sh {path}/install.sh --uninstall; fi")
    assert not (server.home / ".config/systemd/user/edgekit.service").exists()


def test_a_kit_installs_rolls_back_and_uninstalls_by_hand(
    house: Wheelhouse, bundles: Callable[..., Path], tmp_path: Path
) -> None:
    """As from a USB stick: no ssh, the .tar and sh."""

    def sh(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["sh", *words], cwd=tmp_path, capture_output=True, text=True, check=False)

    prefix = tmp_path / "device"
    for version, seed in (("1", 1), ("2", 2)):
        with open_bundle(bundles(version, one=seed)) as bundle:
            archive = write_offline(bundle, house, tmp_path / f"kit-{version}.tar")
            assert archive.read_bytes() == write_offline(bundle, house, tmp_path / "again" / archive.name).read_bytes()
        shutil.unpack_archive(archive, tmp_path)
        done = sh(f"kit-{version}/install.sh", "--prefix", str(prefix))
        assert done.returncode == 0, done.stderr + done.stdout
    assert "installed already" in sh("kit-2/install.sh", "--prefix", str(prefix)).stdout
    back = sh(str(prefix / "install.sh"), "--rollback")
    assert "rolled back to generation 1" in back.stdout
    damaged = tmp_path / "kit-2" / "bundle" / "manifest.json"
    damaged.write_bytes(damaged.read_bytes() + b" ")
    refused = sh("kit-2/install.sh", "--prefix", str(prefix))
    assert (refused.returncode, "a file is damaged" in refused.stderr) == (3, True)
    assert sh(str(prefix / "install.sh"), "--uninstall").returncode == 0
    assert not prefix.exists()


def _break_base(sound: Path, folder: Path) -> Path:
    """Digests are right, and the header too: only the engine sees that a layer is missing."""
    bundle = shutil.copytree(sound, folder / "broken")
    manifest = read_manifest(bundle)
    base = bundle / manifest.base.file
    content = bytearray(base.read_bytes())
    at = content.index(b"llama.block_count") + len(b"llama.block_count") + 4  # past the value's type
    content[at] += 1
    base.write_bytes(content)
    digest = file_digest(base)
    files = tuple(replace(file, sha256=digest) if file.path == manifest.base.file else file for file in manifest.files)
    broken = replace(manifest, base=replace(manifest.base, digest=digest), files=files)
    (bundle / MANIFEST_FILE).write_bytes(broken.dump())
    return bundle
