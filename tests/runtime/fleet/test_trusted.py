"""What a device takes from its fleet's registry, and what it refuses."""

from __future__ import annotations

import datetime
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tuf.api.metadata import Metadata, MetaFile

from edgekit.fleet.operate import begin, renew, rotate
from edgekit_runtime.errors import InputError, TargetError
from edgekit_runtime.fleet.refusal import ISSUED
from tests import registry as registries
from tests.docker_registry import PROGRAM, running_docker_registry
from tests.fleet import WAITS, Device, Operator, content
from tests.registry import Registry

YEAR = datetime.timedelta(days=365)
Change = Callable[[Any], object]


def _refused(device: Device, operator: Operator, problem: str, hint: str = "") -> None:
    """With exit code 3; afterwards the device still takes what is sound."""
    with pytest.raises(InputError, match=problem) as error:
        device.read(operator)
    assert error.value.exit_code == 3
    assert hint in str(error.value.hint)


def _later(days: float) -> Change:
    def change(signed: Any) -> None:
        signed.version += 1
        signed.expires += datetime.timedelta(days=days)

    return change


def test_a_device_reads_what_the_fleet_says_now(operator: Operator, device: Device) -> None:
    assert device.read(operator) == content(1)
    assert device.read(operator, "other.json") is None
    operator.set({"line-3.json": content(2), "other.json": content(3)})
    assert device.read(operator) == content(2)
    assert device.read(operator, "other.json") == content(3)
    assert not list((device.store / "tmp").iterdir())


def test_a_poll_that_finds_nothing_new_asks_for_the_timestamp_alone(operator: Operator, device: Device) -> None:
    device.read(operator)
    operator.registry.forget()
    device.read(operator)
    asked = [path.rpartition("/")[2] for _, path, _ in operator.registry.asked if "/manifests/" in path]
    assert asked == ["2.root.json", "timestamp.json"]


def test_the_root_is_given_once(operator: Operator, device: Device, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="trusts no fleet yet"):
        Device(tmp_path / "another").trusted.begin(None)
    device.trusted.begin(None)
    device.trusted.begin(operator.root)
    rotate(operator.session(), "timestamp")
    device.read(operator)
    device.trusted.begin(operator.path / "metadata" / "2.root.json")
    with registries.running() as registry:
        stranger = Operator(tmp_path / "stranger", registry)
        stranger.begin()
        with pytest.raises(InputError, match="trusts another root"):
            device.trusted.begin(stranger.root)
    (tmp_path / "half.json").write_bytes(operator.root.read_bytes()[:-40])
    for wrong in ("half.json", "nothing.json"):
        with pytest.raises(InputError, match="no root of a fleet|can't be read"):
            device.trusted.begin(tmp_path / wrong)


def test_expired_metadata_is_refused_until_it_is_renewed(operator: Operator, device: Device) -> None:
    device.read(operator)
    fleet = operator.session().published.newest()
    operator.put("timestamp.json", operator.forged(fleet.timestamp, _later(-8)))
    _refused(device, operator, r"has expired \(timestamp.json on \d{4}", "edgekit keys renew")
    renew(operator.session())
    assert device.read(operator) == content(1)


def test_a_clock_a_year_ahead_is_told(operator: Operator, device: Device, tmp_path: Path) -> None:
    """All of it, the root too, expired a year ago."""
    shutil.rmtree(operator.path)
    operator.registry.manifests.clear()
    begin(operator.path, operator.reference, waits=WAITS)
    _expire_all(operator)
    fresh = Device(tmp_path / "fresh")
    fresh.trusted.begin(operator.root)
    _refused(fresh, operator, r"has expired \(.*root.json", "check the clock of this device; if it is right")


def _expire_all(operator: Operator) -> None:
    fleet = operator.session().published.newest()

    def expire(signed: Any) -> None:
        signed.expires -= 2 * YEAR

    root = operator.forged(fleet.root, expire)
    operator.root.write_bytes(root)
    timestamp = operator.forged(fleet.timestamp, expire)
    operator.put("timestamp.json", timestamp)
    operator.put("1.root.json", root)


