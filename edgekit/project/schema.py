"""The JSON Schema of edgekit.yaml, for editors, made from the models; and what it says of one place."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from edgekit.project.model import Project


class _Generator(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        """Never: a title would be the key once more."""
        return False


@functools.cache
def project_schema() -> dict[str, Any]:
    """The schema (draft 2020-12) that a project file fits when its keys and values can be right.

    Paths, rows and what one key says of another are not in it.
    """
    schema = TypeAdapter(Project).json_schema(schema_generator=_Generator)
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema, "title": "edgekit.yaml"}


def keys_at(place: Iterable[int | str]) -> list[str]:
    """The keys that a record at ``place`` may have; none where no record can be."""
    node = _mapping(project_schema())
    for key in place:
        node = _mapping(node.get("properties", {}).get(key) or node.get("additionalProperties") or {})
    return list(node.get("properties", ()))


def _mapping(node: dict[str, Any]) -> dict[str, Any]:
    """The alternative of a schema that is a mapping."""
    if "$ref" in node:
        node = project_schema()["$defs"][node["$ref"].rpartition("/")[2]]
    if "anyOf" in node:
        return next((found for each in node["anyOf"] if (found := _mapping(each))), {})
    return node if node.get("type") == "object" else {}
