"""A page renders families' templates as devices do, or refuses the base; its template is another implementation."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import edgekit_web
from edgekit.site import probes
from edgekit.site.assets import vendored_files
from edgekit_exporters.hf.known_templates import KNOWN_TEMPLATES
from edgekit_runtime.errors import InputError
from edgekit_runtime.prompts.template import ChatTemplate, TemplateFacts
from tests.chat_templates import SILENT, TEMPLATES
from tests.conversations import conversations
from tests.kit.encoding.test_specials import WHOLE
from tests.runtime.prompts.test_budget import BROKEN, HOSTILE

TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
# What @huggingface/jinja gets wrong: lstrip with an argument; '' != false; dict().
REFUSED = {"smollm3", "command-r", "names"}
OTHERS = {"silent": SILENT, **{f"known {name}": each.source for name, each in KNOWN_TEMPLATES.items()}}
MODULE = Path(edgekit_web.__file__).parent / "app" / "edgekit-runtime"
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
HOSTILITY = """
import fs from "fs";
import { Template } from "./edgekit-runtime/template.js";
for (const [name, source] of Object.entries(JSON.parse(fs.readFileSync("families.json", "utf8")))) {
  const began = performance.now();
  let said = null;
  try {
    new Template(source).render({ messages: [{ role: "user", content: "x" }], tools: null });
  } catch (error) {
    said = error.message;
  }
  console.log(JSON.stringify([name, said, performance.now() - began]));
}
"""
SPELLING = """
import fs from "fs";
import { Prompts } from "./edgekit-runtime/prompts.js";
const said = [];
const { metadata, facts, asked } = JSON.parse(fs.readFileSync("families.json", "utf8"));
const prompts = new Prompts({ metadata: new Map(Object.entries(metadata)) }, facts);
for (const messages of asked) {
  said.push(prompts.chat(messages)[0]);
}
console.log(JSON.stringify(said));
"""
CONTROL = ["<|im_start|>", "<|im_end|>", "</s>", "[INST]"]
JOINER = "\u2060"
SPELT = re.compile("|".join(map(re.escape, CONTROL)))
pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


@pytest.fixture
def families(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    found = {}
    for name, form in (TEMPLATES | OTHERS).items():
        metadata = TemplateFacts.of(form, TOKENS).metadata()
        metadata = {key: value for key, value in metadata.items() if value is not None}
        header = SimpleNamespace(path=name, metadata=metadata)
        monkeypatch.setattr(probes, "read_gguf", lambda _base, header=header: header)
        facts = probes.template_facts(Path(name), with_images=False)
        found[name] = {"facts": facts, "metadata": metadata}
    return found


def _run(folder: Path, families: Any, script: str) -> str:
    shutil.copytree(MODULE, folder / "edgekit-runtime")
    for path, data in vendored_files():
        target = folder / "vendor" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "families.json").write_text(json.dumps(families))
    (folder / "run.js").write_text(script)
    command = ["node", "--max-old-space-size=1024", "run.js"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=900).stdout


def _page(folder: Path, families: dict[str, Any]) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(_run(folder, families, SCRIPT))
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


def test_a_hostile_template_ends_soon_in_a_page_too(tmp_path: Path) -> None:
    said = [json.loads(line) for line in _run(tmp_path, HOSTILE | BROKEN, HOSTILITY).splitlines()]
    assert [name for name, _, _ in said] == list(HOSTILE | BROKEN)
    assert all(milliseconds < 20_000 for _, _, milliseconds in said)
    assert all("\n" not in problem and len(problem) < 1000 for _, problem, _ in said if problem)
    told = {name: problem for name, problem, _ in said}
    assert "takes more than" in told["loops"] or "makes more than" in told["loops"]
    assert "chat template" in told["macros"]


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    talks=st.lists(conversations(), min_size=8, max_size=8),
    at=st.integers(0, 9),
    spelt=st.sampled_from([*CONTROL, WHOLE]),
)
@pytest.mark.parametrize("name", ["chatml", "qwen3", "zephyr", "mistral"])
def test_what_a_message_spells_is_text_in_a_page_too(
    name: str, talks: list[list[dict[str, Any]]], at: int, spelt: str
) -> None:
    form = TEMPLATES[name]
    metadata = {key: value for key, value in TemplateFacts.of(form, TOKENS).metadata().items() if value is not None}
    metadata |= {"tokenizer.ggml.tokens": ["a", *CONTROL], "tokenizer.ggml.token_type": [1] + [3] * len(CONTROL)}
    template = ChatTemplate.of(TemplateFacts.of(form, TOKENS))
    asked, expected = [], []
    for talk in talks:
        calm = [each | {"content": "b" * (each.get("content") is not None)} for each in talk if each["role"] != "tool"]
        calm = [{key: value for key, value in each.items() if key != "tool_calls"} for each in calm]
        mine = [each | {"content": f"{'x' * at}{spelt}{each['content']}"} for each in calm]
        try:
            control = SPELT.findall(template.render(calm))
            expected.append((template.render(mine), control))
        except InputError:
            continue
        asked.append(mine)
    facts = {"image": None, "probes": []}
    with tempfile.TemporaryDirectory() as folder:
        said = json.loads(_run(Path(folder), {"metadata": metadata, "facts": facts, "asked": asked}, SPELLING))
    for text, (wanted, control) in zip(said, expected, strict=True):
        assert SPELT.findall(text) == control
        assert text.replace(JOINER, "") == wanted
