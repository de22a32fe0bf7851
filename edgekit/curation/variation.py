"""A plan of variation: axes with values, whose combinations a teacher is asked for in turn."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekit_runtime.errors import InputError, UsageError

ABOUT, VARY = "about", "vary"  # keys of a plan's file
MOST_COMBINATIONS = 100_000
_SET_ASIDE = 5  # refusals in a row

Combination = Mapping[str, str]


def read_axes(given: Sequence[str]) -> dict[str, list[str]]:
    """Axes of a command line: ``tone: polite, angry``.

    Raises:
        UsageError: one has no name or no values, or is there twice.
    """
    axes: dict[str, list[str]] = {}
    for text in given:
        name, _, rest = (part.strip() for part in text.partition(":"))
        values = [value.strip() for value in rest.split(",") if value.strip()]
        if not name or not values:
            raise UsageError(f"--vary {text!r} names no axis with values", "write --vary 'tone: polite, angry'")
        if name in axes:
            raise UsageError(f"--vary has {name!r} twice", "put all its values into one")
        axes[name] = values
    return axes


def read_plan(path: Path) -> tuple[str | None, dict[str, list[str]]]:
    """A plan's file in YAML: ``about``, a text, and ``vary``, axes with lists of values.

    Raises:
        InputError: it can't be read, or has other keys or kinds of values.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        document: Any = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror})", "check its name and permissions") from None
    except (ValueError, YAMLError, RecursionError) as error:
        raise InputError(f"{path} is no readable YAML ({' '.join(str(error).split())})", "correct the file") from None
    form = f"a plan has {ABOUT}: a text, and {VARY}: {{axis: [values]}}"
    if not isinstance(document, dict) or not set(document) <= {ABOUT, VARY}:
        raise InputError(f"{path} is no plan", form)
    about, axes = document.get(ABOUT), document.get(VARY) or {}
    if not (about is None or isinstance(about, str)) or not isinstance(axes, dict):
        raise InputError(f"{path} is no plan", form)
    for name, values in axes.items():
        if (
            not isinstance(values, list)
            or not values
            or not all(isinstance(each, (str, int, float)) for each in values)
        ):
            raise InputError(f"{path}: {VARY}.{name} is no list of values", form)
    return about, {str(name): [str(value) for value in values] for name, values in axes.items()}


class Variation:
    """Combinations of axes: the one with the fewest rows comes next, so that all get as many."""

    def __init__(self, axes: Mapping[str, Sequence[str]], seed: int, earlier: Iterable[Combination] = ()) -> None:
        """Go on after ``earlier`` rows; ``seed`` is the order of those that have as many.

        Raises:
            InputError: there are more combinations than anybody will ask for.
        """
        count = 1
        for values in axes.values():
            count *= len(values)
        if count > MOST_COMBINATIONS:
            raise InputError(f"the plan has {count} combinations", f"drop axes or values: at most {MOST_COMBINATIONS}")
        made = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
        random.Random(seed).shuffle(made)
        self._combinations = {_key(each): each for each in made}
        self._asked: Counter[str] = Counter(_key(each) for each in earlier)  # rows that are there or under way
        self._refused: Counter[str] = Counter()  # in a row

    def take(self) -> Combination:
        """The combination to ask for now; those that were refused again and again wait while there are others."""
        key = min(self._combinations, key=lambda each: (self._refused[each] >= _SET_ASIDE, self._asked[each]))
        self._asked[key] += 1
        return self._combinations[key]

    def took(self, combination: Combination) -> None:
        """A row of it was taken."""
        self._refused[_key(combination)] = 0

    def refused(self, combination: Combination) -> None:
        """A row of it was refused: it is due again."""
        self._asked[_key(combination)] -= 1
        self._refused[_key(combination)] += 1


def _key(combination: Combination) -> str:
    return json.dumps(combination, sort_keys=True, ensure_ascii=False)
