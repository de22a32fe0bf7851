"""The JSON Schema of edgekit.yaml says what the loader takes: it is the rule that the loader is tested by."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from edgekit.cli import main
from edgekit.data.source import is_hub_name
from edgekit.examples.init import TEMPLATES, init_project
from edgekit.project import VIRTUAL, load_project
from edgekit.project.model import OF_LAYERS, TRIMMABLE
from edgekit.project.schedulers import NEEDED_ARGUMENTS, SCHEDULERS
from edgekit_exporters.peft.combinations import CAT, ELECTS, ON_UPDATES, PRUNES
from edgekit_runtime.constraints import check_schema
from edgekit_runtime.errors import InputError
from tests.json_schema import fits, resolved

FILE = Path(__file__).parents[3] / "docs" / "edgekit.schema.json"
SCHEMA: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
START: dict[str, Any] = {
    "project": "line-3",
    "base": "smollm2-135m",
    "data": {"train": {"path": "a.jsonl"}, "eval": "b.jsonl", "columns": {"prompt": "q"}},
    "adapters": {"a": {"method": "alora", "generation": {"top_k": 3}, "rank_pattern": {"q_proj": 4}}},
    "export": {"tensor_types": {"ffn": "Q6_K"}},
    "gate": {},
}
Place = tuple[str, ...]
FILES = {"path", "chat_template", "train", "eval", "schema"}  # what is read is not what is written


def test_the_checked_in_schema_is_that_of_the_models(capsys: pytest.CaptureFixture[str]) -> None:
    """``edgekit schema > docs/edgekit.schema.json`` makes it anew."""
    assert main(["schema"]) == 0
    assert capsys.readouterr().out == FILE.read_text(encoding="utf-8")


@pytest.mark.parametrize("template", TEMPLATES)
def test_each_example_project_fits_the_schema(template: str, tmp_path: Path) -> None:
    file = init_project(tmp_path / "line-3", template, max_steps=2)
    assert fits(YAML(typ="safe").load(file.read_text(encoding="utf-8")), SCHEMA, SCHEMA)


def _records(node: dict[str, Any], place: Place = ()) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Each record with properties, and where it stands."""
    node = resolved(node, SCHEMA)
    for each in node.get("anyOf", ()):
        yield from _records(each, place)
    if "properties" in node:
        yield place, node["properties"]
        for key, each in node["properties"].items():
            yield from _records(each, (*place, key))
    elif isinstance(node.get("additionalProperties"), dict):
        yield from _records(node["additionalProperties"], (*place, "a"))


RECORDS = dict(_records(SCHEMA))
KEYS = {(*place, key): node for place, properties in RECORDS.items() for key, node in properties.items()}


def test_the_schema_has_each_key_with_one_line_of_what_it_means() -> None:
    assert {("adapters", "a", "data", "train", "hub"), ("gate", "rows"), ("export", "name")} <= set(KEYS)
    for place, node in KEYS.items():
        assert 10 < len(node["description"]) <= 120, place
        assert "\n" not in node["description"], place


def test_what_the_file_does_not_say_itself_is_no_key() -> None:
    assert not {"folder", "name", "part"} & (set(SCHEMA["properties"]) | set(RECORDS["adapters", "a"]))
    assert list(RECORDS["data", "train"]) == ["path", "hub", "config", "split", "revision", "files"]


def _edges(node: dict[str, Any]) -> list[Any]:
    """Values at the bounds of a key, on both sides, and its words."""
    found: list[Any] = [edge for each in node.get("anyOf", ()) for edge in _edges(each)]
    for rule in ("minimum", "maximum", "exclusiveMinimum"):
        if rule in node:
            found += [node[rule] - 1, node[rule], node[rule] + 1, float(node[rule])]
    return [*found, *node.get("enum", ()), *([node["default"]] if "default" in node else ())]


text = st.text("ab1 Q/._-", max_size=4)
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2000)
    | st.floats()
    | text
    | st.sampled_from([0, 1, 1.0, "0", "1", "8", "0.5", "true", "no"]),  # what would be taken for another kind
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(text | st.sampled_from(["a", "base"]), inner, max_size=2)
    ),
    max_leaves=3,
)


