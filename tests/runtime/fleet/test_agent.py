"""An agent makes its device run what the channel says, and takes back what does not do."""

from __future__ import annotations

import itertools
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from edgekit.fleet.rollout import abort, advance, pause, resume, start
from edgekit_runtime.cli import main
from edgekit_runtime.errors import InputError, TargetError
from edgekit_runtime.fleet import agent as agents
from edgekit_runtime.fleet.channel import Channel
from edgekit_runtime.fleet.service import Service
from edgekit_runtime.formats.bundle import read_manifest
from edgekit_runtime.formats.manifest import Manifest
from edgekit_runtime.registry.connection import Connection
from edgekit_runtime.registry.small_file import read_file
from tests import registry as registries
from tests.box import Box
from tests.fleet import WAITS, Operator
from tests.goods import Goods
from tests.service import serving

ALL = (100.0,)


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    with registries.running() as registry:
        made = Operator(tmp_path / "fleet", registry)
        made.begin()
        yield made


@pytest.fixture
def box(operator: Operator, tmp_path: Path) -> Box:
    return Box(tmp_path / "store", operator)


@pytest.fixture
def versions(goods: Goods) -> tuple[str, str]:
    read = [json.loads((each / "manifest.json").read_text())["version"] for each in (goods.bundle, goods.later_bundle)]
    return read[0], read[1]


def _start(operator: Operator, bundle: Path, waves: Sequence[float] = ALL) -> Channel:
    return start(operator.session(), "line-3", bundle, waves)[0]


def _in_wave(channel: Channel, wave: int) -> str:
    return next(name for name in map("box-{}".format, itertools.count()) if channel.wave_of(name) == wave)


def test_a_device_follows_its_channel_and_goes_back_when_it_is_aborted(
    operator: Operator, box: Box, goods: Goods, versions: tuple[str, str]
) -> None:
    _start(operator, goods.bundle)
    assert box.look().did == "installed"
    active = box.active()
    assert box.version() == versions[0]
    assert box.look().did == "nothing"
    _start(operator, goods.later_bundle)
    operator.registry.forget()
    assert box.look().did == "installed"
    assert box.version() == versions[1]
    abort(operator.session(), "line-3")
    operator.registry.forget()
    assert box.look().did == "installed"
    assert (box.version(), box.active()) == (versions[0], active)
    assert operator.registry.sent < 30_000  # nothing is downloaded again
    assert box.look().did == "nothing"


def test_only_devices_of_open_waves_run_what_is_new(
    operator: Operator, goods: Goods, tmp_path: Path, versions: tuple[str, str]
) -> None:
    _start(operator, goods.bundle)
    channel = _start(operator, goods.later_bundle, (50.0, 100.0))
    early, late = (Box(tmp_path / f"box-{wave}", operator, _in_wave(channel, wave)) for wave in (0, 1))
    assert [each.look().wave for each in (early, late)] == [1, 2]
    assert [each.version() for each in (early, late)] == [versions[1], versions[0]]
    pause(operator.session(), "line-3")
    assert [each.look().did for each in (early, late)] == ["nothing", "nothing"]
    resume(operator.session(), "line-3")
    advance(operator.session(), "line-3")
    late.look()
    assert late.version() == versions[1]


def test_a_bundle_that_does_not_do_is_taken_back_and_not_tried_again_in_this_rollout(
    operator: Operator, box: Box, goods: Goods, versions: tuple[str, str]
) -> None:
    _start(operator, goods.bundle)
    box.look()
    box.ill = lambda manifest: "it hangs" if manifest.version == versions[1] else None
    _start(operator, goods.later_bundle)
    with pytest.raises(
        InputError, match=r"does not work on this device \(it hangs\); generation 1 runs again"
    ) as error:
        box.look()
    assert error.value.exit_code == 3
    assert box.version() == versions[0]
    found = box.look()
    assert (found.did, found.failed, found.why.partition(": ")[2]) == ("nothing", True, "it hangs")
    abort(operator.session(), "line-3")
    box.look()
    box.ill = lambda _: None
    _start(operator, goods.later_bundle)
    assert box.look().did == "installed"
    assert box.version() == versions[1]


def test_a_first_bundle_that_does_not_do_is_told_and_stays(operator: Operator, box: Box, goods: Goods) -> None:
    _start(operator, goods.bundle)
    box.ill = lambda _: "it hangs"
    with pytest.raises(InputError, match=r"it hangs.*there is no earlier generation"):
        box.look()
    assert box.look().did == "nothing"


