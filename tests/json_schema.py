"""Whether a document fits a JSON Schema: as much of draft 2020-12 as the schema of edgekit.yaml uses, and no more."""

from __future__ import annotations

import math
import re
from typing import Any

NOTES = {"$schema", "$defs", "title", "description", "default"}  # say nothing of what fits
TYPES: dict[str, tuple[type, ...]] = {
    "null": (type(None),),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "string": (str,),
    "array": (list,),
    "object": (dict,),
}


def resolved(node: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """What a node says itself, or the definition that it names."""
    return root["$defs"][node["$ref"].removeprefix("#/$defs/")] if "$ref" in node else node


def fits(value: Any, node: Any, root: dict[str, Any]) -> bool:
    """Whether ``value`` fits ``node`` of the schema ``root``.  8.0 is no integer, as in YAML; infinity is no number."""
    if isinstance(node, bool):
        return node
    return all(_rule(name, rule, value, node, root) for name, rule in node.items() if name not in NOTES)


def _rule(name: str, rule: Any, value: Any, node: dict[str, Any], root: dict[str, Any]) -> bool:
    match name:
        case "$ref":
            return fits(value, resolved({name: rule}, root), root)
        case "anyOf":
            return any(fits(value, each, root) for each in rule)
        case "allOf":
            return all(fits(value, each, root) for each in rule)
        case "not":
            return not fits(value, rule, root)
        case "const":
            return bool(value == rule)
        case "enum":
            return value in rule
        case "type":
            wanted = isinstance(value, TYPES[rule]) and (rule == "boolean") == isinstance(value, bool)
            return wanted and not (isinstance(value, float) and not math.isfinite(value))
    match name, value:
        case "minimum", int() | float():
            return bool(value >= rule)
        case "exclusiveMinimum", int() | float():
            return bool(value > rule)
        case "maximum", int() | float():
            return bool(value <= rule)
        case "exclusiveMaximum", int() | float():
            return bool(value < rule)
        case "pattern", str():
            return re.search(rule, value) is not None
        case ("minLength", str()) | ("minItems", list()) | ("minProperties", dict()):
            return len(value) >= rule
        case "maxProperties", dict():
            return len(value) <= rule
        case "items", list():
            return all(fits(each, rule, root) for each in value)
        case "required", dict():
            return set(rule) <= set(value)
        case "properties", dict():
            return all(fits(value[key], each, root) for key, each in rule.items() if key in value)
        case "additionalProperties", dict():
            return all(fits(each, rule, root) for key, each in value.items() if key not in node.get("properties", {}))
        case "propertyNames", dict():
            return all(fits(key, rule, root) for key in value)
    if name not in OF_SOME_KIND:
        raise NotImplementedError(f"this schema says {name}")
    return True  # a rule for values of another kind


OF_SOME_KIND = {
    *(
        "minimum",
        "exclusiveMinimum",
        "maximum",
        "exclusiveMaximum",
        "pattern",
        "minLength",
        "minItems",
        "minProperties",
        "maxProperties",
        "items",
    ),
    *("required", "properties", "additionalProperties", "propertyNames"),
}
