"""Regular expressions of an adapter's settings, tried on a base's names within a time limit.

A pattern such as ``((a*)*)*X`` needs time that doubles with each character, and nothing can stop Python's ``re`` from
inside.  So another process tries them first.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection

from edgekit_exporters.peft.settings import Settings

SECONDS = 5.0  # sound ones need milliseconds
_REPEATS = frozenset("*+{")
_TRY = """
import json, re, sys
asked = json.load(sys.stdin)
for key, pattern in asked["patterns"]:
    print(key, flush=True)
    for form in (pattern, rf"(.*\\.)?({pattern})$"):  # as PEFT asks
        for name in asked["names"]:
            re.fullmatch(form, name), re.match(form, name)
"""


def check_time(settings: Settings, names: Collection[str]) -> None:
    """Match every pattern that repeats something with every name.

    Args:
        settings: of the adapter.
        names: of the base's modules, as PEFT will match them.

    Raises:
        InputError: one of them takes too long.
    """
    patterns = [(key, each) for key, each in _patterns(settings) if _REPEATS & set(each)]
    if not patterns:
        return
    try:
        subprocess.run(
            [sys.executable, "-I", "-S", "-c", _TRY],
            input=json.dumps({"patterns": patterns, "names": sorted(names)}),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        begun = (error.stdout or b"").decode().split()
        raise settings.error(
            begun[-1] if begun else patterns[0][0],
            f"a regular expression in it takes more than {SECONDS:g} seconds on the names of the base",
            "write it without repeats inside repeats, or list the names",
        ) from None


def _patterns(settings: Settings) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key in ("target_modules", "exclude_modules"):
        value = getattr(settings, key)
        if isinstance(value, str):
            found.append((key, value))
    found += [("layers_pattern", each) for each in settings.layers_pattern or ()]
    for key in ("rank_pattern", "alpha_pattern"):
        found += [(key, each) for each in getattr(settings, key)]
    return found