def test_a_clock_a_year_behind_is_told(operator: Operator, device: Device) -> None:
    """With it nothing would ever expire."""
    fleet = operator.session().published.newest()

    def issued_later(signed: Any) -> None:
        signed.version += 1
        signed.unrecognized_fields[ISSUED] = (datetime.datetime.now(datetime.UTC) + YEAR).isoformat()

    operator.put("timestamp.json", operator.forged(fleet.timestamp, issued_later))
    _refused(device, operator, "was signed on .*, and the clock here says", "check the clock")


def test_what_was_published_before_is_refused_when_it_comes_again(operator: Operator, device: Device) -> None:
    old = dict(operator.registry.manifests)
    operator.set({"line-3.json": content(2)})
    assert device.read(operator) == content(2)
    operator.registry.manifests = old
    _refused(device, operator, "timestamp.json .* is older than what this device has seen", "replays old files")


@pytest.mark.parametrize("name", ["timestamp.json", "3.snapshot.json", "3.targets.json", "2.root.json"])
def test_what_others_have_signed_is_refused(operator: Operator, device: Device, tmp_path: Path, name: str) -> None:
    with registries.running() as registry:
        stranger = Operator(tmp_path / "stranger", registry)
        stranger.begin()
        fleet = operator.session().published.newest()
        if name == "2.root.json":
            operator.put(name, operator.forged(fleet.root, _later(0), signers=stranger.path / "keys"))
            return _refused(device, operator, "root was signed by 0/2 keys", "altered")
        operator.set({"line-3.json": content(2)})
        after = operator.session().published.newest()
        metadata = getattr(after, name.split(".")[-2])
        operator.put(name, operator.forged(metadata, _later(1), signers=stranger.path / "keys"))
        problem = "signed by 0/1 keys" if name == "timestamp.json" else "not the file that its metadata names"
        return _refused(device, operator, problem)


def test_a_root_that_too_few_of_the_old_keys_have_signed_is_refused(operator: Operator, device: Device) -> None:
    rotated = rotate(operator.session(), "root").root
    root = Metadata[Any].from_file(str(rotated))
    olds = Metadata[Any].from_file(str(operator.root)).signed.roles["root"].keyids
    assert sum(keyid in root.signatures for keyid in olds) == 3
    for keyid in olds[:2]:
        del root.signatures[keyid]
    operator.put("2.root.json", root.to_bytes())
    _refused(device, operator, "root was signed by 1/2 keys")


def test_snapshots_and_targets_of_other_times_do_not_go_together(operator: Operator, device: Device) -> None:
    before = operator.session().published.newest()
    after = operator.set({"line-3.json": content(2)})
    operator.put("3.targets.json", before.targets.to_bytes())
    _refused(device, operator, "3.targets.json .* is not the file that its metadata names", "another version")

    def name_other(signed: Any) -> None:
        signed.version += 1
        signed.snapshot_meta = MetaFile(3)  # no digest: versions alone

    operator.put("timestamp.json", operator.forged(after.timestamp, name_other))
    operator.put("3.snapshot.json", before.snapshot.to_bytes())
    shutil.rmtree(device.store / "fleet" / "metadata")
    _refused(device, operator, "3.snapshot.json .* is older than what this device has seen")


