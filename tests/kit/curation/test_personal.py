"""What is personal by its form."""

from __future__ import annotations

import pytest

from edgekit.curation.personal import check_region, find_personal
from edgekit_runtime.errors import UsageError


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("write to jane.doe@example.com", "e-mail address"),
        ("call +49 30 901820", "telephone number"),
        ("IBAN DE89 3704 0044 0532 0130 00", "bank account (IBAN)"),
        ("card 4111-1111-1111-1111", "payment card"),
        ("SSN 536-90-4399", "social security number (US)"),
        ("360426199101010071", "identity number (China)"),
        ("DNI 54362315K", "identity number (Spain)"),
        ("NIR 2 95 10 99 126 111 93", "social security number (France)"),
        ("RCCMNL83S18D969H", "tax code (Italy)"),
        ("CPF 390.533.447-05", "tax number (Brazil)"),
        ("from 8.8.8.8", "IP address"),
    ],
)
def test_it_is_found_and_not_shown(text: str, kind: str) -> None:
    (found,) = find_personal(text)
    assert found.kind == kind
    assert "…" in found.masked
    assert found.masked not in text


@pytest.mark.parametrize(
    "text",
    [
        "Scratch of 0.40 mm on part 4912-33, station 4. Tolerance 0.40 mm.",
        "card 4111-1111-1111-1112",
        "IBAN DE88 3704 0044 0532 0130 00",
        "firmware 1.2.3.400 on 192.168.1.20",
        "2026-11-27 10:15:00, order 20261127101500",
        "call 030 901820",
        "a@b",
    ],
)
def test_what_only_looks_like_it_is_not(text: str) -> None:
    assert find_personal(text) == []


def test_numbers_of_a_country_need_its_name() -> None:
    assert [each.kind for each in find_personal("call 030 901820", "DE")] == ["telephone number"]
    with pytest.raises(UsageError, match="no region 'XX'"):
        check_region("XX")
