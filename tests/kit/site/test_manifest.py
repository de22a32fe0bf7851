"""What manifests and adapters say of themselves is taken and refused in a page as elsewhere, in the same words."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from edgekit_runtime.errors import InputError, one_line, shown
from edgekit_runtime.formats.manifest import Manifest
from edgekit_runtime.formats.sampling_defaults import RULES
from tests.kit.site.test_intake import NODE, here, in_node
from tests.runtime.formats.test_manifest import DIGEST, document
from tests.runtime.formats.test_sampling_defaults import BAD
from tests.tiny_gguf import matrices, write_base, write_lora

pytestmark = pytest.mark.skipif(NODE is None, reason="no Node.js: apt-get install nodejs")

BAD_JSON = [each for each in BAD if "NaN" not in json.dumps(each)]  # Python takes NaN for JSON, and refuses it later
WHERE = "the bundle's manifest"
SCRIPT = """
import { readFileSync } from "node:fs";
const [folder, path] = process.argv.slice(1);
const { parseManifest } = await import(`${folder}/manifest.js`);
const { oneLine, shown } = await import(`${folder}/errors.js`);
const { texts, lines } = JSON.parse(readFileSync(path, "utf8"));
const said = texts.map((text) => {
  try {
    return { taken: parseManifest(new TextEncoder().encode(text)) };
  } catch (error) {
    if (error.code === undefined) throw error;
    return { refused: error.problem, code: error.code };
  }
});
const spelt = lines.map((each) => [shown(each), oneLine(each)]);
console.log(JSON.stringify({ said, lines: spelt, polluted: {}.polluted ?? null }));
"""

HTML = "<img src=x onerror=alert(1)>"
VALUES: list[Any] = [
    "base/q", None, True, False, 0, -1, 1, 1.5, 2**31, "", "x", HTML, "a\nb", "\x1b[2J", "\u202egnp", "a\u0000b",
    "x" * 257,
    "é" * 256, "\U0001f527" * 256, "n" * 200_000, [], [1], [HTML], ["a\nb"], [None], {}, {"file": "x"},
    {"__proto__": {"polluted": 1}}, {"constructor": {"prototype": {"polluted": 1}}}, {"max_tokens": "many"},
    {"temperature": -1}, {"top_p": None, "later": HTML}, {"gate": "perhaps"}, "..", "/x", "a//b", "a/./b", "a/../../b",
    "c:x", "a\\b", "a/", "/".join("a" * 17), "a" * 256, "é" * 128, "base/model.gguf/x", "base", "manifest.json",
]  # fmt: skip


def whole() -> dict[str, Any]:
    """A manifest with every field in it."""
    words = {"system": "terse", "generation": {"top_k": 1}, "schema": {}, "template_arguments": {}}
    found = copy.deepcopy(document(task="caption", default_adapter="a"))
    found["base"] |= {"projector": "base/p.gguf", "projector_digest": DIGEST, "merged": ["m"], **words}
    found["base"]["parts"] = [{"name": "q", "file": "base/q", "digest": DIGEST}]
    found["adapters"][0] |= words | {"quality": {}}
    part = {"name": "a", "scale": 0.5, "digest": DIGEST}
    found["stacks"] = [{"name": "s", "adapters": [part], "quality": {}, **words}]
    found["files"] += [{"path": path, "size": 1, "sha256": DIGEST} for path in ("base/p.gguf", "base/q")]
    return found


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for key, each in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(each, (*path, key))


def changed(path: tuple[Any, ...], value: Any = ...) -> str:
    """The manifest with another value, or without one."""
    found: Any = {"": whole()}
    *way, last = "", *path
    place = found
    for key in way:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(found.get(""))


TEXTS = [
    *(changed(path, value) for path in places(whole()) for value in VALUES),
    *(changed(path) for path in places(whole()) if path),
    *(changed((*at, "generation"), each) for at in (("base",), ("adapters", 0)) for each in BAD_JSON),
    *(changed((*path, "__proto__"), {"polluted": 1}) for path in ((), ("base",), ("adapters", 0), ("requires",))),
    *(changed(("adapters",), whole()["adapters"] * 2) for _ in (1,)),
    *(changed(("files",), whole()["files"] * 2) for _ in (1,)),
    *(changed(("stacks",), whole()["stacks"] * 2) for _ in (1,)),
    *(changed(("default_adapter",), name) for name in ("s", "both")),
    *(changed(("stacks", 0, "adapters"), whole()["stacks"][0]["adapters"] * many) for many in (2, 40)),
    *(changed(("stacks", 0, "name"), name) for name in ("a", "base", "Ä")),
    *(changed(("stacks", 0, "adapters", 0, "digest"), "1" * 64) for _ in (1,)),
    *(changed(("stacks", 0, "adapters", 0, "scale"), scale) for scale in (2, 2.5, 1e-300, 10**400, -(10**400))),
    *(changed(("quality",), json.loads('{"a":' * depth + "1" + "}" * depth)) for depth in (199, 200, 900)),
    *("", "{", "[]", "null", "[" * 100_000, "[" * 100_000 + "]" * 100_000, '{"schema": "\\ud800"}', '{"\\udc00": 1}'),
    *(changed(("base", "schema"), {"title": text}) for text in (HTML, "t" * 200_000, "\ud800", "a\udfffb")),
]


HUGE = 10**400
OTHERS = [each for each in [*VALUES, *(value for bad in BAD for value in bad.values())] if not isinstance(each, str)]
SPELT = {f" {shown(str(each))}": f" {shown(json.dumps(each, separators=(',', ':')))}" for each in OTHERS}
SPELT |= {f" {shown(str(HUGE))}": " 'Infinity'"}


def in_page(tmp_path: Path, texts: list[str], lines: list[str]) -> dict[str, Any]:
    given = tmp_path / "given.json"
    given.write_text(json.dumps({"texts": texts, "lines": lines}))
    folder = files("edgekit_web") / "app" / "edgekit-runtime"
    command = [str(NODE), "--no-warnings", "--input-type=module", "-e", SCRIPT, str(folder), str(given)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def elsewhere(text: str) -> str | None:
    """Why a manifest is refused on other devices; None when it is taken."""
    try:
        Manifest.parse(text, where=WHERE)
    except InputError as error:
        return error.problem
    return None


def test_a_manifest_is_taken_and_refused_as_elsewhere_in_the_same_words(tmp_path: Path) -> None:
    said = in_page(tmp_path, TEXTS, [])
    taken = 0
    for text, found in zip(TEXTS, said["said"], strict=True):
        expected, problem = elsewhere(text), found.get("refused")
        if expected is None:
            taken += 1
            only_here = problem and ("browsers can't run" in problem or "for another base" in problem)
            assert problem is None or only_here, (text[:300], problem)
            continue
        assert problem is not None, (text[:300], expected)
        if "is not JSON" in expected:
            assert f"{WHERE} is not JSON" in problem
        else:
            assert problem == as_json(expected)
    assert 100 < taken < len(TEXTS) / 2
    assert said["polluted"] is None


def as_json(problem: str) -> str:
    """A problem with the value as JSON spells it, and not as Python does."""
    return problem.replace(*next((each for each in SPELT.items() if each[0] in problem), ("", "")))


def test_only_fields_that_are_known_are_kept(tmp_path: Path) -> None:
    text = json.dumps(whole() | {"mood": "good", "constructor": 1, "toString": 1, "hasOwnProperty": 1})
    text = text.replace('"mood"', '"__proto__": {"gate": "passed"}, "mood"')
    (found,) = in_page(tmp_path, [text], [])["said"]
    assert found["taken"].keys() == whole().keys()
    assert found["taken"]["base"].keys() == whole()["base"].keys()


def test_names_in_errors_are_shown_as_elsewhere(tmp_path: Path) -> None:
    lines = [each for each in VALUES if isinstance(each, str)] + [
        "it's",
        'it\'s "so"',
        "\\",
        "\x85\u2028\u2029\r\nx",
        "\xa0",
    ]
    lines += ["\U0001f527" * 61, "é" * 60, "\x7f", "a\x1cb", "a\tb", "\ue000\u200b\u2066"]
    assert in_page(tmp_path, [], lines)["lines"] == [[shown(each), one_line(each)] for each in lines]


FACTS: list[dict[str, Any]] = [
    *({"edgekit.generation": json.dumps(each)} for each in BAD_JSON),
    *({"edgekit.generation": json.dumps({name: None})} for name in RULES),
    {"edgekit.generation": '{"later": {}, "top_k": 3, "top_p": 0.5, "temperature": 0, "max_tokens": 1}'},
    *(
        {f"edgekit.{key}": value}
        for key in ("generation", "output_schema", "template_arguments", "name", "version", "family", "system")
        for value in (
            7,
            "[]",
            "null",
            "{",
            '{"a": "\\ud800"}',
            '{"__proto__": {"polluted": 1}}',
            "[" * 10_000,
            HTML,
            "a\nb",
        )
    ),
    {"edgekit.output_schema": json.dumps({"title": "t" * 200_000, "enum": [HTML, "\u202e"]})},
    {"edgekit.system": "s" * 200_000},
    {"edgekit.system": "s" * 2_000_000},
]


def test_an_adapters_own_account_is_judged_as_elsewhere_in_the_same_words(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base.gguf")
    paths = [write_lora(tmp_path / f"{number}.gguf", matrices(), facts=each) for number, each in enumerate(FACTS)]
    taken = 0
    for path, facts, found in zip(paths, FACTS, in_node(base, *paths), strict=True):
        expected = here(base, path)
        if isinstance(expected, dict):
            taken += 1
            assert found == expected, facts
            continue
        assert isinstance(found, str), (str(facts)[:200], expected)
        assert found.startswith(as_json(expected)), (found[:300], expected[:300])
    assert 10 < taken < len(FACTS)