def test_a_channel_that_is_altered_is_refused(operator: Operator, device: Device) -> None:
    fleet = operator.set({"line-3.json": content(2)})
    digest = fleet.targets.signed.targets["line-3.json"].hashes["sha256"]
    operator.put(f"{digest}.line-3.json", content(3))
    _refused(device, operator, "line-3.json .* is not the file that its metadata names")


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["timestamp.json", "3.snapshot.json", "3.targets.json"]),
    share=st.floats(0, 1, exclude_max=True),
    damage=st.sampled_from(["cut", "flip"]),
)
def test_metadata_that_is_cut_short_or_damaged_anywhere_is_refused(
    operator: Operator, device: Device, name: str, share: float, damage: str
) -> None:
    if operator.session().published.newest().targets.signed.version == 2:
        operator.set({"line-3.json": content(2)})
    shutil.rmtree(device.store / "fleet", ignore_errors=True)
    device.trusted.begin(operator.root)
    whole = (operator.path / "metadata" / name).read_bytes()
    at = int(share * len(whole))
    broken = whole[:at] if damage == "cut" else whole[:at] + bytes([whole[at] ^ 0x01]) + whole[at + 1 :]
    operator.put(name, broken)
    try:
        _refused(device, operator, re.escape(name))
    finally:
        operator.put(name, whole)


def test_a_registry_that_is_away_changes_nothing(operator: Operator, device: Device) -> None:
    device.read(operator)
    before = device.files()
    operator.registry.stop()
    with pytest.raises(TargetError, match="can't be reached"):
        device.read(operator)
    assert device.files() == before
    operator.registry.start()
    assert device.read(operator) == content(1)


def test_a_fleet_that_was_never_published_is_named(device: Device, operator: Operator) -> None:
    operator.registry.manifests.clear()
    _refused(device, operator, "has no timestamp.json")


def test_damage_in_the_store_is_mended_from_the_registry_all_but_the_root(operator: Operator, device: Device) -> None:
    rotate(operator.session(), "timestamp")
    device.read(operator)
    for path in (device.store / "fleet").rglob("*.json"):
        if path.name != "root.json":
            path.write_bytes(b"")
    assert device.read(operator) == content(1)
    (device.store / "fleet" / "root.json").write_bytes(b"{")
    _refused(device, operator, "root.json can't be used", "--root root.json")


@pytest.mark.parametrize("role", ["root", "targets", "snapshot", "timestamp"])
def test_devices_follow_a_rotation_wherever_publishing_was_cut(
    operator: Operator, device: Device, tmp_path: Path, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each file that is written, devices old and new read the channel; then the operator tries again."""
    from edgekit.fleet import published

    put, cut = published.put_file, 0

    def breaking(connection: Any, name: str, file: bytes) -> None:
        nonlocal left
        if left == 0:
            raise TargetError("the line is cut", "try again")
        left -= 1
        put(connection, name, file)

    device.read(operator)
    done = False
    while not done:
        left, cut = cut, cut + 1
        monkeypatch.setattr(published, "put_file", breaking)
        try:
            rotate(operator.session(), role)
            done = True
        except TargetError:
            pass
        monkeypatch.setattr(published, "put_file", put)
        assert device.read(operator) == content(1)
        fresh = Device(tmp_path / f"device-{cut}")
        fresh.trusted.begin(operator.root)
        assert fresh.read(operator) == content(1)
    assert cut >= 2
    history = device.store / "fleet" / "metadata" / "root_history"
    assert (history / "2.root.json").exists()
    operator.set({"line-3.json": content(2)})
    assert device.read(operator) == content(2)


@pytest.mark.skipif(PROGRAM is None, reason="there is no docker-registry")
def test_debian_s_docker_registry_keeps_a_fleet(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with running_docker_registry(tmp_path) as server:
        operator = Operator(tmp_path / "fleet", Registry(host=server.host))
        operator.begin()
        operator.set({"line-3.json": content(1)})
        device = Device(tmp_path / "store")
        device.trusted.begin(operator.root)
        assert device.read(operator) == content(1)
        server.kill()
        with pytest.raises(TargetError):
            device.read(operator)
        server.start()
        rotate(operator.session(), "root")
        rotate(operator.session(), "timestamp")
        operator.set({"line-3.json": content(2)})
        assert device.read(operator) == content(2)
        assert (
            len(json.loads((device.store / "fleet/metadata/root_history/3.root.json").read_bytes())["signatures"]) == 3
        )
