"""What is changed in a schema before llguidance gets it.  All that fits afterwards fits the schema as it was."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from edgekit_runtime.constraints.keywords import inner_schemas

# What may stand beside $ref, anyOf and oneOf without a say in which properties an object has.
BESIDE = frozenset({"$ref", "anyOf", "oneOf", "$defs", "definitions", "$schema", "$id", "id", "$anchor"})


def narrowed(schema: Any) -> Any:
    """A schema that :func:`~edgekit_runtime.constraints.keywords.holdable` has read, changed in place.

    * ``oneOf`` becomes ``anyOf`` where the text of a required property tells the alternatives apart, which llguidance
      doesn't see.
    * An object that lists its properties has no others, unless the schema speaks of them: models that know no end would
      make up property after property.  Schemas that put objects together from parts stay as they are.
    """
    nodes = [node for node in nodes_of(schema) if isinstance(node, dict)]
    for node in nodes:
        if "anyOf" not in node and _told_apart(node.get("oneOf"), schema):
            node["anyOf"] = node.pop("oneOf")
    if all(is_plain(node) for node in nodes):
        for node in nodes:
            properties, required = node.get("properties"), node.get("required", [])
            if properties and _names(required) and all(each in properties for each in required):
                node.setdefault("additionalProperties", "patternProperties" in node)
    return schema


def _names(required: Any) -> bool:
    return isinstance(required, list) and all(isinstance(each, str) for each in required)


def is_plain(node: dict[str, Any]) -> bool:
    """Whether a schema says all of a value in one place, not in parts that are put together."""
    if "allOf" in node or "oneOf" in node:
        return False
    return not node.keys() & {"$ref", "anyOf"} or node.keys() <= BESIDE


def nodes_of(schema: Any) -> Iterator[Any]:
    """The schema and all schemas inside it."""
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, dict):
            waiting += inner_schemas(node)


def _told_apart(branches: Any, root: Any) -> bool:
    if not isinstance(branches, list) or len(branches) < 2:
        return False
    objects = [_resolved(each, root) for each in branches]
    if not all(
        isinstance(each, dict)
        and each.get("type") == "object"
        and isinstance(each.get("required"), list)
        and isinstance(each.get("properties"), dict)
        for each in objects
    ):
        return False
    for name in objects[0]["required"]:
        if not isinstance(name, str) or not all(name in each["required"] for each in objects):
            continue
        found = [_texts(each["properties"].get(name)) for each in objects]
        if all(found) and len(set().union(*found)) == sum(map(len, found)):
            return True
    return False


def _texts(node: Any) -> frozenset[str]:
    """The texts that a property may be; none where it may be something else."""
    if not isinstance(node, dict):
        return frozenset()
    values = [node["const"]] if "const" in node else node.get("enum")
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        return frozenset()
    return frozenset(values)


def _resolved(node: Any, root: Any) -> Any:
    """What a reference inside the schema names."""
    reference = node.get("$ref") if isinstance(node, dict) else None
    if not isinstance(reference, str):
        return node
    found: Any = root if reference.startswith("#/") else None
    for part in unquote(reference).split("/")[1:]:
        found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    return found
