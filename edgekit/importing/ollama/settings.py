"""Ollama's PARAMETERs: those that bases and adapters can bring as defaults, and a word on each other one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgekit_runtime.errors import SHOWN, InputError, shown
from edgekit_runtime.formats.sampling_defaults import RULES
from edgekit_runtime.hints import did_you_mean
from edgekit_runtime.server.ollama.tables import DEFAULTS, NOTED, OPTIONS

STOP = "stop"
_OURS = {theirs: ours for ours, theirs in DEFAULTS.items()}
_ELSEWHERE = {
    "num_ctx": "serve with --context {}",
    "num_predict": "requests that shall go on to the end of the context send max_tokens: -1",
}
_WITH_REQUESTS = "send it with requests"


@dataclass
class Settings:
    """What becomes of them.

    Attributes:
        generation: sampling defaults by our names; None without any.
        stops: texts that end an answer.
        left_out: the others, each with what to do instead.
    """

    generation: dict[str, Any] | None = None
    stops: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def read_settings(parameters: Mapping[str, Sequence[str]], where: str) -> Settings:
    """Sort them.

    Args:
        parameters: values by Ollama's name; of several values the last one counts, but for ``stop``.
        where: names their file in errors.

    Raises:
        InputError: a name that Ollama doesn't know, or a value of the wrong kind.
    """
    found, generation = Settings(), dict[str, Any]()
    for name, values in parameters.items():
        if name not in OPTIONS:
            raise InputError(f"{where}: there is no PARAMETER {shown(name)}", did_you_mean(name, OPTIONS))
        if name == STOP:
            found.stops += [each for each in values if each]
            continue
        value = values[-1]
        ours = _OURS.get(name)
        if ours is not None and not (ours == "max_tokens" and value.lstrip().startswith("-")):
            generation[ours] = _number(ours, name, value, where)
        elif not _is_neutral(name, value):
            found.left_out.append(f"PARAMETER {name} {value[:SHOWN]}: {_instead(name, value)}")
    found.generation = generation or None
    return found


def left_out_stop(text: str) -> str:
    """A word on a stop that isn't an end token of the base."""
    return f"PARAMETER {STOP} {json.dumps(text[:SHOWN], ensure_ascii=False)}: {_WITH_REQUESTS}"


def _number(ours: str, name: str, value: str, where: str) -> float:
    kind, least, most = RULES[ours]
    try:
        number = float(value)
        number = number if kind is float else int(value if number != number // 1 else number)
    except (ValueError, OverflowError):
        number = math.nan
    if least <= number <= most:
        return number
    word = "a number" if kind is float else "a whole number"
    problem = f"{where}: PARAMETER {name} is {shown(value)}, and has to be {word} from {least} to {most}"
    raise InputError(problem, "correct it" if name == ours else f"correct it: it becomes {ours} here")


def _is_neutral(name: str, value: str) -> bool:
    """Whether a value changes nothing."""
    try:
        return OPTIONS[name].only is not None and OPTIONS[name].takes(json.loads(value.lower()))
    except ValueError:
        return False


def _instead(name: str, value: str) -> str:
    if name in _ELSEWHERE:
        return _ELSEWHERE[name].format(value)
    if OPTIONS[name].only is not None:
        return "not available"
    return "nothing here depends on it" if OPTIONS[name].does == NOTED else _WITH_REQUESTS