def test_a_device_that_goes_down_each_time_gets_what_it_had_before(
    operator: Operator, box: Box, goods: Goods, versions: tuple[str, str]
) -> None:
    """As when what is new makes the board reboot while it is tried."""
    _start(operator, goods.bundle)
    box.look()
    _start(operator, goods.later_bundle)

    def reboot(_: Manifest) -> None:
        raise KeyboardInterrupt

    box.ill = reboot
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            box.look()
        assert box.version() == versions[1]
    with pytest.raises(InputError, match="went down each time.*generation 1 runs again"):
        box.look()
    assert box.version() == versions[0]
    assert box.look().did == "nothing"


def test_a_device_that_goes_down_once_goes_on(operator: Operator, box: Box, goods: Goods) -> None:
    _start(operator, goods.bundle)

    def power_cut(_: Manifest) -> None:
        raise KeyboardInterrupt

    box.ill = power_cut
    with pytest.raises(KeyboardInterrupt):
        box.look()
    box.ill = lambda _: None
    assert box.look().did == "installed"
    assert box.store.number == 1


def test_what_the_engine_refuses_changes_nothing_and_is_not_downloaded_for_ever(
    operator: Operator, box: Box, goods: Goods, versions: tuple[str, str], tmp_path: Path
) -> None:
    _start(operator, goods.bundle)
    box.look()
    _start(operator, goods.other_base(tmp_path))
    box.refuses = "the engine crashes"
    for _ in range(3):
        with pytest.raises(InputError, match="the engine crashes"):
            box.look()
        assert (box.version(), box.store.number) == (versions[0], 1)
    trials = box.trials
    assert "the engine crashes" in box.look().why
    assert box.trials == trials


def test_an_adapter_that_the_service_has_set_aside_takes_the_bundle_back(
    operator: Operator, box: Box, goods: Goods, versions: tuple[str, str]
) -> None:
    _start(operator, goods.bundle)
    box.look()
    _start(operator, goods.later_bundle)
    box.look()
    manifest = box.store.bundle().manifest
    fresh = manifest.adapters[-1]
    box.store.refusals.note(fresh.digest, manifest.base.digest, manifest.engine, "the engine died of it twice")
    operator.registry.stop()
    with pytest.raises(InputError, match="the engine died of it twice.*generation 1 runs again"):
        box.look()
    operator.registry.start()
    assert box.version() == versions[0]
    assert box.look().did == "nothing"


def test_what_somebody_changes_on_the_device_is_put_right(
    operator: Operator, box: Box, goods: Goods, versions: tuple[str, str]
) -> None:
    _start(operator, goods.bundle)
    box.look()
    box.store.install(goods.two)
    assert box.look().did == "installed"
    assert box.active() == ["one 1.0.0"]
    (box.store.root / "current").write_text("?")
    assert box.look().did == "installed"
    assert box.version() == versions[0]


def test_a_registry_that_is_away_or_repeats_itself_changes_nothing(
    operator: Operator, box: Box, goods: Goods, versions: tuple[str, str], tmp_path: Path
) -> None:
    _start(operator, goods.bundle)
    box.look()
    old = dict(operator.registry.manifests)
    _start(operator, goods.other_base(tmp_path))
    operator.registry.busy = 100
    with pytest.raises(TargetError):
        box.look()
    operator.registry.busy = 0
    base = f"sha256:{read_manifest(tmp_path / 'other').base.digest}"
    content = operator.registry.blobs.pop(base)
    with pytest.raises(InputError, match="is missing"):
        box.look()
    assert box.version() == versions[0]
    operator.registry.blobs[base] = content
    operator.registry.cut_after = [20_000] * 3
    assert box.look().did == "installed"
    assert not operator.registry.cut_after
    operator.registry.manifests = old
    with pytest.raises(InputError, match="older than what this device has seen"):
        box.look()
    assert box.version() == versions[1]


def test_a_full_disk_is_no_verdict_on_a_bundle(
    operator: Operator, box: Box, goods: Goods, monkeypatch: pytest.MonkeyPatch
) -> None:
    _start(operator, goods.bundle)
    disk = shutil.disk_usage(box.store.root)
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda _: disk._replace(free=0))
        for _ in range(4):
            with pytest.raises(InputError, match="MiB free"):
                box.look()
    assert box.look().did == "installed"


def test_one_agent_at_a_time(operator: Operator, box: Box, goods: Goods) -> None:
    _start(operator, goods.bundle)
    with box.agent.at_work(operator.root), pytest.raises(InputError, match="another agent is at work"):
        box.look()
    assert box.look().did == "installed"


