"""``generation:`` of a project file: how answers are sampled."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from edgekit.project.fields import CLOSED, Number, Whole
from edgekit_runtime.formats.sampling_defaults import LEAST_REPETITION, MOST_PENALTY, MOST_REPETITION

_INT32_MAX = 2**31 - 1


@dataclass(frozen=True, config=CLOSED)
class Generation:
    """Sampling defaults that travel with an adapter."""

    max_tokens: Whole | None = Field(default=None, ge=1, le=_INT32_MAX, description="Longest answer, in tokens")
    temperature: Number | None = Field(default=None, ge=0, le=1000, description="0 for the likeliest token each time")
    top_k: Whole | None = Field(default=None, ge=0, le=_INT32_MAX, description="Sample from so many likeliest tokens")
    top_p: Number | None = Field(
        default=None, gt=0, le=1, description="Sample from tokens of this probability together"
    )
    min_p: Number | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Sample from tokens that have this share of the likeliest one's probability",
    )
    repetition_penalty: Number | None = Field(
        default=None,
        ge=LEAST_REPETITION,
        le=MOST_REPETITION,
        description="Over 1: tokens of prompt and answer become less likely",
    )
    frequency_penalty: Number | None = Field(
        default=None, ge=-MOST_PENALTY, le=MOST_PENALTY, description="For each time that the answer has a token"
    )
    presence_penalty: Number | None = Field(
        default=None, ge=-MOST_PENALTY, le=MOST_PENALTY, description="Once for each token that the answer has"
    )

    def as_dict(self) -> dict[str, Any] | None:
        """Only what is set; None when nothing is."""
        return {key: value for key, value in vars(self).items() if value is not None} or None
