"""``stacks:`` of a project file: adapters that answer together, under a name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from pydantic.json_schema import SkipJsonSchema

from edgekit.project.data_files import DataFiles
from edgekit.project.fields import CLOSED, JsonSchema, Key, Number, Text, empty_is, refused, refused_at
from edgekit.project.generation import Generation
from edgekit_runtime.formats.manifest import LARGEST_SCALE, MOST_ADAPTERS

_Scale = Annotated[Number, Field(ge=0, le=LARGEST_SCALE)]


@dataclass(frozen=True, config=CLOSED)
class Stack:
    """Adapters of the project that devices apply together; each stays a file of its own."""

    name: SkipJsonSchema[str]  # in a project file it is the key of the stack
    adapters: Mapping[Key, _Scale] = Field(
        description="Adapters of this project and their scales: {triage: 1.0, formal: 0.5}",
        json_schema_extra={"minProperties": 1, "maxProperties": MOST_ADAPTERS},
    )
    system: Text | None = Field(
        default=None, description="System prompt; else that of its adapters, where all have the same"
    )
    schema: JsonSchema = Field(default=None, description="JSON schema of answers, or a file with one")
    generation: Annotated[Generation, empty_is(Generation, Generation)] = Field(
        default_factory=Generation, description="Sampling defaults on the device"
    )
    data: DataFiles | None = Field(
        default=None, description="Rows that prove it: {eval: …}; else those of its adapters, taken in turn"
    )

    @property
    def scales(self) -> dict[str, float]:
        """Of the adapters that do anything."""
        return {name: scale for name, scale in self.adapters.items() if scale}

    @model_validator(mode="after")
    def _does_something(self) -> Stack:
        if not self.scales:
            error = refused("no adapter in it has a scale over 0", "name one: {triage: 1.0}")
            raise refused_at(("adapters",), error, self.adapters)
        if len(self.adapters) > MOST_ADAPTERS:
            error = refused(f"it has {len(self.adapters)} adapters", f"name at most {MOST_ADAPTERS}")
            raise refused_at(("adapters",), error, self.adapters)
        return self