def test_an_agent_looks_again_later_and_later_while_things_fail(
    operator: Operator, box: Box, goods: Goods, caplog: pytest.LogCaptureFixture
) -> None:
    _start(operator, goods.bundle)
    slept: list[float] = []

    class EnoughError(Exception):
        pass

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 1:
            operator.registry.stop()
        if len(slept) == 4:
            operator.registry.start()
        if len(slept) == 6:
            raise EnoughError

    caplog.set_level(logging.INFO, logger="edgekit_runtime.fleet")
    with box.agent.at_work(operator.root), pytest.raises(EnoughError):
        box.agent.run(100, sleep)
    for seconds, expected in zip(slept, (100, 200, 400, 800, 100, 100), strict=True):
        assert 0.75 * expected <= seconds <= 1.25 * expected
    said = [record.message for record in caplog.records]
    assert sum("what runs goes on" in each for each in said) == 3
    assert sum("runs, as the channel says" in each for each in said) == 1
    assert max(agents.pause(100, failures) for failures in range(2000)) <= 1.25 * agents.LONGEST_SECONDS


def test_a_rate_is_kept_to(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, content = [0.0], os.urandom(100_000)
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr("time.sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    operator.put("large", content)
    connection = Connection(operator.reference, waits=WAITS, rate=50_000)
    assert read_file(connection, "large", 200_000) == content
    assert clock[0] == pytest.approx(2.0, rel=0.05)


def test_the_command_says_what_it_did_and_its_exit_code(
    operator: Operator, goods: Goods, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the real engine: the canary before the switch, doctor after it."""
    common = ["agent", "--store", str(tmp_path / "store"), "--fleet", str(operator.reference), "--channel", "line-3"]
    assert main([*common, "--once"]) == 3
    assert "give its root: --root root.json" in capsys.readouterr().err
    root = ["--root", str(operator.root)]
    assert main([*common, *root, "--once"]) == 3
    assert "has no channel line-3" in capsys.readouterr().err
    _start(operator, goods.bundle)
    assert main([*common, "--once", "--json", "--device-id", "box-7"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["did"], said["device"], said["wave"], said["generation"]) == ("installed", "box-7", 1, 1)
    assert main([*common, "--once"]) == 0
    assert "runs, as the channel says" in capsys.readouterr().out
    operator.registry.stop()
    assert main([*common, "--once"]) == 5
    assert main([*common, "--json"]) == 2
    assert main([*common, "--once", "--api-key-file", "key"]) == 2
    assert main([*common, "--once", "--interval", "soon"]) == 2
    assert main([*common, "--once", "--rate", "0"]) == 2
    assert main([*common, "--once", "--device-id", "box\n7"]) == 2
    assert main(["agent", "--fleet", "oci://registry.example", "--channel", "line-3", "--once"]) == 3
    operator.registry.start()
    _ends_as_told([*common, "--interval", "1h", "--rate", "2M"])


def _ends_as_told(words: list[str]) -> None:
    command = [sys.executable, "-m", "edgekit_runtime", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = process.stderr.readline()
    assert "line-3: " in line
    assert "runs, as the channel says" in line
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert process.stderr.read() == "stopped\n"


def test_a_service_answers_with_what_the_agent_installs(
    operator: Operator, goods: Goods, tmp_path: Path, box: Box
) -> None:
    _start(operator, goods.bundle)
    box.look()
    with serving(box.store.root) as service:
        watched = Service(service.url, patience=60)
        box.ill = watched.problem
        _start(operator, goods.later_bundle)
        assert box.look().did == "installed"
        names = {each["id"] for each in service.http.get("/v1/models").json()["data"]}
        assert {entry.name for entry in box.store.bundle().manifest.adapters} <= names
        other = Service("http://127.0.0.1:9", patience=0)
        assert "does not answer" in str(other.problem(box.store.bundle().manifest))


def test_the_unit_runs_the_command_that_printed_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["agent", "--store", str(tmp_path / "the store"), "--fleet", "oci://registry.example/team/fleet"]
    words += ["--channel", "line-3", "--root", str(tmp_path / "root.json"), "--rate", "2M", "--print-unit"]
    assert main(words) == 0
    text = capsys.readouterr().out
    command = next(line for line in text.splitlines() if line.startswith("ExecStart="))
    assert f'--store "{tmp_path}/the store" --fleet oci://registry.example/team/fleet --channel line-3' in command
    assert f"--interval 300s --rate 2097152 --root {tmp_path}/root.json" in command
    assert f'ReadWritePaths="{tmp_path}/the store"' in text
    assert not (tmp_path / "the store").exists()
    if shutil.which("systemd-analyze") is not None:
        (tmp_path / "edgekit-agent.service").write_text(text)
        run = subprocess.run(
            ["systemd-analyze", "verify", str(tmp_path / "edgekit-agent.service")], capture_output=True, text=True
        )
        assert not [line for line in run.stderr.splitlines() if "edgekit-agent.service" in line]


def test_reports_never_lie_among_the_fleets_own_files(
    operator: Operator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--fleet", str(operator.reference), "--channel", "line-3", "--once", "--store", str(tmp_path / "store")]
    assert main(["agent", *words, "--reports", str(operator.reference)]) == 2
    assert "is the fleet's own repository" in capsys.readouterr().err
