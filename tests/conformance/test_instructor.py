"""instructor, which makes objects of answers: by tools, by JSON, piece by piece.

It is in no extra: its bounds on rich and jiter exclude the versions that this project is tried with.
"""

from __future__ import annotations

from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel, ConfigDict, field_validator

from tests.conformance.words import ASKED
from tests.service import Service

instructor = pytest.importorskip(
    "instructor", reason="instructor is not installed: it wants rich < 15 and jiter < 0.15, older than constraints.txt"
)


class Report(BaseModel):
    """A part's report."""

    part: int
    verdict: Literal["good", "scratch", "dent"]


class Anything(BaseModel):
    """An object."""

    model_config = ConfigDict(extra="allow")


class Never(BaseModel):
    """What no answer is."""

    part: int

    @field_validator("part")
    @classmethod
    def _refuse(cls, value: int) -> int:
        raise ValueError("say it once more")


def client(service: Service, mode: str) -> Any:
    opened = openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0)
    return instructor.from_openai(opened, mode=getattr(instructor.Mode, mode))


@pytest.mark.parametrize("mode", ["TOOLS", "TOOLS_STRICT", "JSON_SCHEMA", "JSON"])
def test_answers_become_objects(service: Service, mode: str) -> None:
    # JSON says the schema in words alone, which so small a model doesn't follow: any object will do there.
    kind = Anything if mode == "JSON" else Report
    found = client(service, mode).chat.completions.create(
        response_model=kind, model="one", messages=ASKED, max_tokens=300, temperature=0, max_retries=0
    )
    assert isinstance(found, kind)


def test_objects_grow_while_the_answer_comes(service: Service) -> None:
    ask = client(service, "TOOLS").chat.completions
    grown = list(ask.create_partial(response_model=Report, model="one", messages=ASKED, max_tokens=200, temperature=0))
    assert grown[-1].part is not None
    assert grown[-1].verdict in ("good", "scratch", "dent")


def test_what_does_not_fit_is_asked_again_with_the_reason(service: Service) -> None:
    from instructor.core.exceptions import InstructorRetryException

    with pytest.raises(InstructorRetryException) as told:
        client(service, "TOOLS").chat.completions.create(
            response_model=Never, model="one", messages=ASKED, max_tokens=100, max_retries=1
        )
    assert told.value.n_attempts > 1
