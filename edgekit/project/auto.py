"""``auto:`` of a project file: devices choose the adapter of a request."""

from __future__ import annotations

from pydantic import Field
from pydantic.dataclasses import dataclass

from edgekit.project.fields import CLOSED, Text
from edgekit_runtime.formats.manifest import BASE


@dataclass(frozen=True, config=CLOSED)
class Auto:
    """What devices need to choose an adapter, and who answers what is for none of them."""

    fallback: Text = Field(
        default=BASE, description="Who answers what is for no adapter: base, an adapter's name, or refuse for an error"
    )
