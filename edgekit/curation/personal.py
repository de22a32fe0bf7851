"""Personal data that can be told by its form, offline.

phonenumbers finds telephone numbers, python-stdnum judges check digits.  Names, addresses and whatever else only a
reader recognises are not found.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from edgekit_runtime.errors import UsageError

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_IP = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\d)")
# Form of a number, and the module of python-stdnum that knows its check digits.
_NUMBERS = (
    ("bank account (IBAN)", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"), "stdnum.iban"),
    ("payment card", re.compile(r"(?<![\d.-])[2-6]\d{3}(?:[ -]?\d{4}){2}[ -]?\d{1,7}(?![\d.-])"), "stdnum.luhn"),
    ("social security number (US)", re.compile(r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])"), "stdnum.us.ssn"),
    ("identity number (China)", re.compile(r"(?<!\d)\d{17}[\dXx](?!\d)"), "stdnum.cn.ric"),
    ("identity number (Spain)", re.compile(r"\b(?:\d{8}|[XYZ]\d{7})[A-Z]\b"), "stdnum.es.nif"),
    (
        "social security number (France)",
        re.compile(r"(?<!\d)[12](?: ?\d{2}){2} ?\w{2} ?\d{3} ?\d{3} ?\d{2}(?!\d)"),
        "stdnum.fr.nir",
    ),
    ("tax code (Italy)", re.compile(r"\b[A-Z]{6}\d{2}[A-Z]\d{2}[A-Z]\d{3}[A-Z]\b"), "stdnum.it.codicefiscale"),
    ("identity number (India)", re.compile(r"(?<![\d.-])\d{4} \d{4} \d{4}(?![\d.-])"), "stdnum.in_.aadhaar"),
    ("tax number (Brazil)", re.compile(r"(?<!\d)\d{3}\.\d{3}\.\d{3}-\d{2}(?!\d)"), "stdnum.br.cpf"),
)
_LEAST_DIGITS = 7  # of a telephone number


@dataclass(frozen=True)
class Personal:
    """Something personal; ``masked`` is enough to find it by, and no more."""

    kind: str
    masked: str


def find_personal(text: str, region: str | None = None) -> list[Personal]:
    """What looks personal in a text, each thing once.

    Args:
        text: a question or an answer.
        region: country (``DE``) of telephone numbers that don't begin with +; None finds only those that do.
    """
    found = dict.fromkeys((*_emails(text), *_numbers(text), *_phones(text, region), *_addresses(text)))
    return list(found)


def check_region(region: str | None) -> None:
    """Raise UsageError for a country that phonenumbers doesn't know."""
    import phonenumbers

    if region is not None and region not in phonenumbers.SUPPORTED_REGIONS:
        raise UsageError(f"there is no region {region!r}", "use two letters of ISO 3166, DE or US say")


def _emails(text: str) -> Iterator[Personal]:
    for found in _EMAIL.findall(text):
        name, _, host = found.partition("@")
        yield Personal("e-mail address", f"{name[:1]}…@{host}")


def _numbers(text: str) -> Iterator[Personal]:
    for kind, form, module in _NUMBERS:
        candidates = [each.group() for each in form.finditer(text)]
        if candidates:
            valid: Callable[[str], Any] = import_module(module).is_valid
            yield from (Personal(kind, _masked(each)) for each in candidates if valid(re.sub(r"[ -]", "", each)))


def _phones(text: str, region: str | None) -> Iterator[Personal]:
    if sum(map(str.isdigit, text)) < _LEAST_DIGITS or (region is None and "+" not in text):
        return
    import phonenumbers

    for each in phonenumbers.PhoneNumberMatcher(text, region):
        yield Personal("telephone number", _masked(each.raw_string))


def _addresses(text: str) -> Iterator[Personal]:
    for found in _IP.findall(text):
        try:
            public = ipaddress.ip_address(found).is_global
        except ValueError:
            continue
        if public:
            yield Personal("IP address", f"{found.rpartition('.')[0]}.…")


def _masked(number: str) -> str:
    return f"{number[:3]}…{number[-2:]}"
