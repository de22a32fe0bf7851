"""Roll-outs that go on by themselves, or stop themselves."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgekit.cli import main
from edgekit.fleet.devices import Devices, Known
from edgekit.fleet.rollout import start
from edgekit.fleet.watch import ABORT, ADVANCE, END, WAIT, judge, step
from edgekit_runtime.errors import InputError, TargetError
from edgekit_runtime.fleet.channel import Channel, Release
from edgekit_runtime.fleet.report import Report
from edgekit_runtime.registry.reference import Reference
from tests import registry as registries
from tests.box import Box
from tests.docker_registry import PROGRAM, running_docker_registry
from tests.fleet import WAITS, Operator
from tests.goods import Goods
from tests.registry import Registry

NOW = datetime.datetime(2026, 11, 28, 12, tzinfo=datetime.UTC)
BUNDLE = Release(Reference("registry.example", "team/fleet", digest="a" * 64), "line-3", "2")


def _ago(seconds: float) -> str:
    return (NOW - datetime.timedelta(seconds=seconds)).isoformat()


def _channel(**changed: Any) -> Channel:
    whole: dict[str, Any] = {"opened": 1, "state": "running", "advanced": _ago(1000), "soak": 600.0, "halt_after": 2}
    return Channel("line-3", 7, _ago(1000), BUNDLE, None, (10.0, 50.0, 100.0), **whole | changed)


def _members(channel: Channel, count: int, wave: int = 0) -> list[str]:
    names = (f"box-{number}" for number in itertools.count())
    return list(itertools.islice((each for each in names if channel.wave_of(each) == wave), count))


def _known(name: str, state: str = "well", rollout: int = 7, since: float = 700) -> Known:
    return Known(name, "k", 1, rollout, state, "it hangs" if state == "failed" else "", _ago(0), _ago(since))


def test_waves_open_when_devices_have_been_well_for_long_enough() -> None:
    channel = _channel()
    early, late = _members(channel, 4), _members(channel, 4, wave=2)

    def act(devices: list[Known], channel: Channel = channel) -> str:
        return judge(channel, devices, NOW).act

    others = [_known(name, "waiting") for name in late]
    assert act([]) == WAIT
    assert act([*others, *(_known(name) for name in early)]) == ADVANCE
    assert act([*others, *(_known(name, since=500) for name in early)]) == WAIT
    assert act([_known(name) for name in early], _channel(advanced=_ago(500))) == WAIT
    asleep = [_known(name, rollout=6) for name in early[:2]]
    assert act([*asleep, *(_known(name) for name in early[2:])]) == ADVANCE
    assert act([*asleep, _known(early[2]), _known(early[3], "waiting")]) == WAIT
    assert act(others) == ADVANCE  # the first wave of a small fleet is empty
    assert act(others, _channel(advanced=_ago(500))) == WAIT
    assert act([_known(name) for name in early], _channel(state="paused")) == WAIT
    assert act([_known(name) for name in [*early, *late]], _channel(opened=3)) == END
    assert act([_known(name) for name in early], _channel(state="aborted")) == END


@pytest.mark.parametrize("state", ["running", "paused"])
def test_failures_halt_a_rollout_in_whatever_wave_they_are(state: str) -> None:
    channel = _channel(state=state, opened=3)
    first, second = _members(channel, 1)[0], _members(channel, 1, wave=2)[0]
    earlier = _known(second, "failed", rollout=6)
    assert judge(channel, [_known(first, "failed"), earlier], NOW).act != ABORT
    verdict = judge(channel, [_known(first, "failed"), _known(second, "failed")], NOW)
    assert (verdict.act, verdict.why) == (ABORT, f"{first}: it hangs; {second}: it hangs")


def test_a_thousand_devices_a_third_asleep_and_a_bad_bundle_touch_one_wave() -> None:
    """Devices act and report once a minute; the operator looks once a minute."""
    names, good = [f"box-{number}" for number in range(1000)], _channel(advanced=_ago(0), halt_after=3)
    awake = [name for number, name in enumerate(names) if number % 3]
    for bad in (False, True):
        channel, known, touched = good, {name: _known(name, rollout=6) for name in names}, set()
        for minute in range(60):
            now = NOW + datetime.timedelta(minutes=minute)
            verdict = judge(channel, list(known.values()), now)
            if verdict.act in (ABORT, END):
                break
            if verdict.act == ADVANCE:
                channel = dataclasses.replace(channel, opened=channel.opened + 1, advanced=now.isoformat())
            for name in awake:
                if channel.wanted(name) == BUNDLE and name not in touched:
                    touched.add(name)
                    state = "failed" if bad else "well"
                    known[name] = dataclasses.replace(_known(name, state), since=now.isoformat())
        assert verdict.act == (ABORT if bad else END)
        assert len(touched) == (len([n for n in awake if good.wave_of(n) == 0]) if bad else len(awake))
        assert not bad or len(touched) < 0.1 * len(names)


@pytest.fixture
def operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Operator]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    with registries.running() as registry:
        made = Operator(tmp_path / "fleet", registry)
        made.begin()
        yield made


@pytest.fixture
def reports() -> Iterator[Registry]:
    with registries.running() as registry:
        yield registry


def _place(registry: Registry) -> Reference:
    return Reference.parse_repository(f"oci://{registry.host}/reports")


def test_a_rollout_opens_its_waves_and_a_bad_one_is_taken_back(
    operator: Operator,
    reports: Registry,
    goods: Goods,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    start(operator.session(), "line-3", goods.bundle, (50.0, 100.0), soak=0)
    boxes = [Box(tmp_path / name, operator, name, _place(reports)) for name in _in_the_same_wave_twice()]
    watch = ["rollout", "watch", "line-3", "--reports", str(_place(reports)), "--once", "--json"]

    def look() -> list[str]:
        for box in boxes:
            with contextlib.suppress(InputError):  # it says no to the bad one
                box.look()
        return [str(box.version()) for box in boxes]

    def act(code: int = 0) -> str:
        assert main(watch) == code
        return str(json.loads(capsys.readouterr().out)["did"])

    assert act() == WAIT
    (first,) = {version for version in look() if version != "None"}
    assert act() == ADVANCE
    assert look() == [first, first]
    assert act() == END
    capsys.readouterr()

    start(operator.session(), "line-3", goods.later_bundle, (50.0, 100.0), soak=0)
    for box in boxes:
        box.ill = lambda manifest: "it hangs" if manifest.version != first else None
    numbers = [box.store.number for box in boxes]
    assert look() == [first, first]
    assert act(5) == ABORT
    assert look() == [first, first]
    assert act() == END
    assert boxes[1].store.number == numbers[1]  # it never had the bad one
    assert {json.loads(content)["schema"] for content in reports.blobs.values() if b"report" in content} == {
        "edgekit.device-report/1"
    }


def _in_the_same_wave_twice() -> list[str]:
    """A device of the first wave and one of the second, in both roll-outs."""
    channels = [dataclasses.replace(_channel(), rollout=number, waves=(50.0, 100.0)) for number in (1, 2)]
    names = [f"box-{number}" for number in range(100)]
    return [next(name for name in names if {each.wave_of(name) for each in channels} == {wave}) for wave in (0, 1)]


def test_a_device_says_something_when_there_is_something_to_say(
    operator: Operator, reports: Registry, goods: Goods, tmp_path: Path
) -> None:
    start(operator.session(), "line-3", goods.bundle, (100.0,))
    box = Box(tmp_path / "store", operator, "box-1", _place(reports))
    for _ in range(3):
        box.look()
    assert [method for method, path, _ in reports.asked if "/manifests/" in path] == ["PUT"]
    reports.stop()
    box.ill = lambda _: "it hangs"
    start(operator.session(), "line-3", goods.later_bundle, (100.0,))
    with pytest.raises(InputError, match="it hangs"):
        box.look()  # what can't be said changes nothing
    reports.start()
    box.look()
    devices = Devices(operator.path, "line-3")
    devices.hear(_place(reports), waits=WAITS)
    (known,) = devices.known(datetime.datetime.now(datetime.UTC))
    assert (known.device, known.state, known.why, known.number) == ("box-1", "failed", "it hangs", 2)


def test_strangers_old_reports_and_rubbish_are_passed_over(
    operator: Operator, reports: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = Operator(tmp_path, reports)
    own, stranger = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    well = Report("line-3", "box-1", 7, "well", "a" * 64, "", "2026-11-28T12:00:00+00:00", 5)
    failed = dataclasses.replace(well, state="failed", why="it\x1b[2J hangs", number=6)

    def hear() -> list[tuple[str, str]]:
        devices = Devices(operator.path, "line-3")
        devices.hear(_place(reports), waits=WAITS)
        return [(each.device, each.state) for each in devices.known(datetime.datetime.now(datetime.UTC))]

    def refused(content: bytes, problem: str, tag: str = well.tag) -> None:
        caplog.clear()
        writer.put(tag, content)
        assert hear() == [("box-1", "well")]
        assert problem in caplog.text

    writer.put(well.tag, well.signed(own))
    writer.put("latest", b"another tag")
    assert hear() == [("box-1", "well")]
    refused(failed.signed(stranger), "signed by another key than its first one")
    refused(dataclasses.replace(failed, number=4).signed(own), "is an old one")
    refused(b"{}", "no report of a device")
    refused(dataclasses.replace(failed, device="box-2").signed(own), "of another device or channel")
    refused(b"x" * 20_000, "more than the")
    writer.put(well.tag, failed.signed(own))
    assert hear() == [("box-1", "failed")]
    file = operator.path / "devices" / "line-3.json"
    since, why = (json.loads(file.read_text())["devices"][0][name] for name in ("since", "why"))
    assert why == r"it\x1b[2J hangs"
    writer.put(well.tag, dataclasses.replace(failed, number=7).signed(own))
    hear()
    assert json.loads(file.read_text())["devices"][0]["since"] == since
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=31)
    assert Devices(operator.path, "line-3").known(later) == []
    file.write_text("{}")
    with pytest.raises(InputError, match="is damaged"):
        hear()


def test_watching_goes_on_when_the_registry_comes_back(
    operator: Operator, goods: Goods, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgekit.fleet import watch

    channel = start(operator.session(), "line-3", goods.bundle, (100.0,))[0]
    steps: list[Callable[[], object]] = []
    answers = iter([TargetError("away", "wait"), watch.Verdict(WAIT, "x"), watch.Verdict(END, "all well")])

    def one_step() -> tuple[Channel, watch.Verdict]:
        answer = next(answers)
        if isinstance(answer, TargetError):
            raise answer
        return channel, answer

    monkeypatch.setattr("time.sleep", steps.append)
    assert watch.watch(one_step, 30.0)[1].act == END
    assert steps == [30.0, 30.0]
    with pytest.raises(InputError, match="there is no channel line-4"):
        step(operator.session(), "line-4", operator.reference, waits=WAITS)
    monkeypatch.chdir(operator.path.parent)
    assert main(["rollout", "watch", "line-4", "--reports", str(operator.reference)]) == 3
    assert main(["rollout", "watch", "line-3"]) == 2
    assert main(["rollout", "watch", "line-3", "--reports", "reports"]) == 3


@pytest.mark.skipif(PROGRAM is None, reason="there is no docker-registry")
def test_debian_s_docker_registry_keeps_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    with running_docker_registry(tmp_path) as server:
        devices = Devices(tmp_path, "line-3")
        place = Reference.parse_repository(f"oci://{server.host}/team/fleet")
        devices.hear(place, waits=WAITS)
        writer = Operator(tmp_path, Registry(host=server.host))
        for number in range(3):
            report = Report("line-3", f"box-{number}", 1, "well", None, "", "2026-11-28T12:00:00+00:00", 1)
            writer.put(report.tag, report.signed(Ed25519PrivateKey.generate()))
        devices.hear(place, waits=WAITS)
        assert len(devices.known(datetime.datetime.now(datetime.UTC))) == 3