@st.composite
def changes(draw: st.DrawFn) -> tuple[Place, Any]:
    """A place of the file and what stands there: mostly a key that there is, now and then one that there isn't."""
    if draw(st.integers(0, 9)):
        place = draw(st.sampled_from(sorted(KEYS)))
        edges = _edges(KEYS[place])
        return place, draw(anything | st.sampled_from(edges) if edges else anything)
    record = draw(st.sampled_from(sorted(RECORDS)))
    return (*record, draw(text | st.sampled_from(["name", "folder", "part", "rnak", "base", "a"]))), draw(anything)


def _changed(place: Place, value: Any) -> Any:
    document = node = copy.deepcopy(START)
    for key in place[:-1]:
        if not isinstance(node.get(key), dict):
            node[key] = {"train": {"path": "a.jsonl"}, "eval": "b.jsonl"} if key == "data" else {}
        node = node[key]
    node[place[-1]] = value
    return document


def _keys_agree(document: dict[str, Any]) -> bool:
    """What the schema can't say of a document that fits it: one key speaks of another, or of a file."""
    for record in (document, *document["adapters"].values()):
        files = (record or {}).get("data")
        if files is None:
            continue
        trained = [each or {} for each in document["adapters"].values()] if record is document else [record]
        if "train" not in files:
            rows = [each for each in trained if not (each.get("path") or each.get("combined"))]
            if files.get("eval") is None or any(each is record or not each.get("data") for each in rows):
                return False
        for source in (files.get("train"), files.get("eval")):
            if source is None or isinstance(source, str):
                continue
            path, hub = source.get("path"), source.get("hub")
            if (path is None) == (hub is None) or not (hub is None or is_hub_name(hub)):
                return False
            if path is not None and source.get("revision") is not None:
                return False
        taken = list((files.get("columns") or {}).values())
        ignored = files.get("ignore", [])
        if len(set(taken)) < len(taken) or set(taken) & set([ignored] if isinstance(ignored, str) else ignored):
            return False
    for name, stack in (document.get("stacks") or {}).items():
        parts = {part: document["adapters"].get(part) or {} for part in stack["adapters"]}
        if name in document["adapters"] or not parts.keys() <= document["adapters"].keys():
            return False
        if not any(stack["adapters"].values()) or any(each.get("merged") for each in parts.values()):
            return False
        if any(each.get("method") in VIRTUAL and each.get("path") is None for each in parts.values()):
            return False
    if (auto := document.get("auto")) is not None:
        answering = {"base", "refuse", *document["adapters"]}
        if auto.get("fallback", "base") not in answering or document.get("task") == "caption":
            return False
    for adapter in document["adapters"].values():
        if (adapter or {}).get("invocation") is not None and adapter.get("method") != "alora":
            return False
        if not _trains(adapter or {}):
            return False
        if not _combines(adapter or {}):
            return False
        schema = (adapter or {}).get("schema")
        if isinstance(schema, str):  # no such file is there
            return False
        try:
            check_schema({} if schema is None else schema)
        except InputError:
            return False
    return True


def _combines(adapter: dict[str, Any]) -> bool:
    """Whether a method of combining goes with its arguments."""
    combined = adapter.get("combined")
    if combined is None:
        return True
    method, weights = combined.get("method", CAT), combined["parts"].values()
    if adapter.get("path") is not None or 0 in weights or (method in ELECTS and min(weights) < 0):
        return False
    taken = (("rank", ON_UPDATES), ("density", PRUNES))
    return all(combined.get(key) is None or method in methods for key, methods in taken)


def _trains(adapter: dict[str, Any]) -> bool:
    """Whether scheduler and method go with their arguments."""
    scheduler, given = adapter.get("scheduler", "cosine"), set(adapter.get("lr_scheduler_kwargs") or {})
    needed = set(NEEDED_ARGUMENTS.get(scheduler, given))
    if not given <= set(SCHEDULERS[scheduler]) or (needed and not given & needed):
        return False
    method = adapter.get("method")
    if method != "prompt-tuning" and adapter.get("init_text") is not None:
        return False
    if method not in VIRTUAL and adapter.get("virtual_tokens") is not None:
        return False
    if method in VIRTUAL and any(adapter.get(key, idle) not in (idle, None) for key, idle in OF_LAYERS.items()):
        return False
    if adapter.get("targets") != "auto" and adapter.get("decode_budget") is not None:
        return False
    if adapter.get("targets") == "auto" and adapter.get("method", "qlora") not in (*TRIMMABLE, *VIRTUAL):
        return False
    if method != "dpo":
        return adapter.get("beta") is None
    return not adapter.get("label_smoothing_factor") and adapter.get("loss", "last") == "last"


