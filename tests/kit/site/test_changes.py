"""Versions, names and amounts of metadata are judged in a page as on other devices: the module's code, in Node.js."""

from __future__ import annotations

import json
import struct
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from edgekit_runtime.errors import InputError
from edgekit_runtime.formats.adapter import AdapterFacts
from edgekit_runtime.formats.gguf import ADAPTER_METADATA, read_gguf
from edgekit_runtime.formats.manifest import check_version
from edgekit_runtime.store.transitions import version_key
from tests.kit.site.test_intake import NODE
from tests.runtime.formats.test_gguf import METADATA, _with_metadata
from tests.tiny_gguf import matrices, write_lora

pytestmark = pytest.mark.skipif(NODE is None, reason="no Node.js: apt-get install nodejs")

VERSIONS = ["1.0", "1.9", "1.10", "1.0-rc1", "2026.01.01", "0", "1", "9" * 64, "9" * 63 + "8", "a", "v2"]
NO_VERSIONS = ["", "9" * 65, "9" * 5000, "1\n2", "1\x1b[2J", "1\x00", " 1", "é", "-1", 7, None, ["1"]]

SCRIPT = """
import { openAsBlob } from "node:fs";
const [folder, given, ...paths] = process.argv.slice(1);
const { versions, none, old, bundles, stacked } = JSON.parse(given);
const { checkVersion, compareVersions, withBundle } = await import(`${folder}/changes.js`);
const { readGguf, ADAPTER_METADATA } = await import(`${folder}/gguf.js`);
const { adapterEntry } = await import(`${folder}/adapter.js`);
async function tried(action) {
  try {
    await action();
    return "taken";
  } catch (error) {
    if (error.code === undefined) throw error;
    return error.message;
  }
}
const said = {
  order: versions.map((a) => versions.map((b) => compareVersions(a, b))),
  versions: await Promise.all([...versions, ...none].map((each) => tried(() => checkVersion(each, "it")))),
  bundles: await Promise.all(bundles.map(([each, options]) => tried(() => withBundle(old, each, options)))),
  long: await tried(() => adapterEntry({ pairs: new Map(), name: "n".repeat(200000) }, { label: "x.gguf" })),
  stacked: withBundle(old, stacked).manifest.adapters.map((entry) => entry.name),
  standard: withBundle(old, stacked).manifest.default_adapter,
  files: [],
};
for (const path of paths) {
  const file = await openAsBlob(path);
  said.files.push([await tried(() => readGguf(file, path, ADAPTER_METADATA)), await tried(() => readGguf(file, path))]);
}
console.log(JSON.stringify(said));
"""


def said_by_the_page(document: dict[str, Any], *paths: Path) -> dict[str, Any]:
    folder = files("edgekit_web") / "app" / "edgekit-runtime"
    command = [str(NODE), "--no-warnings", "--input-type=module", "-e", SCRIPT, str(folder), json.dumps(document)]
    done = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def state(version: str, adapter: str, family: str = "f") -> dict[str, Any]:
    entry = {"name": "one", "version": adapter, "digest": f"{adapter} {family}", "family": family}
    return {"name": "line-3", "version": version, "base": {"family": family}, "adapters": [entry]}


def ask(*paths: Path) -> dict[str, Any]:
    old = state("2.0", "1.5")
    bundles = [
        (state("2.1", "1.5"), {}),
        (state("1.9", "1.5"), {}),
        (state("2.1", "1.4"), {}),
        (state("2.1", "1.4", "another"), {}),
        (state("1.9", "1.4"), {"allowDowngrade": True}),
    ]
    current = {"manifest": old, "installed": old["adapters"]}
    other = state("2.1", "1.5")["adapters"][0] | {"name": "two", "digest": "2"}
    stacked = state("2.1", "1.5") | {"adapters": [other], "stacks": [{"name": "one", "adapters": []}]}
    stacked |= {"default_adapter": "one"}
    document = {"versions": VERSIONS, "none": NO_VERSIONS, "old": current, "bundles": bundles, "stacked": stacked}
    return said_by_the_page(document, *paths)


def taken(action: Any) -> bool:
    try:
        action()
    except (InputError, TypeError):
        return False
    return True


def test_versions_are_taken_and_ordered_as_elsewhere() -> None:
    said = ask()
    keys = [version_key(each) for each in VERSIONS]
    assert [[(a > 0) - (a < 0) for a in row] for row in said["order"]] == [
        [(a > b) - (a < b) for b in keys] for a in keys
    ]
    assert [each == "taken" for each in said["versions"]] == [
        taken(lambda each=each: check_version(each, "it")) for each in [*VERSIONS, *NO_VERSIONS]
    ]
    assert all("\n" not in each and "\x1b" not in each and len(each) < 300 for each in said["versions"])
    assert len(said["long"]) < 300


def test_an_older_bundle_or_adapter_is_taken_only_where_that_is_asked_for() -> None:
    newer, older, older_adapter, other_base, allowed = ask()["bundles"]
    assert [newer, other_base, allowed] == ["taken"] * 3
    assert "line-3 1.9 is older than 2.0" in older
    assert "one 1.4 is older than 1.5" in older_adapter


def test_a_stack_takes_the_place_of_an_earlier_adapter_of_its_name() -> None:
    assert ask()["stacked"] == ["two"]
    assert ask()["standard"] == "one"


def test_metadata_has_the_same_budget_as_elsewhere(tmp_path: Path) -> None:
    paths = [_with_metadata(tmp_path / f"{number}.gguf", [each]) for number, each in enumerate(METADATA.values())]
    small = struct.pack("<IQ", 8, 100_000) + b"x" * 100_000
    paths += [_with_metadata(tmp_path / "few.gguf", [small] * 8), _with_metadata(tmp_path / "many.gguf", [small] * 12)]
    paths.append(write_lora(tmp_path / "sound.gguf", matrices()))
    for name in (b"two\x00names", b""):
        path = tmp_path / f"name-{len(name)}.gguf"
        path.write_bytes(
            b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, len(name)) + name + struct.pack("<IQ", 8, 1) + b"x" + bytes(64)
        )
        paths.append(path)
    for path, (as_adapter, as_base) in zip(paths, ask(*paths)["files"], strict=True):
        assert (as_adapter == "taken") == taken(lambda path=path: read_gguf(path, budget=ADAPTER_METADATA)), path
        assert (as_base == "taken") == taken(lambda path=path: read_gguf(path)), path
    assert AdapterFacts.read(tmp_path / "sound.gguf")
