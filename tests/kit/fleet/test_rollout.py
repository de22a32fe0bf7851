"""`edgekit rollout`: what each command changes, refuses and publishes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.cli import main
from edgekit_runtime.fleet.channel import Channel, Release
from tests import registry as registries
from tests.fleet import Device, Operator, model_less_bundle


@pytest.fixture
def operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Operator]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.chdir(tmp_path)
    with registries.running() as registry:
        made = Operator(tmp_path / "fleet", registry)
        made.begin()
        yield made


@pytest.fixture
def bundles(tmp_path: Path) -> tuple[Path, Path]:
    return model_less_bundle(tmp_path / "first", "1.0"), model_less_bundle(tmp_path / "second", "2.0")


def _seen(operator: Operator, tmp_path: Path) -> Channel:
    """By a device that has just come to the fleet."""
    device = Device(tmp_path / "store")
    device.trusted.begin(operator.root)
    content = device.read(operator)
    assert content is not None
    return Channel.parse(content, "line-3")


def _versions(channel: Channel) -> tuple[str, str | None]:
    return channel.bundle.version, channel.before and channel.before.version


def test_a_bundle_is_rolled_out_wave_by_wave_and_the_next_one_after_it(
    operator: Operator, bundles: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = bundles
    assert main(["rollout", "start", "line-3", str(first), "--waves", "10%,100%", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["bundle"]["reference"].startswith(f"{operator.reference}@sha256:")
    assert said["sent"] > 0
    seen = _seen(operator, tmp_path)
    assert (seen.waves, seen.opened, seen.state, seen.rollout) == ((10.0, 100.0), 1, "running", 1)
    assert _versions(seen) == ("1.0", None)
    assert main(["rollout", "start", "line-3", str(second)]) == 3
    assert "is under way: `edgekit rollout advance line-3`" in capsys.readouterr().err
    assert main(["rollout", "advance", "line-3"]) == 0
    assert _seen(operator, tmp_path).is_complete
    assert main(["rollout", "advance", "line-3"]) == 2
    assert main(["rollout", "start", "line-3", str(second)]) == 0
    assert _versions(_seen(operator, tmp_path)) == ("2.0", "1.0")
    assert main(["rollout", "abort", "line-3"]) == 0
    seen = _seen(operator, tmp_path)
    assert (seen.state, seen.wanted("box")) == ("aborted", seen.before)
    assert main(["rollout", "advance", "line-3"]) == 3
    assert main(["rollout", "start", "line-3", str(second), "--waves", "100"]) == 0
    seen = _seen(operator, tmp_path)
    assert _versions(seen) == ("2.0", "1.0")
    assert seen.rollout == 3
    assert isinstance(seen.wanted("box"), Release)
    assert {"line-3-1", "line-3-2", "line-3-3"} <= operator.registry.manifests.keys()


def test_a_rollout_is_paused_and_resumed(
    operator: Operator, bundles: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rollout", "start", "line-3", str(bundles[0])]) == 0
    assert main(["rollout", "resume", "line-3"]) == 3
    assert main(["rollout", "pause", "line-3"]) == 0
    assert _seen(operator, tmp_path).state == "paused"
    capsys.readouterr()
    assert main(["rollout", "advance", "line-3"]) == 3
    assert "`edgekit rollout resume line-3` first" in capsys.readouterr().err
    assert main(["rollout", "pause", "line-3"]) == 3
    assert main(["rollout", "resume", "line-3"]) == 0
    assert _seen(operator, tmp_path).state == "running"


def test_the_status_needs_no_keys_and_changes_need_them(
    operator: Operator, bundles: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rollout", "status"]) == 0
    assert capsys.readouterr().out == "there are no channels yet\n"
    assert main(["rollout", "start", "line-3", str(bundles[0])]) == 0
    stick = (operator.path / "keys").rename(tmp_path / "stick")
    capsys.readouterr()
    assert main(["rollout", "status", "--json"]) == 0
    (channel,) = json.loads(capsys.readouterr().out)["channels"]
    assert (channel["channel"], channel["opened"], channel["waves"]) == ("line-3", 1, [5.0, 25.0, 100.0])
    assert main(["rollout", "status", "line-3"]) == 0
    assert "[5%]  25%  100%" in capsys.readouterr().out
    assert main(["rollout", "advance", "line-3"]) == 3
    assert "targets-1" in capsys.readouterr().err
    operator.registry.forget()
    assert main(["rollout", "start", "line-4", str(bundles[1])]) == 3
    assert not [path for method, path, _ in operator.registry.asked if method != "GET"]
    assert main(["rollout", "advance", "line-3", "--keys", str(stick)]) == 0
    assert main(["rollout", "status", "line-4"]) == 3
    assert "channels: line-3" in capsys.readouterr().err


def test_waves_that_are_not_possible_are_wrong_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for waves in ("5%", "50,20,100", "x", "", "0,100", "nan,100", "inf"):
        assert main(["rollout", "start", "line-3", "nothing", f"--waves={waves}"]) == 2


def test_names_bundles_and_folders_that_are_none_are_told(operator: Operator, bundles: tuple[Path, Path]) -> None:
    assert main(["rollout", "start", "Line 3", str(bundles[0])]) == 2
    assert main(["rollout", "start", "line-3", "nothing"]) == 3
    assert main(["rollout", "status", "--folder", "nothing"]) == 3
    operator.registry.stop()
    assert main(["rollout", "status"]) == 5