def _loaded(folder: Path) -> tuple[Any, str]:
    """The project, or why there is none."""
    try:
        return load_project(folder), "taken"
    except InputError as error:
        return None, str(error)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(change=changes())
@example(change=(("adapters", "a", "rank"), True))
@example(change=(("adapters", "a", "rank"), "8"))
@example(change=(("adapters", "a", "rank"), 8.0))
@example(change=(("adapters", "a", "epochs"), 2))
@example(change=(("adapters", "a", "epochs"), float("inf")))
@example(change=(("adapters", "a", "connector"), 1))
@example(change=(("adapters", "a", "connector"), "true"))
@example(change=(("adapters", "a"), False))
@example(change=(("adapters", "a"), None))
@example(change=(("adapters", "base"), {}))
@example(change=(("adapters", "a", "name"), "a"))
@example(change=(("folder",), "."))
@example(change=(("adapters", "a", "virtual_tokens"), 1))
@example(change=(("adapters", "a", "init_text"), "Inspect."))
@example(change=(("adapters", "a"), {"method": "prompt-tuning", "virtual_tokens": 4, "init_text": "Inspect."}))
@example(change=(("adapters", "a"), {"method": "prompt-tuning", "init_text": ""}))
@example(change=(("adapters", "a"), {"method": "p-tuning", "rank": 8}))
@example(change=(("adapters", "a"), {"method": "p-tuning", "rank_pattern": None}))
@example(change=(("data", "train", "part"), "eval"))
@example(change=(("data",), {"eval": "b.jsonl"}))
@example(change=(("data",), {}))
@example(change=(("adapters", "a", "data"), {}))
@example(change=(("stacks",), {"s": {"adapters": {"a": 0.5}}}))
@example(change=(("stacks",), {"s": {"adapters": {"a": 0}}}))
@example(change=(("stacks",), {"s": {"adapters": {"b": 1}}}))
@example(change=(("stacks",), {"a": {"adapters": {"a": 1}}}))
@example(change=(("stacks",), None))
@example(change=(("auto",), {}))
@example(change=(("auto",), {"fallback": "a"}))
@example(change=(("auto",), {"fallback": "b"}))
@example(change=(("auto", "fallback"), ""))
@example(change=(("auto",), None))
@example(change=(("adapters", "auto"), {}))
@example(change=(("adapters", "a", "data"), {"eval": "b.jsonl"}))
@example(change=(("adapters", "a"), {"combined": {"parts": {"b": 1, "c": -0.5}}, "data": {"eval": "b.jsonl"}}))
@example(change=(("adapters", "a"), {"combined": {"parts": {"b": 1, "c": -0.5}, "method": "ties"}}))
@example(change=(("adapters", "a"), {"combined": {"parts": {"b": 1}}}))
@example(change=(("adapters", "a", "combined", "density"), 0.5))
def test_the_loader_takes_what_the_schema_allows_and_changes_no_value(
    change: tuple[Place, Any], tmp_path: Path
) -> None:
    place, value = change
    document = _changed(place, value)
    with (tmp_path / "edgekit.yaml").open("w") as stream:
        YAML().dump(document, stream)
    allowed = fits(document, SCHEMA, SCHEMA) and _keys_agree(document)
    found, refusal = _loaded(tmp_path)
    assert (found is not None) == allowed, refusal
    if found is None or FILES & set(place) or value is None or isinstance(value, list | dict):
        return
    for key in place:
        found = found[key] if isinstance(found, dict) else getattr(found, key)
    assert found == ((value,) if place[-1] in ("ignore", "report_to") else value)  # one stands for a list of it
    assert isinstance(found, bool) == isinstance(value, bool)
