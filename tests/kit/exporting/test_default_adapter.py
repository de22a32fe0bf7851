"""Who answers a request that names nobody."""

from __future__ import annotations

import pytest

from edgekit.exporting.preflight import default_adapter
from edgekit_runtime.errors import InputError


def test_the_first_adapter_answers_when_nothing_is_said() -> None:
    assert default_adapter(None, ["inspection", "monitoring"]) == "inspection"


def test_the_bare_base_answers_only_when_it_is_asked_for() -> None:
    assert default_adapter("base", ["inspection"]) is None


def test_an_adapter_that_is_not_exported_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match="inspektion is not among the exported adapters: .*inspection"):
        default_adapter("inspektion", ["inspection", "monitoring"])
