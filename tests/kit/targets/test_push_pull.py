"""Bundles into a registry and out of it: what is sent, what is refused, what a broken line leaves."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import pytest

from edgekit.cli import main
from edgekit.targets.pull import pull
from edgekit.targets.push import push
from edgekit_runtime.errors import InputError, TargetError, UsageError
from edgekit_runtime.formats.bundle import file_digest, verify_bundle
from edgekit_runtime.formats.signing import make_key, sign
from edgekit_runtime.registry.artifact import OCI_MANIFEST, SIGNATURE, Descriptor, signature_artifact
from edgekit_runtime.registry.connection import PUSH, Connection
from edgekit_runtime.registry.reference import Reference
from edgekit_runtime.registry.upload import put_referrer, upload_bytes
from tests import registry as registries
from tests.registry import Registry, digest_of
from tests.runtime.formats.test_manifest import document

WAITS = (0.01,) * 3


@pytest.fixture(autouse=True)
def no_logins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A signed bundle of the right form; its model files are not models."""
    root = tmp_path / "bundle"
    whole = document()
    for entry in whole["files"]:
        path = root / entry["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(entry["path"].encode() * 5000)
    make_key(tmp_path / "key")
    _rewrite(root, whole)
    return root


def _rewrite(root: Path, whole: dict[str, object]) -> None:
    for entry in whole["files"]:  # type: ignore[attr-defined]
        entry["size"], entry["sha256"] = (root / entry["path"]).stat().st_size, file_digest(root / entry["path"])
    whole["base"]["digest"] = whole["files"][0]["sha256"]  # type: ignore[index]
    whole["adapters"][0]["digest"] = whole["files"][1]["sha256"]  # type: ignore[index]
    (root / "manifest.json").write_text(json.dumps(whole))
    sign(root, root.parent / "key")


def _next_version(bundle: Path) -> None:
    """Another adapter over the same base."""
    whole = json.loads((bundle / "manifest.json").read_text())
    (bundle / whole["adapters"][0]["file"]).write_bytes(b"another adapter" * 5000)
    _rewrite(bundle, whole)


def _files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def _named(registry: Registry, name: str = ":1") -> Reference:
    return Reference.parse(f"oci://{registry.host}/team/line-3{name}")


@pytest.mark.parametrize("lists_referrers", [True, False])
def test_what_is_pulled_is_what_was_pushed_with_its_signature(
    bundle: Path, tmp_path: Path, lists_referrers: bool
) -> None:
    with registries.running(lists_referrers=lists_referrers) as registry:
        pushed = push(bundle, _named(registry), waits=WAITS)
        trust = tmp_path / "key.pub"
        pulled = pull(
            _named(registry, f"@sha256:{pushed.reference.digest}"), tmp_path / "out", trust=trust, waits=WAITS
        )
    assert _files(tmp_path / "out") == _files(bundle)
    assert (pushed.signed, pulled.signed) == (True, True)
    assert pushed.sent == pulled.downloaded == sum(file.size for file in verify_bundle(bundle).files)
    assert pulled.reference.digest == pushed.reference.digest
    assert not list(tmp_path.glob(".*"))


def test_the_artifact_is_one_that_other_tools_know(bundle: Path) -> None:
    with registries.running() as registry:
        pushed = push(bundle, _named(registry), waits=WAITS)
        kind, content = registry.manifests["1"]
        artifact = json.loads(content)
        assert kind == artifact["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
        assert digest_of(content) == f"sha256:{pushed.reference.digest}"
        assert artifact["artifactType"] == "application/vnd.edgekit.bundle.v1"
        assert registry.blobs[artifact["config"]["digest"]] == (bundle / "manifest.json").read_bytes()
        for layer in artifact["layers"]:
            content = (bundle / layer["annotations"]["org.opencontainers.image.title"]).read_bytes()
            assert (registry.blobs[layer["digest"]], layer["size"]) == (content, len(content))
        (signature,) = registry.referring_to(f"sha256:{pushed.reference.digest}")
        assert signature["artifactType"] == "application/vnd.edgekit.signature.v1"


def test_a_second_push_sends_what_is_new_alone_and_the_same_bundle_has_the_same_digest(bundle: Path) -> None:
    with registries.running() as registry:
        first = push(bundle, _named(registry), waits=WAITS)
        again = push(bundle, _named(registry, ":again"), waits=WAITS)
        assert (again.sent, again.reference.digest) == (0, first.reference.digest)
        assert len(registry.referring_to(f"sha256:{first.reference.digest}")) == 1
        _next_version(bundle)
        second = push(bundle, _named(registry), waits=WAITS)
        assert second.sent == len(b"another adapter" * 5000)
        assert second.reference.digest != first.reference.digest


@pytest.mark.parametrize("lists_referrers", [True, False])
def test_others_can_add_their_signatures_to_what_is_there(bundle: Path, tmp_path: Path, lists_referrers: bool) -> None:
    """As `oras attach` adds them."""
    make_key(tmp_path / "other")
    with registries.running(lists_referrers=lists_referrers) as registry:
        reference = push(bundle, _named(registry), waits=WAITS).reference
        trust = tmp_path / "other.pub"
        with pytest.raises(InputError, match="signed by nobody that other.pub knows"):
            pull(reference, tmp_path / "out", trust=trust, waits=WAITS)
        subject = Descriptor.of(registry.manifests["1"][1], OCI_MANIFEST)
        connection = Connection(reference, actions=PUSH, waits=WAITS)
        for signature in (b"no signature", sign(bundle, tmp_path / "other").read_bytes()):
            upload_bytes(connection, signature)
            put_referrer(connection, signature_artifact(signature, subject), subject.digest, SIGNATURE)
        assert pull(reference, tmp_path / "out", trust=trust, waits=WAITS).signed
        assert (tmp_path / "out" / "manifest.sig").read_bytes() == signature


def test_a_tar_is_pushed_as_its_folder_is(bundle: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "line-3.tar", "w") as tar:
        tar.add(bundle, "line-3")
    with registries.running() as registry:
        first = push(bundle, _named(registry), waits=WAITS)
        assert push(tmp_path / "line-3.tar", _named(registry), waits=WAITS).reference == first.reference


def test_a_push_survives_a_registry_that_is_busy(bundle: Path) -> None:
    with registries.running(busy=0) as registry:
        push(bundle, _named(registry, ":0"), waits=WAITS)
        registry.blobs.clear()
        registry.busy = 3
        with pytest.raises(TargetError, match="503"):
            push(bundle, _named(registry), waits=(0.01,))
        registry.busy = 3
        push(bundle, _named(registry), waits=WAITS)
        assert "1" in registry.manifests


def test_the_tag_appears_last(bundle: Path) -> None:
    with registries.running() as registry:
        push(bundle, _named(registry), waits=WAITS)
        written = [path for method, path, _ in registry.asked if method == "PUT"]
        assert written[-1].endswith("/manifests/1")


def test_a_pull_that_breaks_goes_on_and_takes_from_an_earlier_bundle_what_is_there(
    bundle: Path, tmp_path: Path
) -> None:
    with registries.running() as registry:
        push(bundle, _named(registry), waits=WAITS)
        registry.cut_after = [30_000, *[0] * 5]
        with pytest.raises(TargetError, match="are to come: run this again"):
            pull(_named(registry), tmp_path / "out", waits=WAITS)
        assert not (tmp_path / "out").exists()
        registry.cut_after = []
        whole = sum(file.size for file in verify_bundle(bundle).files)
        assert pull(_named(registry), tmp_path / "out", waits=WAITS).downloaded == whole - 30_000
        _next_version(bundle)
        push(bundle, _named(registry, ":2"), waits=WAITS)
        second = pull(_named(registry, ":2"), tmp_path / "out", waits=WAITS)
    assert second.downloaded == len(b"another adapter" * 5000)
    assert _files(tmp_path / "out") == _files(bundle)


def test_what_no_trusted_key_has_signed_is_not_downloaded(bundle: Path, tmp_path: Path) -> None:
    make_key(tmp_path / "stranger")
    with registries.running() as registry:
        push(bundle, _named(registry), waits=WAITS)
        with pytest.raises(InputError, match="altered or signed by nobody"):
            pull(_named(registry), tmp_path / "out", trust=tmp_path / "stranger.pub", waits=WAITS)
        (bundle / "manifest.sig").unlink()
        _next = json.loads((bundle / "manifest.json").read_text()) | {"version": "2"}
        (bundle / "manifest.json").write_text(json.dumps(_next))
        push(bundle, _named(registry), waits=WAITS)
        with pytest.raises(InputError, match="is not signed"):
            pull(_named(registry), tmp_path / "out", trust=tmp_path / "key.pub", waits=WAITS)
        assert not set(registry.downloads()) & {file.sha256 for file in verify_bundle(bundle).files}
    assert not (tmp_path / "out").exists()


def test_what_a_registry_alters_is_refused(bundle: Path, tmp_path: Path) -> None:
    manifest = verify_bundle(bundle)

    def refused(named: Reference, problem: str) -> None:
        with pytest.raises(InputError, match=problem) as error:
            pull(named, tmp_path / "out", waits=WAITS)
        assert error.value.exit_code == 3
        assert not (tmp_path / "out").exists()

    with registries.running() as registry:
        reference = push(bundle, _named(registry), waits=WAITS).reference
        kind, content = registry.manifests["1"]
        artifact = json.loads(content)
        adapter = manifest.files[1]
        registry.lies = {f"sha256:{adapter.sha256}": b"x" * adapter.size}
        refused(reference, f"{adapter.path} is not what its digest says")
        registry.lies = {artifact["config"]["digest"]: b"x" * artifact["config"]["size"]}
        refused(reference, "manifest.json is not what its digest says")
        registry.lies = {}
        del registry.blobs[f"sha256:{adapter.sha256}"]
        refused(reference, f"{adapter.path} is missing")
        registry.manifests[f"sha256:{reference.digest}"] = (kind, content + b" ")
        refused(reference, "is not what its digest says")
        for changed, problem in (
            ({"layers": artifact["layers"][1:]}, "no layer with the sha256 of the manifest"),
            ({"layers": [*artifact["layers"], artifact["config"]]}, "not listed in the manifest"),
            ({"layers": artifact["layers"] + artifact["layers"][:1]}, "the same title"),
            (
                {"config": artifact["config"] | {"mediaType": "application/vnd.oci.image.config.v1+json"}},
                "not a bundle",
            ),
            ({"config": artifact["config"] | {"digest": "sha512:00"}}, "a descriptor is none"),
            ({"mediaType": "application/vnd.oci.image.index.v1+json"}, "not one artifact"),
        ):
            registry.manifests["1"] = (kind, json.dumps(artifact | changed).encode())
            refused(_named(registry), problem)
        registry.manifests["1"] = (kind, b"[]")
        refused(_named(registry), "not one artifact")
        refused(_named(registry, ":2"), "there is no oci://")


def test_a_push_names_a_tag_and_a_pull_replaces_bundles_alone(bundle: Path, tmp_path: Path) -> None:
    with registries.running() as registry:
        with pytest.raises(UsageError, match="does not name a tag alone"):
            push(bundle, _named(registry, f"@sha256:{'0' * 64}"))
        push(bundle, _named(registry), waits=WAITS)
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.txt").write_text("mine")
        with pytest.raises(InputError, match="exists with other content"):
            pull(_named(registry), tmp_path / "out", waits=WAITS)
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"


def test_the_commands_say_digest_and_exit_codes(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with registries.running() as registry:
        assert main(["push", str(bundle), f"oci://{registry.host}/team/line-3:1", "--json"]) == 0
        pushed = json.loads(capsys.readouterr().out)
        assert pushed["reference"].startswith(f"oci://{registry.host}/team/line-3:1@sha256:")
        assert main(["pull", f"oci://{registry.host}/team/line-3:1", "--trust", "key.pub"]) == 0
        said = capsys.readouterr()
        assert f"oci://{registry.host}/team/line-3:1 is sha256:" in said.err
        assert said.out.splitlines()[0] == "dist/line-3"
        assert pushed["reference"] in said.out
        assert main(["pull", "line-3:1"]) == 3
        assert main(["push", "nothing", f"oci://{registry.host}/team/line-3:1"]) == 3
    assert main(["pull", f"oci://{registry.host}/team/line-3:1"]) == 5
    assert "can't be reached (Connection refused)" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "dist")
