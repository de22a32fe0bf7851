"""``combined:`` of an adapter: which adapters it is made of, and how."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from edgekit.project.fields import CLOSED, Key, Number, OneOf, Text, Whole, refused, refused_at
from edgekit_exporters.peft.combinations import CAT, COMBINATIONS, ELECTS, LEARNED, ON_UPDATES, PRUNES
from edgekit_runtime.formats.bundle import file_digest

DENSITY = 0.5
STEPS = 60
MAX_WEIGHT = 100.0
_Weight = Annotated[Number, Field(ge=-MAX_WEIGHT, le=MAX_WEIGHT)]


@dataclass(frozen=True, config=CLOSED)
class Combined:
    """How an adapter is made of others."""

    parts: Mapping[Key, _Weight] = Field(
        description="Adapters and their weights: names of this project's, or paths: {triage: 0.7, other/adapter: 0.3}",
        json_schema_extra={"minProperties": 2},
    )
    method: Annotated[Text, OneOf(COMBINATIONS)] = Field(
        default=CAT, description="How; cat is the exact sum of the weighted updates, learned trains the weights of that"
    )
    rank: Whole | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="Of svd, della and the methods in _svd: rank of the result; else the largest rank of the parts",
    )
    density: Number | None = Field(
        default=None, gt=0, le=1, description=f"Of methods that prune: share of numbers to keep; else {DENSITY}"
    )

    steps: Whole | None = Field(
        default=None, ge=1, le=100_000, description=f"Of learned: most steps of training; else {STEPS}"
    )

    @model_validator(mode="after")
    def _fits_the_method(self) -> Combined:
        if len(self.parts) < 2:
            raise refused_at(("parts",), refused("it takes two adapters or more", "name them with weights"), self.parts)
        for key, methods in (("rank", ON_UPDATES), ("density", PRUNES), ("steps", (LEARNED,))):
            value = getattr(self, key)
            if value is not None and self.method not in methods:
                error = refused(f"method: {self.method} has none", f"leave it out, or use {' or '.join(methods[:2])}")
                raise refused_at((key,), error, value)
        for name, weight in self.parts.items():
            if weight == 0:
                raise refused_at(("parts", name), refused("a weight of 0 adds nothing", "leave it out"), weight)
            if weight < 0 and self.method in ELECTS:
                error = refused(
                    f"method: {self.method} elects signs before it weighs, so no weight can be negative",
                    "use cat, svd or dare_linear to take an adapter away",
                )
                raise refused_at(("parts", name), error, weight)
        return self

    def as_dict(self) -> dict[str, Any]:
        """As the file has it: only what is set."""
        return {key: value for key, value in vars(self).items() if value is not None} | {"parts": dict(self.parts)}


def adapter_digest(path: Path) -> str:
    """sha256 over the settings and tensors of an adapter: one file with what lies beside it, or those of a folder."""
    files = [path] if path.is_file() else sorted(each for each in path.rglob("adapter_*") if each.is_file())
    beside = path.with_name("adapter_config.json")
    if path.is_file() and beside.is_file():
        files.append(beside)
    return hashlib.sha256("".join(map(file_digest, files)).encode()).hexdigest()
