"""A page reads calls from answers as devices do, where it can, and says so where it can't."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit_runtime.prompts.tool_format import Call
from tests.kit.site.test_templates import _run
from tests.runtime.prompts.test_tool_format import FORMS, TEXTS, written

READABLE = ("qwen2.5", "hermes", "mistral", "granite", "command-r", "envelopes", "edgekit")
SCRIPT = """
import fs from "fs";
import { checkForm, readCalls } from "./edgekit-runtime/tool-calls.js";
const { forms, asked, control } = JSON.parse(fs.readFileSync("families.json", "utf8"));
const refused = {};
for (const [name, form] of Object.entries(forms)) {
  try {
    checkForm(form, (text) => control.some((each) => text.includes(each)));
  } catch (error) {
    refused[name] = error.message;
  }
}
const read = asked.map(({ name, text }) => readCalls(forms[name], text));
console.log(JSON.stringify({ refused, read }));
"""
VALUES = st.integers(-(2**40), 2**40) | st.booleans() | st.none() | TEXTS | st.lists(TEXTS, max_size=2)
CALLS = st.builds(
    Call, st.sampled_from(["measure", "stop"]), st.dictionaries(st.sampled_from(["part", "size", "Größe"]), VALUES)
)
pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


def _asked(data: st.DataObject) -> list[dict[str, Any]]:
    texts = []
    for name in READABLE:
        calls = data.draw(st.lists(CALLS, min_size=1, max_size=2))
        text = written(name, calls, None)
        noise = st.sampled_from(["", "I look.", "\n", "<think>\nso\n</think>\n\n", "{", text[: len(text) // 2]])
        texts += [f"{data.draw(noise)}{text}{data.draw(noise)}", text[: data.draw(st.integers(0, len(text)))]]
        texts[-2:] = [{"name": name, "text": each} for each in texts[-2:]]
    return texts


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_calls_are_read_as_on_devices(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    asked = _asked(data)
    given_forms = {name: form.as_json() for name, form in FORMS.items()}
    families = {"forms": given_forms, "asked": asked, "control": []}
    said = json.loads(_run(tmp_path_factory.mktemp("page"), families, SCRIPT))
    for each, found in zip(asked, said["read"], strict=True):
        content, calls = FORMS[each["name"]].parse(each["text"])
        assert [(call["function"]["name"], call["function"]["arguments"]) for call in found["calls"]] == [
            (call.name, call.arguments) for call in calls
        ]
        assert found["text"] == content
        assert all(call["id"] for call in found["calls"])


@pytest.mark.parametrize("name", READABLE)
def test_white_space_around_calls_is_no_text_beside_text_elsewhere(tmp_path: Path, name: str) -> None:
    text = f"I look.{written(name, [Call('measure', {})], None)}\n"
    forms = {each: form.as_json() for each, form in FORMS.items()}
    families = {"forms": forms, "asked": [{"name": name, "text": text}], "control": []}
    (found,) = json.loads(_run(tmp_path, families, SCRIPT))["read"]
    assert (found["text"], len(found["calls"])) == (FORMS[name].parse(text)[0], 1)


def test_forms_that_a_page_cannot_read_are_refused(tmp_path: Path) -> None:
    forms = {name: form.as_json() for name, form in FORMS.items()}
    families = {"forms": forms, "asked": [], "control": ["<|tool_call|>"]}
    refused = json.loads(_run(tmp_path, families, SCRIPT))["refused"]
    assert set(refused) == set(FORMS) - set(READABLE) - {"qwen3"} | {"granite"}
    assert all("can't be read in a browser" in each for each in refused.values())
