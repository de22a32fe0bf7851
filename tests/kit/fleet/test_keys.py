"""`edgekit keys`: what it makes, publishes and says is missing."""

from __future__ import annotations

import datetime
import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata

from edgekit.cli import main
from edgekit.fleet.folder import Lifetimes
from edgekit.fleet.operate import renew, rotate
from edgekit_runtime.errors import InputError, TargetError, UsageError
from tests import registry as registries
from tests.fleet import Device, Operator, content
from tests.registry import Registry


@pytest.fixture(autouse=True)
def no_logins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


@pytest.fixture
def registry() -> Iterator[Registry]:
    with registries.running() as running:
        yield running


@pytest.fixture
def operator(registry: Registry, tmp_path: Path) -> Operator:
    made = Operator(tmp_path / "fleet", registry)
    made.begin()
    return made


@pytest.fixture
def away(operator: Operator, tmp_path: Path) -> Path:
    """Keys of root and targets, which lie somewhere else."""
    stick = tmp_path / "stick"
    stick.mkdir()
    for path in (operator.path / "keys").glob("[rt][oa][or]*"):
        path.rename(stick / path.name)
    return stick


def test_the_commands_make_rotate_and_renew(
    registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = f"oci://{registry.host}/team/fleet"
    assert main(["keys", "init", "fleet", "--registry", place, "--timestamp-days", "3", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["root"].endswith("fleet/metadata/1.root.json")
    assert set(said["expires"]) == {"root", "targets", "snapshot", "timestamp"}
    assert main(["keys", "rotate", "fleet", "root", "--key", "root-2"]) == 0
    assert "for devices: fleet/metadata/2.root.json" in capsys.readouterr().out
    assert main(["keys", "renew", "fleet"]) == 0
    written = [path.rpartition("/")[2] for method, path, _ in registry.asked if method == "PUT" and "manifests" in path]
    assert written == [
        *("1.targets.json", "1.snapshot.json", "timestamp.json", "1.root.json"),
        *("2.root.json", "timestamp.json"),
    ]
    assert main(["keys", "init", "another", "--registry", place]) == 3
    assert main(["keys", "init", "another", "--registry", f"{place}:1"]) == 3
    assert main(["keys", "init", "another", "--registry", f"{place}2", "--root-keys", "1"]) == 2
    assert not (tmp_path / "another").exists()
    assert main(["keys", "renew", "another"]) == 3
    assert main(["keys", "rotate", "fleet", "timestamp", "--key", "root-1"]) == 2
    assert main(["keys", "rotate", "fleet", "captain"]) == 2
    registry.stop()
    assert main(["keys", "renew", "fleet"]) == 5


def test_private_keys_are_for_their_owner_alone(operator: Operator) -> None:
    keys = sorted(path.name for path in (operator.path / "keys").glob("*.key"))
    assert keys == ["root-1.key", "root-2.key", "root-3.key", "snapshot-1.key", "targets-1.key", "timestamp-1.key"]
    for name in keys:
        assert stat.S_IMODE((operator.path / "keys" / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((operator.path / "keys").stat().st_mode) == 0o700


def test_renewing_needs_the_keys_of_timestamp_and_snapshot_alone(operator: Operator, away: Path) -> None:
    assert not list((operator.path / "keys").glob("root*"))
    before = operator.session().published.newest()
    assert renew(operator.session()).lacking == {}
    after = operator.session().published.newest()
    assert after.timestamp.signed.version == before.timestamp.signed.version + 1
    assert after.snapshot.signed.version == before.snapshot.signed.version
    (operator.path / "keys" / "timestamp-1.key").rename(away / "timestamp-1.key")
    problem = r"timestamp.json has to be signed by 1 of the keys of timestamp, and 0 of 1 .* \(missing: timestamp-1\)"
    with pytest.raises(InputError, match=problem) as error:
        renew(operator.session())
    assert "--keys DIR" in str(error.value.hint)
    renew(operator.session(away))


def test_what_expires_soon_is_renewed_where_its_keys_are(registry: Registry, tmp_path: Path) -> None:
    operator = Operator(tmp_path / "fleet", registry)
    operator.begin()
    settings = json.loads((operator.path / "fleet.json").read_text())
    settings["days"] = {"root": 2000, "targets": 400, "snapshot": 60, "timestamp": 7}
    (operator.path / "fleet.json").write_text(json.dumps(settings))
    stick = tmp_path / "stick"
    stick.mkdir()
    for number in (1, 2):
        (operator.path / "keys" / f"root-{number}.key").rename(stick / f"root-{number}.key")
    assert renew(operator.session()).lacking == {"root": ["root-1", "root-2"]}
    fleet = operator.session().published.newest()
    versions = [each.signed.version for each in (fleet.root, fleet.targets, fleet.snapshot)]
    assert versions == [1, 2, 2]
    assert renew(operator.session(stick)).lacking == {}
    assert operator.session().published.newest().root.signed.version == 2
    device = Device(tmp_path / "store")
    device.trusted.begin(operator.root)
    assert device.read(operator) is None


def test_a_rotation_that_lacks_keys_makes_none(operator: Operator, away: Path) -> None:
    before = sorted(path.name for path in (operator.path / "keys").iterdir())
    with pytest.raises(InputError, match="needs keys of root, missing: root-1, root-2, root-3"):
        rotate(operator.session(), "timestamp")
    assert sorted(path.name for path in (operator.path / "keys").iterdir()) == before
    rotate(operator.session(away), "timestamp")
    assert (operator.path / "keys" / "timestamp-2.key").exists()
    (operator.path / "keys" / "timestamp-1.key").unlink()
    renew(operator.session())


def test_a_lost_timestamp_key_is_replaced(operator: Operator, tmp_path: Path) -> None:
    (operator.path / "keys" / "timestamp-1.key").unlink()
    rotate(operator.session(), "timestamp")
    device = Device(tmp_path / "store")
    device.trusted.begin(operator.root)
    assert device.read(operator) is None


def test_two_folders_of_one_fleet_take_turns(operator: Operator, tmp_path: Path) -> None:
    """One machine renews, another one changes channels."""
    import shutil

    other = Operator(Path(shutil.copytree(operator.path, tmp_path / "copy")), operator.registry)
    operator.set({"line-3.json": content(1)})
    rotate(other.session(), "snapshot")
    shutil.copy(other.path / "keys" / "snapshot-2.key", operator.path / "keys")
    operator.set({"line-3.json": content(2)})
    renew(other.session())
    device = Device(tmp_path / "store")
    device.trusted.begin(operator.root)
    assert device.read(operator) == content(2)


def test_a_registry_that_has_lost_all_gets_the_fleet_back(operator: Operator, tmp_path: Path) -> None:
    operator.set({"line-3.json": content(1)})
    rotate(operator.session(), "root")
    device = Device(tmp_path / "store")
    device.trusted.begin(operator.root)
    device.read(operator)
    operator.registry.manifests.clear()
    operator.registry.blobs.clear()
    renew(operator.session())
    assert device.read(operator) == content(1)
    fresh = Device(tmp_path / "fresh")
    fresh.trusted.begin(operator.root)
    assert fresh.read(operator) == content(1)


def test_a_fleet_is_never_begun_over_another_and_its_keys_stay(operator: Operator) -> None:
    keys = sorted(path.name for path in (operator.path / "keys").iterdir())
    with pytest.raises(InputError, match="is the folder of a fleet already.*keep its keys"):
        operator.begin()
    assert sorted(path.name for path in (operator.path / "keys").iterdir()) == keys


def test_nothing_is_signed_with_a_clock_that_is_behind(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(operator.registry.manifests)
    session = operator.session()
    session.maker._now -= datetime.timedelta(days=30)
    with pytest.raises(InputError, match="check the clock"):
        renew(session)
    assert operator.registry.manifests == before


def test_a_fleet_that_has_expired_or_is_lost_is_told_to_whoever_looks(
    operator: Operator, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = operator.session().published.newest()
    ended = datetime.datetime.now(datetime.UTC).replace(microsecond=0) - datetime.timedelta(days=1)
    operator.put("timestamp.json", operator.forged(fleet.timestamp, lambda signed: setattr(signed, "expires", ended)))
    assert operator.session().published.newest().timestamp.signed.expires == ended
    assert "timestamp.json expired on" in caplog.text
    operator.registry.manifests.clear()
    operator.session().published.newest()
    assert "has lost the fleet" in caplog.text


def test_an_old_registry_and_altered_metadata_are_refused(operator: Operator, tmp_path: Path) -> None:
    old = dict(operator.registry.manifests)
    renew(operator.session())
    operator.registry.manifests = old
    with pytest.raises(InputError, match="older than 2, which was published before.*renew --restore"):
        renew(operator.session())
    device = Device(tmp_path / "store")
    device.trusted.begin(operator.root)
    renew(operator.session(), restore=True)
    assert device.read(operator) is None  # a fleet without channels, and sound
    assert Metadata.from_bytes(operator.session().published.newest().timestamp.to_bytes()).signed.version == 3
    fleet = operator.session
    operator.put("timestamp.json", b"{}")
    with pytest.raises(InputError, match="is no metadata"):
        renew(fleet())
    with registries.running() as registry:
        stranger = Operator(tmp_path / "stranger", registry)
        stranger.begin()
        operator.put("timestamp.json", (stranger.path / "metadata" / "timestamp.json").read_bytes())
        with pytest.raises(InputError, match="refused .*signed by 0/1 keys"):
            renew(operator.session())


def test_a_fleet_that_could_not_be_published_is_by_renewing(registry: Registry, tmp_path: Path) -> None:
    operator = Operator(tmp_path / "fleet", registry)
    from edgekit.fleet import published

    put = published.put_file
    with pytest.MonkeyPatch.context() as patch:

        def breaking(*arguments: object) -> None:
            raise TargetError("the line is cut", "try again")

        patch.setattr(published, "put_file", breaking)
        with pytest.raises(TargetError, match="is made; publish it: `edgekit keys renew"):
            operator.begin()
    assert published.put_file is put
    renew(operator.session())
    device = Device(tmp_path / "store")
    device.trusted.begin(operator.root)
    assert device.read(operator) is None


def test_settings_that_are_not_possible_are_told(operator: Operator) -> None:
    file = operator.path / "fleet.json"
    whole = json.loads(file.read_text())
    for changed, problem in (
        ({"days": whole["days"] | {"root": 0}}, "days are not possible"),
        ({"days": {"root": 1}}, "days are not possible"),
        ({"schema": "edgekit.fleet/2"}, "is damaged"),
        ({"registry": "registry.example"}, "names no repository"),
    ):
        file.write_text(json.dumps(whole | changed))
        with pytest.raises(InputError, match=problem):
            operator.session()


def test_a_threshold_has_to_be_met(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="2 of 1 root keys"):
        Operator(tmp_path / "fleet", registry).begin(root_keys=1, lifetimes=Lifetimes(timestamp=1))
    assert not (tmp_path / "fleet").exists()
