"""A page renders families' templates as devices do, or refuses the base; its template is another implementation."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgekit.site import probes
from edgekit.site.assets import vendored_files
from edgekit_runtime.template import TemplateFacts
from tests.chat_templates import TEMPLATES

TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
# What @huggingface/jinja gets wrong: lstrip with an argument; '' != false; dict().
REFUSED = {"smollm3", "command-r", "names"}
MODULE = Path(probes.__file__).parent / "app" / "edgekit-runtime"
SCRIPT = """
import fs from "fs";
import { Prompts } from "./edgekit-runtime/prompts.js";
const said = {};
for (const [name, { facts, metadata }] of Object.entries(JSON.parse(fs.readFileSync("families.json", "utf8")))) {
  const base = { metadata: new Map(Object.entries(metadata)) };
  try {
    said[name] = new Prompts(base, facts).knowsTools;
  } catch (error) {
    said[name] = error.message;
  }
  if (facts.probes.length < 7) said[name] = "too few probes";
}
console.log(JSON.stringify(said));
"""
pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


@pytest.fixture
def families(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    found = {}
    for name, form in TEMPLATES.items():
        metadata = TemplateFacts.of(form, TOKENS).metadata()
        metadata = {key: value for key, value in metadata.items() if value is not None}
        header = SimpleNamespace(path=name, metadata=metadata)
        monkeypatch.setattr(probes, "read_gguf", lambda _base, header=header: header)
        facts = probes.template_facts(Path(name), with_images=False)
        found[name] = {"facts": facts, "metadata": metadata}
    return found


def _page(folder: Path, families: dict[str, Any]) -> dict[str, Any]:
    shutil.copytree(MODULE, folder / "edgekit-runtime")
    for path, data in vendored_files():
        target = folder / "vendor" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "families.json").write_text(json.dumps(families))
    (folder / "run.js").write_text(SCRIPT)
    done = subprocess.run(["node", "run.js"], cwd=folder, capture_output=True, text=True, check=True)
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def test_families_templates_are_rendered_as_on_devices(families: dict[str, Any], tmp_path: Path) -> None:
    said = _page(tmp_path, families)
    assert {name for name, found in said.items() if found is not True} == REFUSED
    assert all("renders the base's chat template differently" in said[name] for name in REFUSED)


def test_what_differs_is_refused_and_tools_alone_cost_tools_alone(families: dict[str, Any], tmp_path: Path) -> None:
    chosen = {name: families[name] for name in ("qwen3", "llama3", "hermes")}
    switched = next(each for each in chosen["qwen3"]["facts"]["probes"] if "arguments" in each)
    switched["texts"] = [switched["texts"][0] + "x"]
    chosen["llama3"]["facts"]["moment"] = "2001-02-03T04:05:06"
    called = next(each for each in chosen["hermes"]["facts"]["probes"] if "tools" in each)
    called["texts"] = [called["texts"][0] + "x"]
    said = _page(tmp_path, chosen)
    assert said.pop("hermes") is False
    assert all("renders the base's chat template differently" in each for each in said.values())
